"""How a graph is to be opened: the choices of the CPU and of the CUDA side, checked when the C library gets them."""

from __future__ import annotations

import ctypes
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gms_rt.errors import UsageError
from gms_rt.runtime import library as c

Execution = Literal["as built", "f32", "bf16", "f16"]
Mode = Literal["latency", "throughput"]
Trial = Literal["auto", "always", "never"]
GraphUse = Literal["auto", "always", "never"]

_EXECUTIONS: dict[str, int] = {"f32": 0, "bf16": 1, "f16": 3, "as built": 2}
_MODES: dict[str, int] = {"latency": 0, "throughput": 1}
_TRIALS: dict[str, int] = {"auto": 0, "always": 1, "never": 2}
_GRAPH_USES: dict[str, int] = {"never": 0, "auto": 1, "always": 2}
_LONGEST_WAIT = 4_000_000.0  # seconds; the C library counts milliseconds in 32 bits


@dataclass(frozen=True)
class CpuSettings:
    """How OpenVINO opens a graph."""

    # Processor threads; 0 is OpenVINO's choice, the physical cores.
    threads: int = 0
    # Inferences in flight; 0 is one for latency, and for throughput what OpenVINO finds best.
    lanes: int = 0
    # Arithmetic of what is not int8: what the engine folder says (f32 for a file), or one of the three. bf16 or f16 on
    # a processor without it is an error; only an engine as built runs in f32 there, if it is one of f16, or of int8
    # and bf16 whose gate was met in f32 too.
    execution: Execution = "as built"
    # One image as fast as possible, with all threads; or many at the same time, each with fewer threads.
    mode: Mode = "latency"
    # Images per inference where the graph leaves that open; 0 is the graph's own number, or 1.
    batch: int = 0
    # An existing folder for compiled graphs, so that the next open is faster; used if nobody else may write to it.
    cache: Path | None = None
    # Whether the graph is first run in a process of its own, so that one on which OpenVINO crashes is an error and not
    # the end of this process: once, and remembered; every time; or never, for graphs that are trusted.
    trial: Trial = "auto"
    # A trial that takes longer has failed; 0 is the library's limit, ten minutes.
    trial_seconds: int = 0
    # OpenVINO's C library; None is the installed one.
    openvino: Path | None = None


@dataclass(frozen=True)
class CudaSettings:
    """The device, and the shape of one inference, for which a CUDA runner is opened."""

    # Images per inference, and their size.
    batch: int = 1
    height: int = 224
    width: int = 224
    # The GPU by number, as the driver counts them.
    device: int = 0
    # Independent streams that work at the same time, each with its own buffers.
    lanes: int = 1
    # Inferences before the capture, at least one.
    warmup: int = 2
    # Replay a captured CUDA graph, or queue every inference again: "auto" goes on without a graph where none can be
    # captured, and the runner's notice says why; "always" fails there; "never" does not try.
    cuda_graph: GraphUse = "auto"
    # A result that takes longer means that the device hangs, which is an error; 0 waits for ever.
    wait_seconds: float = 60.0
    # The driver's library; None is libcuda.so.1.
    driver: Path | None = None


def native_cpu_options(library: ctypes.CDLL, settings: CpuSettings) -> c.CpuOptions:
    """The settings as the C library takes them."""
    for name, allowed in (("execution", _EXECUTIONS), ("mode", _MODES), ("trial", _TRIALS)):
        _check_choice(settings, name, allowed)
    options = c.CpuOptions()
    c.check_status(library, library.gmsrt_cpu_options_init(ctypes.byref(options), ctypes.sizeof(options)))
    found = settings.openvino or c.find_openvino()
    options.openvino = None if found is None else os.fsencode(found)
    options.cache = None if settings.cache is None else os.fsencode(settings.cache)
    options.precision = _EXECUTIONS[settings.execution]
    options.mode = _MODES[settings.mode]
    options.trial = _TRIALS[settings.trial]
    for name in ("threads", "lanes", "batch", "trial_seconds"):
        setattr(options, name, _number(settings, name))
    return options


def native_cuda_options(library: ctypes.CDLL, settings: CudaSettings) -> c.CudaOptions:
    """The settings as the C library takes them, without callbacks."""
    _check_choice(settings, "cuda_graph", _GRAPH_USES)
    if not 0 <= settings.wait_seconds <= _LONGEST_WAIT:
        raise UsageError(f"a wait of {settings.wait_seconds} s is not possible", fix="give seconds, or 0 for no limit")
    options = c.CudaOptions()
    c.check_status(library, library.gmsrt_cuda_options_init(ctypes.byref(options), ctypes.sizeof(options)))
    for name in ("device", "batch", "height", "width", "lanes", "warmup"):
        setattr(options, name, _number(settings, name))
    options.driver = None if settings.driver is None else os.fsencode(settings.driver)
    options.use_graph = _GRAPH_USES[settings.cuda_graph]
    options.wait_ms = math.ceil(settings.wait_seconds * 1000)
    return options


def _check_choice(settings: CpuSettings | CudaSettings, name: str, allowed: dict[str, int]) -> None:
    if getattr(settings, name) not in allowed:
        first, *rest = allowed
        raise UsageError(
            f"{name} {getattr(settings, name)!r}", fix=f"give {', '.join([first, *rest[:-1]])} or {rest[-1]}"
        )


def _number(settings: CpuSettings | CudaSettings, name: str) -> int:
    number = int(getattr(settings, name))
    if not 0 <= number < 2**32:
        raise UsageError(f"{name} = {number} is not possible", fix="give a positive number")
    return number
