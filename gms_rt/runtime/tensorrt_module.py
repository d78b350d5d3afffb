"""TensorRT's Python modules, one per flavour: whether one is installed, which version, loading it, and its log.

A Jetson's TensorRT is a part of its JetPack: apt installs its Python module for the system's Python, and no wheel
replaces it. Nothing is imported before `load_tensorrt`. Both the builder (`gms_rt.engine.tensorrt`) and the runner
(`gms_rt.runtime.tensorrt`) start here.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gms_rt.errors import DeviceError, MissingExtraError
from gms_rt.runtime.board import ROOT
from gms_rt.runtime.device import Machine, package_version, probe

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
# The wheels of each flavour, newest first: how their names end, and the driver that CUDA of that number needs.
_WHEELS = (("cu13", (13, 0), "r580"), ("cu12", (12, 2), "r535"))
_KEPT = 50  # messages; a program that runs for months must not grow by what TensorRT says


def tensorrt_installed(flavour: str) -> bool:
    """Whether the flavour's module is installed (it is not imported)."""
    return importlib.util.find_spec(MODULES[flavour]) is not None


def tensorrt_version(flavour: str) -> str | None:
    """The installed version of a flavour: from package metadata; "unknown" where JetPack installed the module alone."""
    wheels = [f"{flavour}-{cuda}" for cuda, *_ in _WHEELS]
    if flavour == "tensorrt-rtx":
        names = [f"{wheel}-{part}" for wheel in wheels for part in ("bindings", "libs")]
        return next(filter(None, map(package_version, names)), None)
    found = next(filter(None, map(package_version, [flavour, *wheels])), None)
    return found or ("unknown" if tensorrt_installed(flavour) else None)


def fitting_extra(flavour: str, machine: Machine | None = None) -> str | None:
    """The extra whose wheels this machine's driver can run, None where the driver is too old for any.

    >>> from gms_rt.runtime.device import Cpu
    >>> fitting_extra("tensorrt", Machine(Cpu("", "x86_64", 1, ()), (), "12.4", "", {}))
    'tensorrt-cu12'
    """
    driver = _driver(machine or probe())
    if driver is None:
        return flavour
    cuda = next((cuda for cuda, needed, _ in _WHEELS if driver >= needed), None)
    return None if cuda is None else flavour if cuda == _WHEELS[0][0] else f"{flavour}-{cuda}"


def driver_problem(flavour: str, machine: Machine | None = None) -> str:
    """Why the flavour's installed wheels cannot run with this machine's driver, and what to do; or ""."""
    here = machine or probe()
    driver = _driver(here)
    parts = ("", "-libs", "-bindings")
    installed = [w for w in _WHEELS if any(package_version(f"{flavour}-{w[0]}{part}") for part in parts)]
    if driver is None or not installed or any(driver >= needed for _, needed, _ in installed):
        return ""
    cuda, (major, minor), release = installed[0]
    return (
        f"{flavour}-{cuda} needs NVIDIA's driver {release} (CUDA {major}.{minor}), this one has CUDA {here.driver}: "
        + how_to_install(flavour, here)
    )


def _driver(machine: Machine) -> tuple[int, ...] | None:
    return None if machine.driver is None else tuple(map(int, machine.driver.split(".")))


def how_to_install(flavour: str, machine: Machine | None = None, *, root: Path = ROOT) -> str:
    """The command that brings a flavour to this machine; on a Jetson TensorRT comes from apt, never from pip."""
    board = (machine or probe()).board
    if flavour != "tensorrt" or board is None or not board.jetson:
        extra = fitting_extra(flavour, machine) if flavour in MODULES else flavour
        return f"pip install 'gms-rt[{extra}]'" if extra else f"update NVIDIA's driver to {_WHEELS[-1][2]} or newer"
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
            raise MissingExtraError(doing, fitting_extra(flavour) or flavour) from error
        raise DeviceError(f"{flavour} is installed but cannot be loaded ({error})") from error


class Heard:
    """What TensorRT said while somebody listened: the last errors, and each warning once."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=_KEPT)
        self.warnings: deque[str] = deque(maxlen=_KEPT)

    def last(self, count: int) -> list[str]:
        """The last errors, each as one line."""
        return [" ".join(error.split()) for error in list(self.errors)[-count:]]


class TensorRtLog:
    """The one log of a module: TensorRT keeps the first logger that it is given for the whole process.

    `logger` is given to every builder and runtime; it prints nothing. Whoever wants to know what was said listens.
    """

    def __init__(self, trt: Any) -> None:
        log = self

        class Logger(trt.ILogger):  # type: ignore[misc]  # the base class exists at run time only
            """Hands what TensorRT says to those who listen."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    log._tell("errors", message)
                elif severity == trt.ILogger.WARNING:
                    log._tell("warnings", message)

        self.logger = Logger()
        self._listeners: list[Heard] = []
        self._lock = threading.Lock()

    def listen(self) -> Heard:
        """Hear what is said from now on, until `stop`."""
        heard = Heard()
        with self._lock:
            self._listeners.append(heard)
        return heard

    def stop(self, heard: Heard) -> None:
        """Stop listening; what was heard stays."""
        with self._lock:
            self._listeners = [one for one in self._listeners if one is not heard]

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """Listen for a while."""
        heard = self.listen()
        try:
            yield heard
        finally:
            self.stop(heard)

    def _tell(self, kind: str, message: str) -> None:
        with self._lock:
            for heard in self._listeners:
                said: deque[str] = getattr(heard, kind)
                if kind == "errors" or message not in said:
                    said.append(message)


_LOGS: dict[Any, TensorRtLog] = {}
_LOGS_LOCK = threading.Lock()


def tensorrt_log(trt: Any) -> TensorRtLog:
    """The log of a module, made at the first call and kept as long as the process lives."""
    with _LOGS_LOCK:
        if trt not in _LOGS:
            _LOGS[trt] = TensorRtLog(trt)
        return _LOGS[trt]
