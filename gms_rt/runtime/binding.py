"""The C library's runner, typed in one place.

`NativeRunner` opens a graph on the CPU or a CUDA device and runs it on NumPy arrays in place, without the GIL. The
library is found and loaded at first use, never at import. Every failure is a `GmsError` with the library's own words.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import GmsError, NativeError, UsageError
from gms_rt.runtime import library as c
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.base import Owner, Timings, check_images, closed_error
from gms_rt.runtime.cuda import Callbacks, LaneCalls
from gms_rt.runtime.options import CpuSettings, CudaSettings, Trial, native_cpu_options, native_cuda_options

# One timed inference in milliseconds, as the library writes it.
SAMPLE = np.dtype([(name, np.float64) for name in ("total", "compute", "h2d", "d2h", "enqueue")])
# Samples of one call of gmsrt_bench; a longer bench is several calls.
CALL_SAMPLES = 1 << 16
# How the library begins the notice of a runner that could not capture its work.
NO_GRAPH = "no CUDA graph, every inference is queued anew"

AnyNative = TypeVar("AnyNative", bound="NativeRunner")


@dataclass(frozen=True)
class NativeInfo:
    """What the library says about an opened runner."""

    backend: Literal["cpu", "cuda"]
    batch: int  # images per inference
    height: int
    width: int
    lanes: int  # opened
    used_lanes: int  # in use, see `set_lanes`
    threads: int  # of a CPU runner; 0 on CUDA
    graphs: int  # captured CUDA graphs; 0 on a CPU
    open_ms: float  # without a trial
    execution: str  # the arithmetic of a CPU runner; "" on CUDA, where the plan decides
    device: str
    runtime: str  # "OpenVINO …" or "CUDA driver …"
    notice: str = ""  # why there is no CUDA graph although one was wanted


def check_graph(graph: Path, *, trial: Trial = "auto", batch: int = 0, openvino: Path | None = None) -> None:
    """Raise `ArtifactError` if an `.onnx` file or engine folder is damaged or malformed; nothing stays open.

    It must be an ONNX file whose weights are in it or in files below its folder. Unless `trial` is "never", OpenVINO
    then opens and runs it once in a process of its own, so that a graph on which OpenVINO crashes is an error here and
    not the end of this process; with "auto" a graph that passed is remembered and not tried again. Where OpenVINO is
    not installed nothing can be tried, and "auto" checks the file alone.
    """
    library = c.load_library()
    if trial == "auto" and openvino is None and not cpu_arithmetic().installed:
        trial = "never"
    options = native_cpu_options(library, CpuSettings(trial=trial, batch=batch, openvino=openvino))
    c.check_status(library, library.gmsrt_open_cpu(_path_bytes(graph), ctypes.byref(options), None))


class NativeRunner:
    """An opened runner of the C library. Many threads may share it; `close` waits for calls under way.

    It does not survive a fork: calls in the new process raise `NativeError`, and `close` there only forgets it.
    """

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p, callbacks: Callbacks | None = None) -> None:
        self._library = library
        self._handle: ctypes.c_void_p | None = handle
        self._callbacks = callbacks
        self._refusal = ""
        self._owner = Owner()
        self._calls = 0
        self._changed = threading.Condition()
        about = self.info
        self._size = (about.height, about.width)

    @classmethod
    def open_cpu(cls: type[AnyNative], graph: Path, settings: CpuSettings | None = None) -> AnyNative:
        """Open an `.onnx` file, or the graph of an engine folder, on the CPU."""
        library = c.load_library()
        options = native_cpu_options(library, settings or CpuSettings())
        handle = ctypes.c_void_p()
        c.check_status(library, library.gmsrt_open_cpu(_path_bytes(graph), ctypes.byref(options), ctypes.byref(handle)))
        return cls(library, handle)

    @classmethod
    def open_cuda(cls: type[AnyNative], settings: CudaSettings, calls: LaneCalls) -> AnyNative:
        """Open a CUDA device: `calls.prepare` binds a lane, `calls.enqueue` queues one inference and is captured."""
        library = c.load_library()
        options = native_cuda_options(library, settings)
        callbacks = Callbacks(calls)
        options.prepare, options.enqueue, options.release = callbacks.prepare, callbacks.enqueue, callbacks.release
        handle = ctypes.c_void_p()
        status = library.gmsrt_open_cuda(ctypes.byref(options), ctypes.byref(handle))
        if status != 0 and callbacks.error is not None:
            if isinstance(callbacks.error, GmsError) or not isinstance(callbacks.error, Exception):
                raise callbacks.error
            raise NativeError(f"opening the device failed: {callbacks.error}") from callbacks.error
        c.check_status(library, status, cuda=True)
        runner = cls(library, handle, callbacks)
        if callbacks.error is not None:  # it refused to be captured; C knows that, but not why
            runner._refusal, callbacks.error = str(callbacks.error), None
        return runner

    @property
    def info(self) -> NativeInfo:
        """Shapes, lanes, device and arithmetic of the opened graph."""
        about = c.Info()
        with self._call() as handle:
            c.check_status(
                self._library, self._library.gmsrt_get_info(handle, ctypes.byref(about), ctypes.sizeof(about))
            )
        return NativeInfo(
            backend="cuda" if about.backend == 1 else "cpu",
            batch=about.batch,
            height=about.height,
            width=about.width,
            lanes=about.lanes,
            used_lanes=about.used_lanes,
            threads=about.threads,
            graphs=about.graphs,
            open_ms=about.open_ms,
            execution=about.execution.decode(errors="replace"),
            device=about.device.decode(errors="replace"),
            runtime=about.runtime.decode(errors="replace"),
            notice=f"{NO_GRAPH}: {self._refusal}" if self._refusal else about.notice.decode(errors="replace"),
        )

    def infer(self, images: U8, masks: U8) -> None:
        """Segment `images` (N×H×W×3) into `masks` (N×H×W or N×H×W×1), both used in place."""
        self._check_images(images)
        count, (height, width) = len(images), self._size
        if (
            masks.dtype != np.uint8
            or masks.shape not in ((count, height, width), (count, height, width, 1))
            or not masks.flags.c_contiguous
            or not masks.flags.writeable
        ):
            raise UsageError(
                f"masks of type {masks.dtype} and shape {masks.shape} do not fit",
                fix=f"give writeable contiguous uint8 ({count}, {height}, {width})",
            )
        with self._call() as handle:
            self._check_call(self._library.gmsrt_infer(handle, images.ctypes.data, count, masks.ctypes.data))

    def bench(self, images: U8, *, seconds: float, iterations: int, warmup: float) -> Timings:
        """Time inferences over `images` in turn: at least `seconds` and at least `iterations`, after `warmup` seconds.

        The library stops where its array of samples is full, so it is called again with what is left. The wall time is
        the sum of the calls' own, without what is between them.
        """
        self._check_images(images)
        if iterations < 1:
            raise UsageError("a bench needs at least one iteration")
        samples = np.empty(CALL_SAMPLES, SAMPLE)
        parts: list[np.ndarray[tuple[int], np.dtype[np.void]]] = []
        done, wall, warmed = 0, 0.0, 0.0
        while not parts or done < iterations or wall < seconds:
            options = c.BenchLimits(ctypes.sizeof(c.BenchLimits), warmup, seconds, iterations)
            if parts:
                options.warmup_seconds, options.seconds = 0.0, max(seconds - wall, 0.0)
                options.iterations = max(iterations - done, 1)
            result = c.BenchOutcome()
            with self._call() as handle:
                status = self._library.gmsrt_bench(
                    handle,
                    images.ctypes.data,
                    len(images),
                    ctypes.byref(options),
                    samples.ctypes.data,
                    len(samples),
                    ctypes.byref(result),
                    ctypes.sizeof(result),
                )
                self._check_call(status)
            parts.append(samples[: result.samples].copy())
            done += result.samples
            wall += result.wall_seconds
            warmed += result.warmup_seconds
        every = np.concatenate(parts)
        columns = {name: np.ascontiguousarray(every[name]) for name in SAMPLE.names or ()}
        return Timings(
            **columns, wall_seconds=wall, warmup_seconds=warmed, batch=int(result.batch), lanes=int(result.lanes)
        )

    def set_lanes(self, lanes: int) -> None:
        """Use only this many of the opened lanes from now on."""
        if not 1 <= lanes < 2**32:
            raise UsageError(f"{lanes} lanes are not possible", fix="give a positive number")
        with self._call() as handle:
            self._check_call(self._library.gmsrt_set_lanes(handle, lanes))

    def close(self) -> None:
        """Wait for calls under way, then release everything; a second call does nothing."""
        if not self._owner.is_here:
            self._handle = None
            return
        with self._changed:
            handle, self._handle = self._handle, None
            while self._calls > 0:
                self._changed.wait()
        if handle is not None:
            self._library.gmsrt_close(handle)

    def __enter__(self: AnyNative) -> AnyNative:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    @contextmanager
    def _call(self) -> Iterator[ctypes.c_void_p]:
        self._owner.check()
        with self._changed:
            if self._handle is None:
                raise closed_error()
            handle = self._handle
            self._calls += 1
        try:
            yield handle
        finally:
            with self._changed:
                self._calls -= 1
                self._changed.notify_all()

    def _check_call(self, status: int) -> None:
        if status != 0 and self._callbacks is not None and self._callbacks.error is not None:
            error, self._callbacks.error = self._callbacks.error, None
            raise NativeError(f"the engine could not be run: {error}") from error
        c.check_status(self._library, status, cuda=self._callbacks is not None)

    def _check_images(self, images: U8) -> None:
        check_images(images, *self._size)
        if not images.flags.c_contiguous:
            raise UsageError("images that are not contiguous do not fit", fix="give np.ascontiguousarray(images)")


def _path_bytes(path: Path) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise UsageError("a path cannot contain a zero byte", where=path)
    return encoded
