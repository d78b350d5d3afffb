"""TensorRT's Python module of either flavour: whether it is installed, loading it, and a logger that keeps messages."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from gms_rt.errors import DeviceError, MissingExtraError

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}


def tensorrt_installed(flavour: str) -> bool:
    """Whether the flavour's module is installed (it is not imported)."""
    return importlib.util.find_spec(MODULES[flavour]) is not None


def load_tensorrt(flavour: str, doing: str) -> Any:
    """The flavour's module; `doing` is what needs it, for the message that names the extra to install."""
    try:
        return importlib.import_module(MODULES[flavour])
    except ImportError as error:
        if not tensorrt_installed(flavour):
            raise MissingExtraError(doing, flavour) from error
        raise DeviceError(f"{flavour} is installed but cannot be loaded ({error})") from error


def tensorrt_logger(trt: Any) -> Any:
    """A logger that prints nothing and keeps `errors` and `warnings`, for messages."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the class exists at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING and message not in self.warnings:
                self.warnings.append(message)

    return Log()
