"""What a stopped training needs to go on bit for bit: one file of tensors and plain data, replaced as a whole.

`last.pt` is the whole state; `last.safetensors` are its weights alone, for other programs. A kill leaves the old
state or the new one. The file is read with `weights_only=True`: nothing in it is run.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gms_rt.artifacts import write_bytes
from gms_rt.errors import ArtifactError, UsageError, reason_from_error
from gms_rt.model.run import write_weights

STATE, LAST = "last.pt", "last.safetensors"
_FORMAT, _FIRST_FORMAT = "gms-rt-training-2", "gms-rt-training-1"
Row = dict[str, float | int | str]


@dataclass
class State:
    """Where a training stands after `step` steps."""

    fingerprint: dict[str, str]  # hashes of what makes it this training: data, tokenizer, recipe, first weights
    step: int = 0
    # Of the epoch that has begun, over its cases so far: total, latent and Dice loss, and how many cases they are.
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    seconds: float = 0.0  # spent so far
    best: float = -1.0  # validation Dice of the weights that are kept
    best_loss: float = float("inf")  # their validation loss, which decides between equal Dice
    best_epoch: int = -1
    rows: list[Row] = field(default_factory=list)  # of `metrics.csv`
    mapper: dict[str, Tensor] = field(default_factory=dict)  # weights
    average: dict[str, Tensor] = field(default_factory=dict)  # their running average, empty where none is kept
    optimiser: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    linear_decoder: Tensor | None = None  # the fitted filter


def save_state(folder: Path, state: State) -> None:
    """Write the whole state, then the weights alone."""
    # Serialised in memory first: a full disk then fails in one known place, and the old file stays.
    stream = io.BytesIO()
    fields = {name: getattr(state, name) for name in State.__dataclass_fields__}
    torch.save({"format": _FORMAT, **fields}, stream)
    write_bytes(folder / STATE, stream.getvalue())
    write_weights(folder / LAST, state.mapper)


def load_state(folder: Path, fingerprint: dict[str, str], device: torch.device) -> State | None:
    """The state of a stopped training, or None where none was written yet; that of another training is refused."""
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        content: Any = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"cannot be resumed ({reason_from_error(error)})", where=path, fix="train again with another --out"
        ) from error
    version = content.pop("format", None) if isinstance(content, dict) else None
    if version == _FIRST_FORMAT:  # the same under another name
        content["linear_decoder"] = content.pop("sketch", None)
    elif version != _FORMAT:
        raise ArtifactError("is not a training state of this program", where=path, fix="train again with another --out")
    try:
        state = State(**content)
    except TypeError as error:
        raise ArtifactError(f"has missing or unknown parts ({error})", where=path) from error
    changed = [key for key, value in fingerprint.items() if state.fingerprint.get(key, "") != value]
    if changed:
        raise UsageError(
            f"was trained with another {' and '.join(changed)}",
            where=folder,
            fix="resume with the same data, tokenizer, recipe and --init, or choose another --out",
        )
    return state


def copy_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that later steps cannot change."""
    return {name: value.detach().clone() for name, value in weights.items()}
