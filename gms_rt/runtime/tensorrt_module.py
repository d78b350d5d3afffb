"""TensorRT's Python modules, one per flavour: whether one is installed, which version, loading it, and its log.

A Jetson's TensorRT is a part of its JetPack: apt installs its Python module for the system's Python, and no wheel
replaces it. Nothing is imported before `load_tensorrt`. Both the builder (`gms_rt.engine.tensorrt`) and the runner
(`gms_rt.runtime.tensorrt`) start here.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

from gms_rt.errors import DeviceError, MissingExtraError
from gms_rt.runtime.board import ROOT
from gms_rt.runtime.device import Machine, package_version, probe

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}


def tensorrt_installed(flavour: str) -> bool:
    """Whether the flavour's module is installed (it is not imported)."""
    return importlib.util.find_spec(MODULES[flavour]) is not None


def tensorrt_version(flavour: str) -> str | None:
    """The installed version of a flavour: from package metadata; "unknown" where JetPack installed the module alone."""
    if flavour == "tensorrt-rtx":
        return package_version("tensorrt-rtx-cu13-bindings") or package_version("tensorrt-rtx-cu13-libs")
    return package_version("tensorrt") or ("unknown" if tensorrt_installed(flavour) else None)


def how_to_install(flavour: str, machine: Machine | None = None, *, root: Path = ROOT) -> str:
    """The command that brings a flavour to this machine; on a Jetson TensorRT comes from apt, never from pip."""
    board = (machine or probe()).board
    if flavour != "tensorrt" or board is None or not board.jetson:
        return f"pip install 'gms-rt[{flavour}]'"
    module = jetpack_module(root)
    if module is None:
        return "sudo apt install tensorrt python3-libnvinfer"
    version = re.search(r"python(3\.\d+)", str(module))
    python = f"python{version[1]}" if version else "python3"
    return f"{python} -m venv --system-site-packages .venv (JetPack's module is in {module.parent})"


def jetpack_module(root: Path = ROOT) -> Path | None:
    """TensorRT's module as JetPack's package python3-libnvinfer installs it, None where it is not there."""
    found = sorted((root / "usr/lib").glob("python3*/dist-packages/tensorrt/__init__.py"))
    return found[-1].parent if found else None


def load_tensorrt(flavour: str, doing: str) -> Any:
    """The flavour's module. `doing` says what needs it, for the message that names the extra to install."""
    try:
        return importlib.import_module(MODULES[flavour])
    except ImportError as error:
        if not tensorrt_installed(flavour):
            board = probe().board
            if flavour == "tensorrt" and board is not None and board.jetson:
                raise DeviceError(
                    f"{doing} needs the TensorRT of this Jetson's JetPack", fix=f"run: {how_to_install(flavour)}"
                ) from error
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
