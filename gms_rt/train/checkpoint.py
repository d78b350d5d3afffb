"""What a stopped training needs to go on bit for bit: one file, replaced as a whole, holding tensors and plain data.

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
from gms_rt.errors import ArtifactError, UsageError

STATE, LAST = "last.pt", "last.safetensors"
_FORMAT = "gms-rt-training-1"
Row = dict[str, float | int | str]


@dataclass
class State:
    """Where a training stands after `step` steps. `sums` are of the epoch that has begun."""

    fingerprint: dict[str, str]
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    seconds: float = 0.0
    best: float = -1.0
    best_loss: float = float("inf")
    best_epoch: int = -1
    rows: list[Row] = field(default_factory=list)
    mapper: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    sketch: Tensor | None = None


def save_state(folder: Path, state: State) -> None:
    """Write the whole state, then its weights alone."""
    from safetensors.torch import save

    # Serialised in memory first: a full disk then fails in one known place, and the old file stays.
    stream = io.BytesIO()
    fields = {name: getattr(state, name) for name in State.__dataclass_fields__}
    torch.save({"format": _FORMAT, **fields}, stream)
    write_bytes(folder / STATE, stream.getvalue())
    weights = {name: value.detach().cpu().contiguous() for name, value in state.mapper.items()}
    write_bytes(folder / LAST, save(weights))


def load_state(folder: Path, fingerprint: dict[str, str], device: torch.device) -> State | None:
    """The state of a stopped training, or None where none was written yet; another training's is refused."""
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        content: Any = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(
            f"cannot be resumed ({reason})", where=path, fix="train again with another --out"
        ) from error
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise ArtifactError("is no training state of this program", where=path, fix="train again with another --out")
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


def copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that later steps cannot change."""
    return {name: value.detach().clone() for name, value in weights.items()}
