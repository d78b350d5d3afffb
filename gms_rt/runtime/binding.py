"""The C library, typed in one place.

`NativeRunner` opens a graph on the CPU or a CUDA device and runs it on NumPy arrays in place, without the GIL. The
library is found and loaded at first use, never at import. Every failure is a `GmsError` with the library's own words.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gms_rt.errors import GmsError, NativeError, UsageError
from gms_rt.runtime import library as c
from gms_rt.runtime.library import check, find_openvino, load_library

Precision = Literal["f32", "bf16"]
Mode = Literal["latency", "throughput"]
# Whether a graph is first run in a process of its own: once and remembered, every time, or not at all.
Trial = Literal["auto", "always", "never"]
_TRIALS: dict[str, int] = {"auto": 0, "always": 1, "never": 2}

# One timed inference in milliseconds, as the library writes it.
SAMPLE = np.dtype([(name, np.float64) for name in ("total", "compute", "h2d", "d2h", "enqueue")])


@dataclass(frozen=True)
class NativeInfo:
    """What the library says about an opened runner."""

    backend: Literal["cpu", "cuda"]
    batch: int
    height: int
    width: int
    lanes: int
    used_lanes: int
    threads: int
    graphs: int
    open_ms: float
    execution: str
    device: str
    runtime: str


@dataclass(frozen=True)
class CudaDevice:
    """A CUDA device as the driver describes it."""

    ordinal: int
    count: int
    name: str
    sm: int
    driver: tuple[int, int]
    integrated: bool
    memory: int


@dataclass(frozen=True)
class CudaLane:
    """One lane of a CUDA runner: its stream and device buffers, as integers that TensorRT takes."""

    index: int
    stream: int
    images: int
    masks: int


@dataclass(frozen=True)
class BenchResult:
    """Samples of one bench (dtype `SAMPLE`) and its wall times."""

    samples: NDArray[np.void]
    wall_seconds: float
    warmup_seconds: float
    lanes: int
    batch: int


def probe_cuda(device: int = 0, *, driver: Path | None = None) -> CudaDevice:
    """What the driver says about a device; `DeviceError` where there is no driver or no such device."""
    library = load_library()
    if device < 0:
        raise UsageError(f"there is no CUDA device {device}", fix="give 0 or more")
    about = c.Device()
    path = None if driver is None else os.fsencode(driver)
    check(library, library.gmsrt_probe_cuda(path, device, ctypes.byref(about)), cuda=True)
    return CudaDevice(
        ordinal=device,
        count=about.count,
        name=about.name.decode(errors="replace"),
        sm=about.sm,
        driver=(about.driver // 1000, about.driver % 1000 // 10),
        integrated=bool(about.integrated),
        memory=about.memory,
    )


def check_graph(graph: Path, *, trial: Trial = "auto", batch: int = 0, openvino: Path | None = None) -> None:
    """Raise `ArtifactError` if an `.onnx` file or engine folder is damaged or malformed; nothing stays open.

    It must be an ONNX file whose weights are in it or in files below its folder. Unless `trial` is "never", OpenVINO
    then opens and runs it once in a process of its own, so that a graph on which OpenVINO crashes is an error here and
    not the end of this process; with "auto" a graph that passed is remembered and not tried again.
    """
    library = load_library()
    options = _cpu_options(library, openvino, trial, batch=batch)
    check(library, library.gmsrt_open_cpu(_path_bytes(graph), ctypes.byref(options), None))


LaneFunction = Callable[[CudaLane], None]


class _Callbacks:
    """Python functions as C callbacks; an exception becomes a non-zero result and is kept as the cause."""

    def __init__(self, prepare: LaneFunction | None, enqueue: LaneFunction, release: Callable[[], None] | None) -> None:
        self.error: BaseException | None = None
        self.prepare = c.LaneCallback() if prepare is None else c.LaneCallback(self._lane_function(prepare))
        self.enqueue = c.LaneCallback(self._lane_function(enqueue))
        self.release = c.ReleaseCallback() if release is None else c.ReleaseCallback(self._release_function(release))

    def _lane_function(self, function: LaneFunction) -> Callable[[int | None, object], int]:
        def call(_user: int | None, pointer: object) -> int:
            lane: c.Lane = pointer.contents  # type: ignore[attr-defined]
            try:
                function(CudaLane(lane.index, lane.stream or 0, lane.images, lane.masks))
            except BaseException as error:  # nothing may unwind through C
                self.error = error
                return 1
            return 0

        return call

    def _release_function(self, function: Callable[[], None]) -> Callable[[int | None], None]:
        def call(_user: int | None) -> None:
            try:
                function()
            except BaseException as error:
                self.error = error

        return call


class NativeRunner:
    """An opened runner of the C library. Many threads may share it; `close` waits for calls under way."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p, callbacks: _Callbacks | None = None) -> None:
        self._library = library
        self._handle: ctypes.c_void_p | None = handle
        self._callbacks = callbacks
        self._calls = 0
        self._changed = threading.Condition()
        about = self.info
        self._size = (about.height, about.width)

    @classmethod
    def open_cpu(
        cls,
        graph: Path,
        *,
        threads: int = 0,
        lanes: int = 0,
        precision: Precision = "f32",
        mode: Mode = "latency",
        batch: int = 0,
        cache: Path | None = None,
        openvino: Path | None = None,
        trial: Trial = "auto",
        trial_seconds: int = 0,
    ) -> NativeRunner:
        """Open an `.onnx` file, or the `model.onnx` of a folder, on the CPU.

        `trial` says whether the graph is first run in a process of its own (see `check_graph`), `trial_seconds` how
        long that may take (0: the library's limit).
        """
        library = load_library()
        if precision not in ("f32", "bf16") or mode not in ("latency", "throughput"):
            raise UsageError(f"precision {precision!r}, mode {mode!r}", fix="give f32 or bf16, latency or throughput")
        options = _cpu_options(
            library, openvino, trial, threads=threads, lanes=lanes, batch=batch, trial_seconds=trial_seconds
        )
        options.cache = None if cache is None else os.fsencode(cache)
        options.precision = 1 if precision == "bf16" else 0
        options.mode = 1 if mode == "throughput" else 0
        handle = ctypes.c_void_p()
        status = library.gmsrt_open_cpu(_path_bytes(graph), ctypes.byref(options), ctypes.byref(handle))
        check(library, status)
        return cls(library, handle)

    @classmethod
    def open_cuda(
        cls,
        *,
        device: int,
        batch: int,
        height: int,
        width: int,
        enqueue: LaneFunction,
        prepare: LaneFunction | None = None,
        release: Callable[[], None] | None = None,
        lanes: int = 1,
        warmup: int = 2,
        cuda_graph: bool = True,
        driver: Path | None = None,
    ) -> NativeRunner:
        """Open a CUDA device: `prepare` binds a lane, `enqueue` queues one inference and is captured."""
        library = load_library()
        options = c.CudaOptions()
        library.gmsrt_cuda_options_default(ctypes.byref(options))
        numbers = {"device": device, "batch": batch, "height": height, "width": width, "lanes": lanes}
        for name, number in (*numbers.items(), ("warmup", warmup)):
            if not 0 <= number < 2**32:
                raise UsageError(f"{name} = {number} makes no sense", fix="give a positive number")
            setattr(options, name, number)
        callbacks = _Callbacks(prepare, enqueue, release)
        options.driver = None if driver is None else os.fsencode(driver)
        options.use_graph = int(cuda_graph)
        options.prepare, options.enqueue, options.release = callbacks.prepare, callbacks.enqueue, callbacks.release
        handle = ctypes.c_void_p()
        status = library.gmsrt_open_cuda(ctypes.byref(options), ctypes.byref(handle))
        if status != 0 and callbacks.error is not None:
            if isinstance(callbacks.error, GmsError) or not isinstance(callbacks.error, Exception):
                raise callbacks.error
            raise NativeError(f"opening the device failed: {callbacks.error}") from callbacks.error
        check(library, status, cuda=True)
        return cls(library, handle, callbacks)

    @property
    def info(self) -> NativeInfo:
        """Shapes, lanes, device and arithmetic of the opened graph."""
        about = c.Info()
        with self._call() as handle:
            check(self._library, self._library.gmsrt_get_info(handle, ctypes.byref(about)))
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
        )

    def infer(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None:
        """Segment `images` (N×H×W×3) into `masks` (N×H×W or N×H×W×1), both used in place."""
        count = self._check_images(images)
        height, width = self._size
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
            status = self._library.gmsrt_infer(handle, images.ctypes.data, count, masks.ctypes.data)
            self._check_call(status)

    def bench(
        self, images: NDArray[np.uint8], *, seconds: float, iterations: int, warmup: float, capacity: int | None = None
    ) -> BenchResult:
        """Time inferences over `images` in turn; `capacity` bounds the number of samples."""
        count = self._check_images(images)
        if iterations < 0 or (capacity is not None and capacity < 1):
            raise UsageError("a bench needs room for at least one sample")
        # Memory is only touched where a sample is written, so a generous array costs nothing.
        room = max(iterations, int(seconds * 50_000) + 1) if capacity is None else capacity
        samples = np.empty(room, SAMPLE)
        options = c.BenchOptions(warmup, seconds, iterations)
        result = c.BenchOutcome()
        with self._call() as handle:
            status = self._library.gmsrt_bench(
                handle,
                images.ctypes.data,
                count,
                ctypes.byref(options),
                samples.ctypes.data,
                room,
                ctypes.byref(result),
            )
            self._check_call(status)
        return BenchResult(
            samples[: result.samples].copy(), result.wall_seconds, result.warmup_seconds, result.lanes, result.batch
        )

    def set_lanes(self, lanes: int) -> None:
        """Use only so many of the opened lanes from now on."""
        if not 1 <= lanes < 2**32:
            raise UsageError(f"{lanes} lanes make no sense", fix="give a positive number")
        with self._call() as handle:
            self._check_call(self._library.gmsrt_set_lanes(handle, lanes))

    def close(self) -> None:
        """Wait for calls under way, then release everything; a second call does nothing."""
        with self._changed:
            handle, self._handle = self._handle, None
            while self._calls > 0:
                self._changed.wait()
        if handle is not None:
            self._library.gmsrt_close(handle)

    def __enter__(self) -> NativeRunner:
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
        with self._changed:
            if self._handle is None:
                raise UsageError("this engine is closed", fix="load it again")
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
        check(self._library, status, cuda=self._callbacks is not None)

    def _check_images(self, images: NDArray[np.uint8]) -> int:
        height, width = self._size
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[1:] != (height, width, 3)
            or not images.flags.c_contiguous
        ):
            raise UsageError(
                f"images of type {images.dtype} and shape {images.shape} do not fit",
                fix=f"give contiguous uint8 (N, {height}, {width}, 3)",
            )
        return len(images)


def _cpu_options(library: ctypes.CDLL, openvino: Path | None, trial: Trial, **numbers: int) -> c.CpuOptions:
    """Options with their defaults, the installed OpenVINO, and checked numbers."""
    for name, number in numbers.items():
        if not 0 <= number < 2**32:
            raise UsageError(f"{number} {name} make no sense", fix="give 0 for the default, or a positive number")
    if trial not in _TRIALS:
        raise UsageError(f"trial {trial!r}", fix="give auto, always or never")
    options = c.CpuOptions()
    library.gmsrt_cpu_options_default(ctypes.byref(options))
    found = openvino or find_openvino()
    options.openvino = None if found is None else os.fsencode(found)
    options.trial = _TRIALS[trial]
    for name, number in numbers.items():
        setattr(options, name, number)
    return options


def _path_bytes(path: Path) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise UsageError("a path cannot hold a zero byte", where=path)
    return encoded
