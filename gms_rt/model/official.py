"""Checkpoints of the official GMS implementation, renamed into this project's latent mapping model.

Every one of their keys is accounted for: most are weights under another name; the activations appear twice and must
be equal; anything else is an error that lists what is missing and what is unexpected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gms_rt.errors import ArtifactError
from gms_rt.model.checkpoint import load_tensors
from gms_rt.model.lmm import LatentMapper, LmmConfig

_BLOCKS = {
    "conv1_0": "down.0",
    "conv2_0": "down.1",
    "conv3_0": "down.2",
    "conv4_0": "down.3",
    "conv3_1": "up.0",
    "conv2_2": "up.1",
    "conv1_3": "up.2",
    "conv0_4": "up.3",
}
_PARTS = {
    "resblock.conv1.0": "norm1",
    "resblock.conv1.1": "act1",
    "resblock.conv1.2": "conv1",
    "resblock.conv2.0": "norm2",
    "resblock.conv2.1": "act2",
    "resblock.conv2.2": "conv2",
    "resblock.skip_connection": "shortcut",
    "attention.norm": "attention.norm",
    "attention.q": "attention.query",
    "attention.k": "attention.key",
    "attention.v": "attention.value",
    "attention.proj_out": "attention.out",
}
_TWICE = {"resblock.act1": "resblock.conv1.1", "resblock.act2": "resblock.conv2.1"}
_SUPERVISED_HEADS = {"convds3": "heads.0", "convds2": "heads.1", "convds1": "heads.2", "convds0": "heads.3"}
_PLAIN_HEAD = {"output_blocks": "heads.0"}


@dataclass(frozen=True)
class OfficialCheckpoint:
    """A latent mapping model from an official checkpoint, and what its keys were."""

    mapper: LatentMapper
    keys: int  # of the file, all accounted for
    duplicates: int  # of them, activations that are stored a second time


def load_official(path: Path) -> OfficialCheckpoint:
    """Read an official checkpoint; its configuration follows from its shapes."""
    weights = load_tensors(path)
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    mapper = LatentMapper(_config(weights, path))
    names = official_names(mapper.config)
    missing = sorted(names.keys() - weights.keys())
    unexpected = sorted(weights.keys() - names.keys())
    wanted = mapper.state_dict()
    shapes = sorted(
        f"{name} {tuple(weights[name].shape)} instead of {tuple(wanted[ours].shape)}"
        for name, ours in names.items()
        if name in weights and weights[name].shape != wanted[ours].shape
    )
    if missing or unexpected or shapes:
        problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
        listed = "; ".join(f"{kind}: {', '.join(found)}" for kind, found in problems.items() if found)
        raise ArtifactError(f"is not an official GMS latent mapping model ({listed})", where=path)
    renamed: dict[str, Tensor] = {}
    for name, ours in names.items():
        value = weights[name].to(torch.float32)
        if ours in renamed and not torch.equal(renamed[ours], value):
            raise ArtifactError(f"stores two different values for one activation ({name})", where=path)
        renamed[ours] = value
    mapper.load_state_dict(renamed)
    return OfficialCheckpoint(mapper.eval(), len(names), len(names) - len(renamed))


def official_names(config: LmmConfig) -> dict[str, str]:
    """Official key to this project's name, for every key of an official checkpoint of this configuration."""
    ours = LatentMapper(config).state_dict().keys()
    found = {f"input_blocks.{kind}": f"stem.{kind}" for kind in ("weight", "bias")}
    parts = {**_PARTS, **{alias: _PARTS[part] for alias, part in _TWICE.items()}}
    modules = {f"{b}.{p}": f"{_BLOCKS[b]}.{parts[p]}" for b in _BLOCKS for p in parts}
    heads = _SUPERVISED_HEADS if config.deep_supervision else _PLAIN_HEAD
    modules |= {f"{head}.{i}": f"{name}.{i}" for head, name in heads.items() for i in (0, 2)}
    for official, name in modules.items():
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in ours:
                found[f"{official}.{kind}"] = f"{name}.{kind}"
    return found


def _config(weights: dict[str, Tensor], path: Path) -> LmmConfig:
    try:
        width, channels = weights["input_blocks.weight"].shape[:2]
        widths = [weights[f"conv{i}_0.resblock.conv2.2.weight"].shape[0] for i in range(1, 5)]
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"is not an official GMS latent mapping model (missing: {error})",
            where=path,
            fix="give the best_model.pth that the official training wrote",
        ) from error
    return LmmConfig(
        latent_channels=channels,
        width=width,
        multipliers=tuple(w // width for w in widths),
        groups=16,
        deep_supervision=any(name.startswith("convds") for name in weights),
    )
