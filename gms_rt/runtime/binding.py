"""The C library, typed in one place.

`NativeRunner` opens a graph on the CPU or a CUDA device and runs it on NumPy arrays in place, without the GIL. The
library is found and loaded at first use, never at import. Every failure is a `GmsError` with the library's own words.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
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

from gms_rt.errors import ArtifactError, DeviceError, GmsError, NativeError, UsageError

ABI_VERSION = 1
LIBRARY_VARIABLE = "GMS_RT_LIBRARY"
OPENVINO_VARIABLE = "GMSRT_OPENVINO"

Precision = Literal["f32", "bf16"]
Mode = Literal["latency", "throughput"]

# One timed inference in milliseconds, as the library writes it.
SAMPLE = np.dtype([(name, np.float64) for name in ("total", "compute", "h2d", "d2h", "enqueue")])

_STATUS_NO_RUNTIME = 4
_ERRORS: dict[int, type[GmsError]] = {
    1: UsageError,
    2: ArtifactError,
    3: ArtifactError,
    5: DeviceError,
    6: DeviceError,
    10: DeviceError,
}


class _CpuOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("openvino", ctypes.c_char_p),
        ("cache", ctypes.c_char_p),
        ("precision", ctypes.c_int),
        ("mode", ctypes.c_int),
        ("threads", ctypes.c_uint32),
        ("lanes", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
    )


class _Lane(ctypes.Structure):
    _fields_ = (
        ("index", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
        ("images", ctypes.c_uint64),
        ("masks", ctypes.c_uint64),
    )


_LaneCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Lane))
_ReleaseCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _CudaOptions(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("driver", ctypes.c_char_p),
        ("device", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("lanes", ctypes.c_uint32),
        ("warmup", ctypes.c_uint32),
        ("use_graph", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("prepare", _LaneCallback),
        ("enqueue", _LaneCallback),
        ("release", _ReleaseCallback),
        ("user", ctypes.c_void_p),
    )


class _Info(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("backend", ctypes.c_int),
        ("batch", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("lanes", ctypes.c_uint32),
        ("used_lanes", ctypes.c_uint32),
        ("threads", ctypes.c_uint32),
        ("graphs", ctypes.c_uint32),
        ("open_ms", ctypes.c_double),
        ("execution", ctypes.c_char * 16),
        ("device", ctypes.c_char * 128),
        ("runtime", ctypes.c_char * 128),
    )


class _Device(ctypes.Structure):
    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("count", ctypes.c_uint32),
        ("sm", ctypes.c_uint32),
        ("driver", ctypes.c_uint32),
        ("integrated", ctypes.c_uint32),
        ("memory", ctypes.c_uint64),
        ("name", ctypes.c_char * 128),
    )


class _BenchOptions(ctypes.Structure):
    _fields_ = (
        ("warmup_seconds", ctypes.c_double),
        ("seconds", ctypes.c_double),
        ("iterations", ctypes.c_size_t),
    )


class _BenchResult(ctypes.Structure):
    _fields_ = (
        ("samples", ctypes.c_size_t),
        ("wall_seconds", ctypes.c_double),
        ("warmup_seconds", ctypes.c_double),
        ("lanes", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
    )


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


_library: ctypes.CDLL | None = None
_library_lock = threading.Lock()


def library_path() -> Path:
    """Where the library is: the environment's choice, the package's own, or an editable install's."""
    chosen = os.environ.get(LIBRARY_VARIABLE)
    if chosen:
        if not Path(chosen).is_file():
            raise UsageError("is not a file", where=chosen, mend=f"correct or unset {LIBRARY_VARIABLE}")
        return Path(chosen)
    name = "native/lib/libgms_rt.so"
    candidates = [Path(__file__).parent.parent / name]
    try:
        installed = importlib.metadata.distribution("gms-rt").locate_file(f"gms_rt/{name}")
        candidates.append(Path(str(installed)))
    except importlib.metadata.PackageNotFoundError:
        pass
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise NativeError(
        "the C library is not built",
        where=candidates[0],
        mend=f"run scripts/build-native in the source tree, install the package again, or set {LIBRARY_VARIABLE}",
    )


def load_library() -> ctypes.CDLL:
    """The library, loaded once a process and checked for its ABI version."""
    global _library
    with _library_lock:
        if _library is None:
            path = library_path()
            try:
                library = ctypes.CDLL(str(path))
                _declare(library)
            except (OSError, AttributeError) as error:
                raise NativeError(
                    f"the C library cannot be loaded ({error})", where=path, mend="build it with scripts/build-native"
                ) from error
            found = int(library.gmsrt_abi_version())
            if found != ABI_VERSION:
                raise NativeError(
                    f"the C library has ABI version {found}, this package needs {ABI_VERSION}",
                    where=path,
                    mend="build it again with scripts/build-native",
                )
            _library = library
        return _library


def _declare(library: ctypes.CDLL) -> None:
    pointer, size, text, runner = ctypes.POINTER, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
    functions: dict[str, tuple[object, list[object]]] = {
        "gmsrt_abi_version": (ctypes.c_uint32, []),
        "gmsrt_version": (text, []),
        "gmsrt_status_name": (text, [ctypes.c_int]),
        "gmsrt_last_error": (text, []),
        "gmsrt_cpu_options_default": (None, [pointer(_CpuOptions)]),
        "gmsrt_cuda_options_default": (None, [pointer(_CudaOptions)]),
        "gmsrt_open_cpu": (ctypes.c_int, [text, pointer(_CpuOptions), pointer(runner)]),
        "gmsrt_open_cuda": (ctypes.c_int, [pointer(_CudaOptions), pointer(runner)]),
        "gmsrt_probe_cuda": (ctypes.c_int, [text, ctypes.c_uint32, pointer(_Device)]),
        "gmsrt_get_info": (ctypes.c_int, [runner, pointer(_Info)]),
        "gmsrt_set_lanes": (ctypes.c_int, [runner, ctypes.c_uint32]),
        "gmsrt_infer": (ctypes.c_int, [runner, ctypes.c_void_p, size, ctypes.c_void_p]),
        "gmsrt_bench": (
            ctypes.c_int,
            [
                runner,
                ctypes.c_void_p,
                size,
                pointer(_BenchOptions),
                ctypes.c_void_p,
                size,
                pointer(_BenchResult),
            ],
        ),
        "gmsrt_close": (None, [runner]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


def _check(library: ctypes.CDLL, status: int, *, cuda: bool = False) -> None:
    if status == 0:
        return
    message = library.gmsrt_last_error().decode(errors="replace")
    if status == _STATUS_NO_RUNTIME and cuda:
        raise DeviceError(message)
    raise _ERRORS.get(status, NativeError)(message)


def find_openvino() -> Path | None:
    """OpenVINO's C library: the environment's choice, or the installed wheel's, without importing it."""
    chosen = os.environ.get(OPENVINO_VARIABLE)
    if chosen:
        return Path(chosen)
    spec = importlib.util.find_spec("openvino")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        found = sorted(Path(place, "libs").glob("libopenvino_c.so*"))
        if found:
            return found[0]
    return None


def probe_cuda(device: int = 0, *, driver: Path | None = None) -> CudaDevice:
    """What the driver says about a device; `DeviceError` where there is no driver or no such device."""
    library = load_library()
    if device < 0:
        raise UsageError(f"there is no CUDA device {device}", mend="give 0 or more")
    about = _Device()
    path = None if driver is None else os.fsencode(driver)
    _check(library, library.gmsrt_probe_cuda(path, device, ctypes.byref(about)), cuda=True)
    return CudaDevice(
        ordinal=device,
        count=about.count,
        name=about.name.decode(errors="replace"),
        sm=about.sm,
        driver=(about.driver // 1000, about.driver % 1000 // 10),
        integrated=bool(about.integrated),
        memory=about.memory,
    )


LaneFunction = Callable[[CudaLane], None]


class _Callbacks:
    """Python functions as C callbacks; an exception becomes a non-zero result and is kept as the cause."""

    def __init__(self, prepare: LaneFunction | None, enqueue: LaneFunction, release: Callable[[], None] | None) -> None:
        self.error: BaseException | None = None
        self.prepare = _LaneCallback() if prepare is None else _LaneCallback(self._lane_function(prepare))
        self.enqueue = _LaneCallback(self._lane_function(enqueue))
        self.release = _ReleaseCallback() if release is None else _ReleaseCallback(self._release_function(release))

    def _lane_function(self, function: LaneFunction) -> Callable[[int | None, object], int]:
        def call(_user: int | None, pointer: object) -> int:
            lane: _Lane = pointer.contents  # type: ignore[attr-defined]
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
        self._shape = self.info
        self._batch_shape = (self._shape.height, self._shape.width)

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
    ) -> NativeRunner:
        """Open an `.onnx` file, or the `model.onnx` of a folder, on the CPU."""
        library = load_library()
        for name, number in (("threads", threads), ("lanes", lanes), ("batch", batch)):
            if not 0 <= number < 2**32:
                raise UsageError(f"{number} {name} make no sense", mend="give 0 for the default, or a positive number")
        if precision not in ("f32", "bf16") or mode not in ("latency", "throughput"):
            raise UsageError(f"precision {precision!r}, mode {mode!r}", mend="give f32 or bf16, latency or throughput")
        options = _CpuOptions()
        library.gmsrt_cpu_options_default(ctypes.byref(options))
        found = openvino or find_openvino()
        options.openvino = None if found is None else os.fsencode(found)
        options.cache = None if cache is None else os.fsencode(cache)
        options.precision = 1 if precision == "bf16" else 0
        options.mode = 1 if mode == "throughput" else 0
        options.threads, options.lanes, options.batch = threads, lanes, batch
        handle = ctypes.c_void_p()
        status = library.gmsrt_open_cpu(_path_bytes(graph), ctypes.byref(options), ctypes.byref(handle))
        _check(library, status)
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
        options = _CudaOptions()
        library.gmsrt_cuda_options_default(ctypes.byref(options))
        numbers = {"device": device, "batch": batch, "height": height, "width": width, "lanes": lanes}
        for name, number in (*numbers.items(), ("warmup", warmup)):
            if not 0 <= number < 2**32:
                raise UsageError(f"{name} = {number} makes no sense", mend="give a positive number")
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
        _check(library, status, cuda=True)
        return cls(library, handle, callbacks)

    @property
    def info(self) -> NativeInfo:
        """Shapes, lanes, device and arithmetic of the opened graph."""
        about = _Info()
        with self._call() as handle:
            _check(self._library, self._library.gmsrt_get_info(handle, ctypes.byref(about)))
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
        height, width = self._batch_shape
        if (
            masks.dtype != np.uint8
            or masks.shape not in ((count, height, width), (count, height, width, 1))
            or not masks.flags.c_contiguous
            or not masks.flags.writeable
        ):
            raise UsageError(
                f"masks of type {masks.dtype} and shape {masks.shape} do not fit",
                mend=f"give writeable contiguous uint8 ({count}, {height}, {width})",
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
        options = _BenchOptions(warmup, seconds, iterations)
        result = _BenchResult()
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
            raise UsageError(f"{lanes} lanes make no sense", mend="give a positive number")
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
                raise UsageError("this engine is closed", mend="load it again")
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
        _check(self._library, status, cuda=self._callbacks is not None)

    def _check_images(self, images: NDArray[np.uint8]) -> int:
        height, width = self._batch_shape
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or images.shape[1:] != (height, width, 3)
            or not images.flags.c_contiguous
        ):
            raise UsageError(
                f"images of type {images.dtype} and shape {images.shape} do not fit",
                mend=f"give contiguous uint8 (N, {height}, {width}, 3)",
            )
        return len(images)


def _path_bytes(path: Path) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise UsageError("a path cannot hold a zero byte", where=path)
    return encoded
