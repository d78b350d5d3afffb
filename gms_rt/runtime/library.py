"""The C library as ctypes sees it: where it is, its structures, its functions, its statuses.

It is found and loaded at first use, never at import, and checked for its ABI version. `binding`, `cuda` and `options`
are its users.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import threading
from pathlib import Path

from gms_rt.errors import ArtifactError, DeviceError, GmsError, NativeError, UsageError

ABI_VERSION = 3
LIBRARY_VARIABLE = "GMS_RT_LIBRARY"
OPENVINO_VARIABLE = "GMS_RT_OPENVINO"

NO_RUNTIME = 4
_ERRORS: dict[int, type[GmsError]] = {
    1: UsageError,
    2: ArtifactError,
    3: ArtifactError,
    5: DeviceError,
    6: DeviceError,
    10: DeviceError,
    14: DeviceError,
    15: DeviceError,
}


CancelCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class CpuOptions(ctypes.Structure):
    """gmsrt_cpu_options."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("openvino", ctypes.c_char_p),
        ("cache", ctypes.c_char_p),
        ("precision", ctypes.c_int32),
        ("mode", ctypes.c_int32),
        ("threads", ctypes.c_uint32),
        ("lanes", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
        ("trial", ctypes.c_int32),
        ("trial_seconds", ctypes.c_uint32),
        ("timeout_ms", ctypes.c_uint32),
        ("cancelled", CancelCallback),
        ("user", ctypes.c_void_p),
    )


class Lane(ctypes.Structure):
    """gmsrt_cuda_lane."""

    _fields_ = (
        ("index", ctypes.c_uint32),
        ("struct_size", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
        ("images", ctypes.c_uint64),
        ("masks", ctypes.c_uint64),
        ("capturing", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


LaneCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Lane))
ReleaseCallback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class CudaOptions(ctypes.Structure):
    """gmsrt_cuda_options."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("driver", ctypes.c_char_p),
        ("device", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("lanes", ctypes.c_uint32),
        ("warmup", ctypes.c_uint32),
        ("use_graph", ctypes.c_int32),
        ("wait_ms", ctypes.c_uint32),
        ("prepare", LaneCallback),
        ("enqueue", LaneCallback),
        ("release", ReleaseCallback),
        ("user", ctypes.c_void_p),
    )


class Info(ctypes.Structure):
    """gmsrt_info."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("backend", ctypes.c_int32),
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
        ("notice", ctypes.c_char * 256),
    )


class Device(ctypes.Structure):
    """gmsrt_device."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("count", ctypes.c_uint32),
        ("sm", ctypes.c_uint32),
        ("driver", ctypes.c_uint32),
        ("integrated", ctypes.c_uint32),
        ("memory", ctypes.c_uint64),
        ("name", ctypes.c_char * 128),
    )


class Processor(ctypes.Structure):
    """gmsrt_processor."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("f16", ctypes.c_uint32),
        ("bf16", ctypes.c_uint32),
        ("name", ctypes.c_char * 128),
        ("runtime", ctypes.c_char * 128),
        ("capabilities", ctypes.c_char * 256),
    )


class BenchLimits(ctypes.Structure):
    """gmsrt_bench_options."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("warmup_seconds", ctypes.c_double),
        ("seconds", ctypes.c_double),
        ("iterations", ctypes.c_size_t),
    )


class BenchOutcome(ctypes.Structure):
    """gmsrt_bench_result."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("samples", ctypes.c_size_t),
        ("wall_seconds", ctypes.c_double),
        ("warmup_seconds", ctypes.c_double),
        ("lanes", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
    )


class Measures(ctypes.Structure):
    """gmsrt_measures."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("area", ctypes.c_uint64),
        ("regions", ctypes.c_uint64),
        ("x", ctypes.c_uint32),
        ("y", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("centre_x", ctypes.c_double),
        ("centre_y", ctypes.c_double),
    )


_library: ctypes.CDLL | None = None
_library_lock = threading.Lock()


def _chosen_path(variable: str) -> Path | None:
    """A library that the environment names. A relative path would be another file after a change of folder."""
    chosen = os.environ.get(variable)
    if not chosen:
        return None
    if "/" in chosen and not Path(chosen).is_absolute():
        raise UsageError(f"is relative to the current folder; {variable} must be an absolute path", where=chosen)
    return Path(chosen)


def library_path() -> Path:
    """Where the library is: the environment's choice, the package's own, or an editable install's; always absolute."""
    chosen = _chosen_path(LIBRARY_VARIABLE)
    if chosen is not None:
        if not chosen.is_file():
            raise UsageError("is not a file", where=chosen, fix=f"correct or unset {LIBRARY_VARIABLE}")
        return chosen
    name = "native/lib/libgms_rt.so"
    candidates = [Path(__file__).absolute().parent.parent / name]
    try:
        installed = importlib.metadata.distribution("gms-rt").locate_file(f"gms_rt/{name}")
        candidates.append(Path(str(installed)).absolute())
    except importlib.metadata.PackageNotFoundError:
        pass
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise NativeError(
        "the C library is not built",
        where=candidates[0],
        fix=f"run scripts/build-native in the source tree, install the package again, or set {LIBRARY_VARIABLE}",
    )


def load_library() -> ctypes.CDLL:
    """The library, loaded once per process and checked for its ABI version."""
    global _library
    with _library_lock:
        if _library is None:
            path = library_path()
            try:
                library = ctypes.CDLL(str(path))
                _declare(library)
            except (OSError, AttributeError) as error:
                raise NativeError(
                    f"the C library cannot be loaded ({error})", where=path, fix="build it with scripts/build-native"
                ) from error
            found = int(library.gmsrt_abi_version())
            if found != ABI_VERSION:
                raise NativeError(
                    f"the C library has ABI version {found}, this package needs {ABI_VERSION}",
                    where=path,
                    fix="build it again with scripts/build-native",
                )
            _library = library
        return _library


def _declare(library: ctypes.CDLL) -> None:
    pointer, size, text, runner = ctypes.POINTER, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
    status, address, side = ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint32
    functions: dict[str, tuple[object, list[object]]] = {
        "gmsrt_abi_version": (ctypes.c_uint32, []),
        "gmsrt_version": (text, []),
        "gmsrt_status_name": (text, [status]),
        "gmsrt_last_error": (text, []),
        "gmsrt_cpu_options_init": (status, [pointer(CpuOptions), size]),
        "gmsrt_cuda_options_init": (status, [pointer(CudaOptions), size]),
        "gmsrt_bench_options_init": (status, [pointer(BenchLimits), size]),
        "gmsrt_open_cpu": (status, [text, pointer(CpuOptions), pointer(runner)]),
        "gmsrt_open_cuda": (status, [pointer(CudaOptions), pointer(runner)]),
        "gmsrt_probe_cpu": (status, [text, pointer(Processor), size]),
        "gmsrt_probe_cuda": (status, [text, ctypes.c_uint32, pointer(Device), size]),
        "gmsrt_get_info": (status, [runner, pointer(Info), size]),
        "gmsrt_set_lanes": (status, [runner, ctypes.c_uint32]),
        "gmsrt_infer": (status, [runner, ctypes.c_void_p, size, ctypes.c_void_p]),
        "gmsrt_bench": (
            status,
            [
                runner,
                ctypes.c_void_p,
                size,
                pointer(BenchLimits),
                ctypes.c_void_p,
                size,
                pointer(BenchOutcome),
                size,
            ],
        ),
        "gmsrt_close": (None, [runner]),
        "gmsrt_measure_mask": (status, [address, side, side, pointer(Measures), size]),
        "gmsrt_confidence": (status, [address, size, ctypes.c_double, pointer(ctypes.c_double)]),
        "gmsrt_png_room": (size, [side, side]),
        "gmsrt_png_from_mask": (status, [address, side, side, address, size, pointer(size)]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


def check_status(library: ctypes.CDLL, status: int, *, cuda: bool = False) -> None:
    """Raise the error that a status stands for, with the library's message."""
    if status == 0:
        return
    message = library.gmsrt_last_error().decode(errors="replace")
    if status == NO_RUNTIME and cuda:
        raise DeviceError(message)
    raise _ERRORS.get(status, NativeError)(message)


def find_openvino() -> Path | None:
    """OpenVINO's C library: the environment's choice, or the installed wheel's, without importing it."""
    chosen = _chosen_path(OPENVINO_VARIABLE)
    if chosen is not None:
        return chosen
    spec = importlib.util.find_spec("openvino")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        found = sorted(Path(place, "libs").glob("libopenvino_c.so*"))
        if found:
            return found[0]
    return None
