"""A `--device` value for torch, refused where the machine lacks it; its arithmetic, and the readers that feed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gms_rt.errors import DeviceError
from gms_rt.runtime.device import cpu_from_files, parse_device

_VIEWS_AHEAD = 4  # per reader, for a GPU
_GPU_READERS = 8  # at most: twice as many read no faster


def torch_device(name: str) -> str:
    """The name of a device that torch has.

    >>> torch_device("cpu")
    'cpu'
    """
    kind, index = parse_device(name)
    if kind == "cuda" and (not torch.cuda.is_available() or (index or 0) >= torch.cuda.device_count()):
        raise DeviceError(f"torch does not find {name}", where="--device", fix="use --device cpu")
    return name


@contextmanager
def tuned_torch(threads: int) -> Iterator[None]:
    """torch as a training wants it: so many threads (0: its own choice), and a search for a GPU's fastest kernels."""
    before, searched = torch.get_num_threads(), torch.backends.cudnn.benchmark
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True  # of a GPU: all steps have one size
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.benchmark = searched


def forward_type(precision: str, device: torch.device) -> torch.dtype:
    """The arithmetic of the forward pass; weights stay float32.

    >>> forward_type("auto", torch.device("cpu"))
    torch.float32
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def readers(device: torch.device, batch: int) -> tuple[int, int]:
    """How many read views for this device at once, and how many steps ahead.

    >>> readers(torch.device("cpu"), 8)
    (2, 1)
    """
    if device.type != "cuda":
        return 2, 1
    count = min(_GPU_READERS, cpu_from_files().cores)
    return count, -(-count * _VIEWS_AHEAD // batch)
