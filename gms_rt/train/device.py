"""A `--device` value for torch, refused where the machine lacks it, and the arithmetic that it trains in."""

from __future__ import annotations

import torch

from gms_rt.errors import DeviceError
from gms_rt.runtime.device import parse_device


def torch_device(name: str) -> str:
    """The name of a device that torch has.

    >>> torch_device("cpu")
    'cpu'
    """
    kind, index = parse_device(name)
    if kind == "cuda" and (not torch.cuda.is_available() or (index or 0) >= torch.cuda.device_count()):
        raise DeviceError(f"torch does not find {name}", where="--device", fix="use --device cpu")
    return name


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
