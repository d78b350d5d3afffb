"""gms-rt: Generative Medical Segmentation on real devices.

    import gms_rt
    with gms_rt.load("engines/busi-int8") as engine:   # or gms_rt.load() for the newest that fits
        mask = engine(image)                           # uint8 H×W×3 or H×W in, uint8 H×W of 0/255 out

Importing this loads no framework; everything heavy is imported by the call that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gms_rt import errors, metrics
    from gms_rt.engine.loaded import Engine
    from gms_rt.engine.select import load

__all__ = ["Engine", "__version__", "errors", "load", "metrics"]

__version__ = "0.1.0"

_HOMES = {"load": "gms_rt.engine.select", "Engine": "gms_rt.engine.loaded"}


def __getattr__(name: str) -> Any:
    if name in ("errors", "metrics"):
        return importlib.import_module(f"gms_rt.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gms_rt' has no attribute '{name}'")
