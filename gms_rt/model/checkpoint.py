"""Tensors from checkpoint files, without running anything that is in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gms_rt.errors import ArtifactError, UsageError, reason_from_error

# Where common training programs keep the weights inside a checkpoint.
_CONTAINERS = ("model", "state_dict")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors file, or of a torch checkpoint of nothing but tensors and plain data."""
    if not path.is_file():
        raise UsageError("is not a file", where=path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights: dict[str, Tensor] = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"is not a valid safetensors file ({error})", where=path) from error
        return weights
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            "contains more than tensors, and code from a checkpoint is never run",
            where=path,
            fix="save its state dict alone: torch.save({'model': model.state_dict()}, FILE)",
        ) from error
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, AttributeError) as error:
        raise ArtifactError(f"cannot be read as a checkpoint ({reason_from_error(error)})", where=path) from error
    for key in _CONTAINERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not weights:
        raise ArtifactError("contains no tensors", where=path)
    return weights
