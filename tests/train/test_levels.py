"""Training with the encoder's inner activations: cached and live, resumed, begun from a run without them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.phantom_folders import write_phantoms, write_tokenizer

from gms_rt.config import read_toml
from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from gms_rt.errors import UsageError
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.run import load_mapper, load_run
from gms_rt.train.latents import INDEX
from gms_rt.train.loop import train, training_fingerprint
from gms_rt.train.predict import segmenter_from_run
from gms_rt.train.recipe import TrainingRecipe, load_recipe
from gms_rt.train.request import Outcome, TrainingRequest
from gms_rt.train.start import Start, first_weights

SMALL = ("size=32", "width=8", "groups=4", "multipliers=[1,2]", "batch=4", "save_seconds=0", "threads=1")
FAST = ("latent_epochs=2", "epochs=1", "views=2", "warmup=0")
LEVELS = "levels=[1,2]"
# Of `TrainingRecipe(epochs=3, size=32)`, by the version before levels.
BEFORE = "5a3f6ca249c03dfad4b5030222127869e9899854b8e66bd83f16772bca275fc2"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data"), 20)


def run(phantoms: Path, tokenizer: str, out: Path, how: TrainingRecipe, init: Path | None = None) -> Outcome:
    data = recognise(phantoms)
    split = split_dataset(data, validation=0.2)
    return train(TrainingRequest(data, split, load_tokenizer(tokenizer), how, out, init=init, resume=True))


@pytest.mark.parametrize(("name", "settings"), [("fast", FAST), ("paper", ("epochs=2", "pooling=both"))])
def test_a_run_with_levels_trains_and_comes_back(
    phantoms: Path, tokenizer: str, tmp_path: Path, name: str, settings: tuple[str, ...]
) -> None:
    how = load_recipe(name, [*SMALL, *settings, LEVELS])
    run(phantoms, tokenizer, tmp_path / "run", how)
    model = read_toml(tmp_path / "run" / "config.toml")["model"]
    assert model["levels"] == [1, 2]
    assert model["level_channels"] == ([16, 16] if how.pooling == "both" else [8, 8])
    gms = load_run(tmp_path / "run")
    picture = recognise(phantoms).cases[0].image
    pixels = np.full((1, 32, 32, 3), 90, np.uint8)
    assert segmenter_from_run(tmp_path / "run").infer(pixels).shape == (1, 32, 32), picture
    torch.manual_seed(0)
    start = first_weights(how, 4, None, gms.mapper.config.level_channels).mapper
    for level, first in zip(gms.mapper.levels, start.levels, strict=True):
        assert not torch.equal(level.mix.weight, first.mix.weight), "levels are trained"
        assert level.deviation.min() > 0 and level.mean.abs().sum() > 0, "statistics are those of the pictures"


def test_the_cache_says_which_levels_it_holds(phantoms: Path, tokenizer: str, tmp_path: Path) -> None:
    for name, settings in (("plain", ()), ("levels", (LEVELS,))):
        run(phantoms, tokenizer, tmp_path / name, load_recipe("fast", [*SMALL, *FAST, *settings]))
    plain, levels = (json.loads((tmp_path / n / "latents" / INDEX).read_text()) for n in ("plain", "levels"))
    assert plain.keys() == {"key", "shards"}, "as earlier versions wrote it"
    assert levels["levels"] == {"strides": [1, 2], "pooling": "average", "channels": [8, 8]}
    assert plain["key"] != levels["key"]
    one, other = (np.load(tmp_path / n / "latents" / "00000.images.npy") for n in ("plain", "levels"))
    assert (one.shape[1], other.shape[1], other.dtype) == (4, 20, np.float16)
    assert np.array_equal(one, other[:, :4]), "the latents are the same"


def test_a_run_without_levels_says_nothing_of_them(phantoms: Path, tokenizer: str, tmp_path: Path) -> None:
    how = load_recipe("paper", [*SMALL, "epochs=1"])
    run(phantoms, tokenizer, tmp_path / "run", how)
    text = (tmp_path / "run" / "config.toml").read_text()
    assert "levels" not in text and "level_channels" not in text and "pooling" not in text
    data = recognise(phantoms)
    split, frozen = split_dataset(data, validation=0.2), load_tokenizer(tokenizer)
    start = Start(load_mapper(tmp_path / "run"), {})
    plain, levels = TrainingRecipe(epochs=3, size=32), TrainingRecipe(epochs=3, size=32, levels=(1, 2))
    assert training_fingerprint(plain, split, frozen, start)["recipe"] == BEFORE, "states of earlier versions go on"
    assert training_fingerprint(levels, split, frozen, start)["recipe"] != BEFORE


def test_a_stopped_training_goes_on_to_the_same_weights(
    phantoms: Path, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = load_recipe("fast", [*SMALL, *FAST, LEVELS])
    run(phantoms, tokenizer, tmp_path / "whole", how)
    steps = 0

    def stop(stage: str, done: int, total: int, note: str) -> None:
        nonlocal steps
        steps += stage == "train"
        if steps == 3:
            raise RuntimeError("killed")

    data = recognise(phantoms)
    split = split_dataset(data, validation=0.2)
    request = TrainingRequest(data, split, load_tokenizer(tokenizer), how, tmp_path / "cut", resume=True)
    with pytest.raises(RuntimeError, match="killed"):
        train(request, stop)
    train(request)
    for name in ("lmm.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_levels_can_be_added_to_a_run_and_change_nothing_at_first(
    phantoms: Path, tokenizer: str, tmp_path: Path
) -> None:
    run(phantoms, tokenizer, tmp_path / "plain", load_recipe("paper", [*SMALL, "epochs=1"]))
    first = load_run(tmp_path / "plain")
    how = load_recipe("paper", [*SMALL, LEVELS], first.mapper.config)
    start = first_weights(how, 4, tmp_path / "plain", (8, 8))
    assert not start.fitted and start.mapper.config.levels == (1, 2)
    latent, level = torch.randn(1, 4, 8, 8), torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        assert torch.equal(start.mapper(torch.cat([latent, level], dim=1)), first.mapper(latent))
    run(phantoms, tokenizer, tmp_path / "grown", load_recipe("paper", [*SMALL, LEVELS, "epochs=1"]), tmp_path / "plain")
    grown = load_mapper(tmp_path / "grown")
    assert grown.levels[0].mix.weight.abs().sum() > 0
    how = load_recipe("paper", SMALL, grown.config)
    assert (how.levels, how.pooling) == ((1, 2), "average"), "a run's levels come with --init"
    again = first_weights(how, 4, tmp_path / "grown", (8, 8))
    assert again.fitted and torch.equal(again.mapper.levels[0].mean, grown.levels[0].mean)


def test_a_level_that_the_tokenizer_lacks_is_refused(phantoms: Path, tokenizer: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no inner activations at stride 3.*choose levels among 1, 2, 4"):
        run(phantoms, tokenizer, tmp_path / "run", load_recipe("paper", [*SMALL, "levels=[1,3]"]))
    assert not (tmp_path / "run").exists()
