"""The few figures of NVIDIA's management library that a report needs, through ctypes. Older Jetson boards lack it.

Every reader returns None where the driver does not give the figure, and `why` says why; `Nvml.open` says why there is
no library. Nothing here can fail.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass, field

LIBRARY, DRIVER = "libnvidia-ml.so.1", "libcuda.so.1"
_TEMPERATURE_GPU = 0
_CLOCKS = {"graphics": 0, "SM": 1, "memory": 2}
_MISSING = -1
_WORDS = {
    _MISSING: "this driver's NVML does not know it",
    1: "NVML was not started",
    3: "not supported on this GPU",
    4: "no permission",
    6: "not found",
    9: "the driver is not loaded",
    12: "the library is broken",
    13: "this driver's NVML does not know it",
    15: "the GPU is lost",
    16: "the GPU needs a reset",
    17: "the operating system has blocked the GPU",
}


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


@dataclass(frozen=True)
class Nvml:
    """An open library and one device in it."""

    library: ctypes.CDLL
    handle: ctypes.c_void_p
    failures: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def open(index: int = 0) -> tuple[Nvml | None, str]:
        """The device that CUDA numbers so, or None and the reason."""
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError:
            return None, f"no NVML ({LIBRARY} not found)"
        status = _call(library, "nvmlInit_v2")
        if status:
            return None, f"NVML does not start ({_words(status)})"
        handle = ctypes.c_void_p()
        # NVML counts all GPUs in the order of the bus; CUDA hides and reorders them as its environment says.
        place = _bus_place(index)
        if place is None:
            status = _call(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        else:
            status = _call(library, "nvmlDeviceGetHandleByPciBusId_v2", place, ctypes.byref(handle))
        if status:
            _call(library, "nvmlShutdown")
            return None, f"NVML has no device {index} ({_words(status)})"
        return Nvml(library, handle), ""

    def close(self) -> None:
        """Let the library go."""
        _call(self.library, "nvmlShutdown")

    def why(self, figure: str) -> str:
        """Why the figure was None when it was last asked for: "energy", "power", "clock", …"""
        return _words(self.failures.get(figure, 0))

    def clock(self, kind: str) -> int | None:
        """A current clock in MHz: "graphics", "SM" or "memory"."""
        return self._number("clock", "nvmlDeviceGetClockInfo", ctypes.c_uint(_CLOCKS[kind]))

    def max_clock(self, kind: str) -> int | None:
        """The highest clock in MHz."""
        return self._number("highest clock", "nvmlDeviceGetMaxClockInfo", ctypes.c_uint(_CLOCKS[kind]))

    def temperature(self) -> int | None:
        """Degrees Celsius."""
        return self._number("temperature", "nvmlDeviceGetTemperature", ctypes.c_uint(_TEMPERATURE_GPU))

    def milliwatts(self) -> int | None:
        """The current draw."""
        return self._number("power", "nvmlDeviceGetPowerUsage")

    def millijoules(self) -> int | None:
        """Energy since the driver was loaded."""
        return self._number("energy", "nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong)

    def throttle_reasons(self) -> int | None:
        """The bit mask of reasons for lowered clocks."""
        return self._number("throttling", "nvmlDeviceGetCurrentClocksThrottleReasons", kind=ctypes.c_ulonglong)

    def utilisation(self) -> int | None:
        """Percent of the recent past in which a kernel ran."""
        value = _Utilisation()
        return None if self._ask("utilisation", "nvmlDeviceGetUtilizationRates", value) else int(value.gpu)

    def used_bytes(self) -> int | None:
        """Device memory in use by all processes."""
        value = _Memory()
        return None if self._ask("memory", "nvmlDeviceGetMemoryInfo", value) else int(value.used)

    def _number(
        self,
        figure: str,
        name: str,
        *arguments: ctypes.c_uint,
        kind: type[ctypes.c_uint] | type[ctypes.c_ulonglong] = ctypes.c_uint,
    ) -> int | None:
        value = kind(0)
        return None if self._ask(figure, name, value, *arguments) else int(value.value)

    def _ask(self, figure: str, name: str, value: ctypes._CData, *arguments: ctypes.c_uint) -> int:
        status = _call(self.library, name, self.handle, *arguments, ctypes.byref(value))
        self.failures[figure] = status
        return status


def _call(library: ctypes.CDLL, name: str, *arguments: object) -> int:
    function = getattr(library, name, None)
    return _MISSING if function is None else int(function(*arguments))


def _words(status: int) -> str:
    return _WORDS.get(status, f"error {status}")


def _bus_place(index: int) -> bytes | None:
    """Where CUDA's device of this number is on the bus; None where the driver does not tell."""
    with contextlib.suppress(OSError, AttributeError):
        cuda = ctypes.CDLL(DRIVER)
        device, place = ctypes.c_int(), ctypes.create_string_buffer(32)
        if not (
            cuda.cuInit(0)
            or cuda.cuDeviceGet(ctypes.byref(device), index)
            or cuda.cuDeviceGetPCIBusId(place, len(place), device)
        ):
            return place.value
    return None
