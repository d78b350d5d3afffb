"""The frozen stages by OpenVINO: as torch computes them, only where that pays, and never in the way of a training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.phantom_folders import write_phantoms, write_tokenizer
from torch import Tensor

from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from gms_rt.errors import ConfigError
from gms_rt.model.gms import Gms, pooled_channels
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import load_tokenizer
from gms_rt.runtime.arithmetic import CpuArithmetic
from gms_rt.train import frozen_stages
from gms_rt.train.frozen_stages import RuntimeStages, bf16_stages, stages_for
from gms_rt.train.latents import INDEX
from gms_rt.train.loop import train
from gms_rt.train.recipe import load_recipe
from gms_rt.train.request import TrainingRequest

SIZE = 32
SMALL = ("size=32", "width=8", "groups=4", "multipliers=[1,2]", "views=2", "batch=4", "latent_epochs=2", "epochs=1")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def model(tokenizer: str, levels: tuple[int, ...] = ()) -> Gms:
    frozen = load_tokenizer(tokenizer)
    shape = LmmConfig(frozen.spec.channels, 8, (1, 2), 4)
    shape = replace(shape, levels=levels, level_channels=pooled_channels(frozen, levels, shape.pooling))
    return Gms(frozen, LatentMapper(shape)).eval()


def pictures(count: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8))


@pytest.mark.parametrize("levels", [(), (1, 2)])
def test_all_stages_are_those_of_torch(tokenizer: str, levels: tuple[int, ...]) -> None:
    gms = model(tokenizer, levels)
    state = torch.get_rng_state()
    stages, some = RuntimeStages(gms, SIZE, threads=1), pictures(3)
    with torch.no_grad():
        for ours, theirs in (
            (stages.encode_levels(some), gms.encode_levels(some)),
            (stages.encode_masks(some), gms.encode_masks(some)),
        ):
            assert ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        latent = gms.encode_masks(some)
        drawn = stages.draw_levels(latent)
        assert drawn.dtype == torch.uint8
        assert (drawn.int() - gms.draw_levels(latent).int()).abs().max() <= 1
    assert stages._encoder != gms.encode_levels and stages._decoder != gms.draw_levels, "not torch's"
    assert torch.equal(torch.get_rng_state(), state), "an export draws nothing of what a training draws"


def test_only_what_is_worth_an_export_is_exported(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gms = model(tokenizer)
    assert stages_for(gms, 100, SIZE) is gms
    assert isinstance(stages_for(gms, 1000, 224), RuntimeStages)
    monkeypatch.setattr(frozen_stages, "_NEEDED", ("no_such_module",))
    assert stages_for(gms, 1000, 224) is gms
    with pytest.raises(ConfigError, match="bf16: no_such_module not installed"):
        bf16_stages(gms, SIZE)


def test_bf16_is_refused_where_the_cpu_has_none(tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_stages, "cpu_arithmetic", lambda: CpuArithmetic(False, False, ("FP32",), "Old CPU"))
    with pytest.raises(ConfigError, match=r"no BF16 arithmetic on this CPU \(Old CPU\); set encode_in=fp32"):
        bf16_stages(model(tokenizer), SIZE)


def test_what_cannot_be_exported_or_comes_out_otherwise_is_torchs(
    tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gms = model(tokenizer)

    def fails(*_: object) -> None:
        raise RuntimeError("an operator that nobody knows")

    with monkeypatch.context() as broken:
        broken.setattr(frozen_stages, "export_stage", fails)
        assert torch.equal(RuntimeStages(gms, SIZE).encode_levels(pictures(1)), gms.encode_levels(pictures(1)))
    other = frozen_stages._by_runtime

    def wrong(session: object) -> object:
        right = other(session)  # type: ignore[arg-type]
        return lambda batch: right(batch) * 1.01

    monkeypatch.setattr(frozen_stages, "_by_runtime", wrong)
    assert torch.equal(RuntimeStages(gms, SIZE).encode_levels(pictures(1)), gms.encode_levels(pictures(1)))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(frozen_stages, "WORTH_AN_EXPORT", 0)
    yield


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("views", [2, 0])
def test_a_training_gives_what_it_gives_by_torch(
    tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: int
) -> None:
    data = recognise(write_phantoms(tmp_path / "data", 10))
    live = ("latent_epochs=0", "linear_decoder=0") if not views else ()
    how = load_recipe("fast", [*SMALL, f"views={views}", "epochs=2", *live])
    split = split_dataset(data, validation=0.2)

    def trained(name: str) -> dict[str, Tensor]:
        train(TrainingRequest(data, split, load_tokenizer(tokenizer), how, tmp_path / name))
        return dict(load_file(tmp_path / name / "last.safetensors"))

    ours = trained("runtime")
    monkeypatch.setattr(frozen_stages, "_NEEDED", ("no_such_module",))
    theirs = trained("torch")
    apart = max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)
    assert apart < 0.02


@pytest.mark.usefixtures("always")
def test_the_arithmetic_of_views_is_part_of_their_cache(tokenizer: str, tmp_path: Path) -> None:
    from gms_rt.runtime.arithmetic import cpu_arithmetic

    data = recognise(write_phantoms(tmp_path / "data", 6))
    split = split_dataset(data, validation=0.2)
    plain = load_recipe("fast", list(SMALL))
    assert "encode_in" not in plain.to_values(), "earlier trainings go on"

    def key(how: str) -> str:
        recipe = load_recipe("fast", [*SMALL, f"encode_in={how}"])
        request = TrainingRequest(data, split, load_tokenizer(tokenizer), recipe, tmp_path / how)
        train(replace(request, cache=tmp_path / "cache"))
        return str(json.loads((tmp_path / "cache" / INDEX).read_text())["key"])

    if cpu_arithmetic().bf16:
        assert key("fp32") != key("bf16")
    else:
        with pytest.raises(ConfigError, match="encode_in=fp32"):
            key("bf16")
