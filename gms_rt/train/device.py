"""A `--device` value for torch, refused in one line where the machine lacks it."""

from __future__ import annotations

import torch

from gms_rt.errors import DeviceError
from gms_rt.runtime.select import parse_device


def torch_device(name: str) -> str:
    """The same name in torch's words.

    >>> torch_device("cpu")
    'cpu'
    """
    kind, index = parse_device(name)
    if kind == "cuda" and (not torch.cuda.is_available() or (index or 0) >= torch.cuda.device_count()):
        raise DeviceError(f"torch finds no {name}", where="--device", mend="use --device cpu")
    return name
