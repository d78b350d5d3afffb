"""Run folders: `config.toml`, `lmm.safetensors` and `tokenizer.json`, from which the whole model comes back.

`tokenizer.json` names the frozen tokenizer with the hash of its weights; a tokenizer that has changed is refused,
because a latent mapping model works only with the tokenizer it was trained with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from gms_rt.artifacts import read_json, write_bytes, write_json
from gms_rt.config import config_from_values, read_toml
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.model.checkpoint import load_tensors
from gms_rt.model.gms import Gms
from gms_rt.model.kind import CONFIG, LMM_WEIGHTS, is_comparator_run, is_student_run
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import open_tokenizer, source_in_run
from gms_rt.model.tokenizer import Tokenizer, TokenizerSpec

WEIGHTS, TOKENIZER = LMM_WEIGHTS, "tokenizer.json"
TomlValue = str | int | float | bool | tuple[int, ...]
Tables = Mapping[str, Mapping[str, TomlValue]]


def save_run(
    folder: Path, gms: Gms, tables: Tables | None = None, *, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write a run folder.

    `tables` are more tables of `config.toml`, such as how it was trained; `weights` stand in for the mapper's own.
    """
    write_bytes(folder / CONFIG, toml_text({"model": gms.mapper.config.to_values(), **(tables or {})}).encode())
    write_tokenizer_spec(folder, gms.tokenizer)
    write_weights(folder / WEIGHTS, weights or gms.mapper.state_dict())


def write_tokenizer_spec(folder: Path, tokenizer: Tokenizer) -> None:
    """Write which tokenizer a run works with, and the hash of its weights."""
    write_json(folder / TOKENIZER, replace(tokenizer.spec, sha256=tokenizer.weights_sha256()).to_json())


def write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors, from wherever they are, whole or not at all."""
    from safetensors.torch import save

    # Serialised in memory first: a full disk then fails in one known place, and the old file stays.
    write_bytes(path, save({name: value.detach().cpu().contiguous() for name, value in weights.items()}))


def load_run(folder: Path) -> Gms:
    """The model of a run folder, ready to segment."""
    mapper = load_mapper(folder)
    return Gms(tokenizer_from_run(folder), mapper).eval()


def load_mapper(folder: Path) -> LatentMapper:
    """The latent mapping model of a run folder, without its tokenizer."""
    mapper = LatentMapper(model_shape(folder))
    fill(mapper, folder / WEIGHTS)
    return mapper


def model_shape(folder: Path) -> LmmConfig:
    """The shape of a run folder's latent mapping model."""
    check_run(folder)
    return config_from_values(LmmConfig, read_toml(folder / CONFIG).get("model", {}), where=folder / CONFIG)


def check_run(folder: Path) -> None:
    """Refuse what is not a run folder."""
    if not folder.is_dir():
        raise UsageError("is not a folder", where=folder, fix="name a run folder, such as gms-rt train writes")
    if is_student_run(folder):
        raise UsageError("is the run of a student", where=folder, fix="name a run that gms-rt train wrote")
    if is_comparator_run(folder):
        raise UsageError("is the run of a comparator", where=folder, fix="name one that was trained with --tokenizer")
    for name in (CONFIG, WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise UsageError(f"is not a run folder (no {name})", where=folder)


def fill(model: nn.Module, path: Path) -> None:
    """Fill a model with the weights in a file; every name and shape must fit."""
    weights = load_tensors(path)
    wanted = model.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - wanted.keys()),
        "of another shape": sorted(k for k in wanted.keys() & weights.keys() if wanted[k].shape != weights[k].shape),
    }
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
    if listed:
        raise ArtifactError(f"does not fit config.toml ({listed})", where=path)
    # Counters, as batch normalisation has them, stay whole numbers.
    kinds = {name: torch.float32 if value.is_floating_point() else value.dtype for name, value in wanted.items()}
    model.load_state_dict({name: value.to(kinds[name]) for name, value in weights.items()})


def tokenizer_from_run(folder: Path) -> Tokenizer:
    """The frozen tokenizer that a run names; one that has changed since then is refused."""
    path = folder / TOKENIZER
    values = read_json(path)
    if "image_range" in values:
        values["image_range"] = tuple(values["image_range"])
    spec = config_from_values(TokenizerSpec, values, where=path)
    tokenizer = open_tokenizer(spec.kind, source_in_run(spec.source, folder), spec.revision)
    found = replace(tokenizer.spec, source=spec.source, sha256=spec.sha256)
    if found != spec:
        raise ArtifactError(f"says {spec}, but the tokenizer there is {found}", where=path)
    if spec.sha256 is not None and tokenizer.weights_sha256() != spec.sha256:
        raise ArtifactError(
            "names a tokenizer whose weights have changed since then (hash differs)",
            where=path,
            fix=f"restore the tokenizer {spec.source} of this run",
        )
    tokenizer.spec = spec
    return tokenizer


def toml_text(tables: Tables) -> str:
    """Plain TOML of tables of plain values.

    >>> print(toml_text({"model": {"width": 32, "multipliers": (1, 2)}}), end="")
    [model]
    width = 32
    multipliers = [1, 2]
    """
    lines: list[str] = []
    for name, table in tables.items():
        lines += ["", f"[{name}]"] if lines else [f"[{name}]"]
        # JSON's strings, numbers, booleans and arrays are TOML too.
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"
