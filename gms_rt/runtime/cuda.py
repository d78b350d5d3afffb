"""The CUDA side of the binding: what the driver says about a device, lanes, and Python functions that C calls."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gms_rt.errors import DeviceError, UsageError
from gms_rt.runtime import library as c


@dataclass(frozen=True)
class CudaDevice:
    """A CUDA device as the driver describes it."""

    ordinal: int
    count: int  # devices of this machine
    name: str
    sm: int  # compute capability times ten
    driver: tuple[int, int]  # newest CUDA version the driver supports
    integrated: bool  # shares memory with the host, as a Jetson does
    memory: int  # bytes


def probe_cuda(device: int = 0, *, driver: Path | None = None) -> CudaDevice:
    """What the driver says about a device; `DeviceError` where there is no driver or no such device."""
    library = c.load_library()
    if device < 0:
        raise UsageError(f"there is no CUDA device {device}", fix="give 0 or more")
    about = c.Device()
    path = None if driver is None else os.fsencode(driver)
    c.check_status(
        library, library.gmsrt_probe_cuda(path, device, ctypes.byref(about), ctypes.sizeof(about)), cuda=True
    )
    return CudaDevice(
        ordinal=device,
        count=about.count,
        name=about.name.decode(errors="replace"),
        sm=about.sm,
        driver=(about.driver // 1000, about.driver % 1000 // 10),
        integrated=bool(about.integrated),
        memory=about.memory,
    )


@contextmanager
def current_device(device: int, *, driver: Path | None = None) -> Iterator[None]:
    """Make a device's primary context the calling thread's, so that what uses "the current device" uses this one."""
    cuda = ctypes.CDLL("libcuda.so.1" if driver is None else str(driver))
    handle, context, popped = ctypes.c_int(0), ctypes.c_void_p(), ctypes.c_void_p()

    def check(status: int, what: str) -> None:
        if status:
            raise DeviceError(f"CUDA device {device} cannot be used ({what} answers {status})", where=f"cuda:{device}")

    check(cuda.cuInit(0), "cuInit")
    check(cuda.cuDeviceGet(ctypes.byref(handle), device), "cuDeviceGet")
    check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle), "cuDevicePrimaryCtxRetain")
    try:
        check(cuda.cuCtxPushCurrent_v2(context), "cuCtxPushCurrent")
        try:
            yield
        finally:
            cuda.cuCtxPopCurrent_v2(ctypes.byref(popped))
    finally:
        cuda.cuDevicePrimaryCtxRelease_v2(handle)


@dataclass(frozen=True)
class CudaLane:
    """One lane of a CUDA runner: its stream and device buffers, as integers that TensorRT takes."""

    index: int
    stream: int  # CUstream, this lane's alone
    images: int  # device address of batch×height×width×3 bytes
    masks: int  # device address of batch×height×width bytes
    capturing: bool = False  # whether what is queued now is captured into a graph, and runs at each replay


@dataclass(frozen=True)
class LaneCalls:
    """What the C library calls in Python, with the device's context current."""

    # Queue one inference from the lane's images to its masks, on its stream; captured where graphs are used.
    enqueue: Callable[[CudaLane], None]
    # Once per lane before its first inference: bind its addresses.
    prepare: Callable[[CudaLane], None] | None = None
    # Once, after the last use of the lanes and before their memory is freed.
    release: Callable[[], None] | None = None


class Callbacks:
    """`LaneCalls` as C callbacks; an exception becomes a non-zero result and is kept as the cause."""

    def __init__(self, calls: LaneCalls) -> None:
        self.error: BaseException | None = None
        self.prepare = c.LaneCallback() if calls.prepare is None else c.LaneCallback(self._on_lane(calls.prepare))
        self.enqueue = c.LaneCallback(self._on_lane(calls.enqueue))
        self.release = c.ReleaseCallback() if calls.release is None else c.ReleaseCallback(self._at_end(calls.release))

    def _on_lane(self, function: Callable[[CudaLane], None]) -> Callable[[int | None, object], int]:
        def call(_user: int | None, pointer: object) -> int:
            lane: c.Lane = pointer.contents  # type: ignore[attr-defined]
            try:
                function(CudaLane(lane.index, lane.stream or 0, lane.images, lane.masks, bool(lane.capturing)))
            except BaseException as error:  # nothing may unwind through C
                self.error = error
                return 1
            return 0

        return call

    def _at_end(self, function: Callable[[], None]) -> Callable[[int | None], None]:
        def call(_user: int | None) -> None:
            try:
                function()
            except BaseException as error:
                self.error = error

        return call
