"""Official checkpoints: every key accounted for, nothing executed, nothing guessed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gms_rt.errors import ArtifactError, UsageError
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.official import load_official, official_names

SMALL = LmmConfig(latent_channels=4, width=16, multipliers=(1, 2, 3, 4))


@pytest.fixture
def checkpoint(tmp_path):
    """A model of this project under the official names, and the file."""
    torch.manual_seed(0)
    mapper = LatentMapper(SMALL).eval()
    weights = mapper.state_dict()
    official = {name: weights[ours].clone() for name, ours in official_names(SMALL).items()}
    return mapper, official, tmp_path / "best_model.pth"


def test_the_papers_configuration_has_196_keys():
    names = official_names(LmmConfig())
    assert len(names) == 196
    assert set(names.values()) == set(LatentMapper().state_dict())
    assert sum(".act" in name for name in names) == 16


@pytest.mark.parametrize("prefix", ["", "module."])
def test_outputs_survive_the_renaming(checkpoint, prefix):
    mapper, official, path = checkpoint
    torch.save({"model": {prefix + k: v for k, v in official.items()}}, path)
    loaded = load_official(path)
    assert loaded.mapper.config == SMALL
    assert (loaded.keys, loaded.duplicates) == (len(official), 16)
    latent = torch.randn(1, 4, 6, 8)
    assert torch.equal(loaded.mapper(latent), mapper(latent))


def test_the_model_without_deep_supervision(tmp_path):
    config = LmmConfig(width=16, deep_supervision=False)
    mapper = LatentMapper(config).eval()
    weights = mapper.state_dict()
    torch.save({"model": {n: weights[o] for n, o in official_names(config).items()}}, tmp_path / "m.pth")
    assert load_official(tmp_path / "m.pth").mapper.config == config


def test_missing_and_unexpected_keys_are_listed(checkpoint):
    _, official, path = checkpoint
    del official["convds0.2.weight"]
    official["conv9_9.weight"] = torch.zeros(1)
    torch.save({"model": official}, path)
    with pytest.raises(ArtifactError, match=r"missing: convds0\.2\.weight; unexpected: conv9_9\.weight"):
        load_official(path)


def test_a_wrong_shape_is_named(checkpoint):
    _, official, path = checkpoint
    official["convds0.2.weight"] = torch.zeros(4, 16, 1, 1)
    torch.save({"model": official}, path)
    with pytest.raises(ArtifactError, match=r"convds0\.2\.weight \(4, 16, 1, 1\) instead of \(4, 16, 3, 3\)"):
        load_official(path)


def test_activations_that_differ_are_refused(checkpoint):
    _, official, path = checkpoint
    official["conv1_0.resblock.act1.weight"] = official["conv1_0.resblock.act1.weight"] + 1
    torch.save({"model": official}, path)
    with pytest.raises(ArtifactError, match="two different values"):
        load_official(path)


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path):
    marker = tmp_path / "ran"
    torch.save({"model": _Payload(marker)}, tmp_path / "evil.pth")
    with pytest.raises(ArtifactError, match="more than tensors"):
        load_official(tmp_path / "evil.pth")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ArtifactError):
        load_official(tmp_path / "x.pth")


def test_an_absent_file_and_a_foreign_model(tmp_path):
    with pytest.raises(UsageError):
        load_official(tmp_path / "none.pth")
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.pth")
    with pytest.raises(ArtifactError, match="not an official GMS"):
        load_official(tmp_path / "other.pth")


@pytest.mark.skipif("GMS_RT_DATA" not in os.environ, reason="GMS_RT_DATA is not set")
def test_the_published_checkpoint_loads():
    path = Path(os.environ["GMS_RT_DATA"]) / "weights/gms-official-ham10000/best_model.pth"
    loaded = load_official(path)
    assert loaded.keys == 196
    assert loaded.mapper.config == LmmConfig()
    torch.manual_seed(0)
    with torch.no_grad():
        latent = loaded.mapper(torch.randn(1, 4, 28, 28))
    assert torch.isfinite(latent).all() and 0.1 < latent.std() < 10
