"""TensorRT's Python modules, one per flavour: whether one is installed, which version, loading it, and its log.

Nothing is imported before `load_tensorrt`. Both the builder (`gms_rt.engine.tensorrt`) and the runner
(`gms_rt.runtime.tensorrt`) start here.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from gms_rt.errors import DeviceError, MissingExtraError
from gms_rt.runtime.device import package_version

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}


def tensorrt_installed(flavour: str) -> bool:
    """Whether the flavour's module is installed (it is not imported)."""
    return importlib.util.find_spec(MODULES[flavour]) is not None


def tensorrt_version(flavour: str) -> str | None:
    """The installed version of a flavour: from package metadata; "unknown" where JetPack installed the module alone."""
    if flavour == "tensorrt-rtx":
        return package_version("tensorrt-rtx-cu13-bindings") or package_version("tensorrt-rtx-cu13-libs")
    return package_version("tensorrt") or ("unknown" if tensorrt_installed(flavour) else None)


def load_tensorrt(flavour: str, doing: str) -> Any:
    """The flavour's module. `doing` says what needs it, for the message that names the extra to install."""
    try:
        return importlib.import_module(MODULES[flavour])
    except ImportError as error:
        if not tensorrt_installed(flavour):
            raise MissingExtraError(doing, flavour) from error
        raise DeviceError(f"{flavour} is installed but cannot be loaded ({error})") from error


def tensorrt_logger(trt: Any) -> Any:
    """A logger for a module: keeps `errors` and `warnings` (each once) for messages, prints nothing."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base class exists at run time only
        """Keeps what a failure must report."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.warnings: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == trt.ILogger.WARNING and message not in self.warnings:
                self.warnings.append(message)

    return Logger()
