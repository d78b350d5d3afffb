"""The few figures of NVIDIA's management library that a report needs, through ctypes. Jetson boards lack them.

Every reader returns None where the driver does not support the figure; `Nvml.open` says why there is no library.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_TEMPERATURE_GPU = 0
_CLOCKS = {"graphics": 0, "SM": 1, "memory": 2}


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class _Utilisation(ctypes.Structure):
    _fields_ = [("gpu", ctypes.c_uint), ("memory", ctypes.c_uint)]


@dataclass(frozen=True)
class Nvml:
    """An open library and one device in it."""

    library: ctypes.CDLL
    handle: ctypes.c_void_p

    @staticmethod
    def open(index: int = 0) -> tuple[Nvml | None, str]:
        """The device, or None and the reason."""
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return None, "no NVML (libnvidia-ml.so.1 not found)"
        status = library.nvmlInit_v2()
        if status:
            return None, f"NVML does not start (error {status})"
        handle = ctypes.c_void_p()
        status = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle))
        if status:
            library.nvmlShutdown()
            return None, f"NVML has no device {index} (error {status})"
        return Nvml(library, handle), ""

    def close(self) -> None:
        """Let the library go."""
        self.library.nvmlShutdown()

    def clock(self, kind: str) -> int | None:
        """A current clock in MHz: "graphics", "SM" or "memory"."""
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint(_CLOCKS[kind]), kind=ctypes.c_uint)

    def max_clock(self, kind: str) -> int | None:
        """The highest clock in MHz."""
        return self._number("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(_CLOCKS[kind]), kind=ctypes.c_uint)

    def temperature(self) -> int | None:
        """Degrees Celsius."""
        return self._number("nvmlDeviceGetTemperature", ctypes.c_uint(_TEMPERATURE_GPU), kind=ctypes.c_uint)

    def milliwatts(self) -> int | None:
        """The current draw."""
        return self._number("nvmlDeviceGetPowerUsage", kind=ctypes.c_uint)

    def millijoules(self) -> int | None:
        """Energy since the driver was loaded."""
        return self._number("nvmlDeviceGetTotalEnergyConsumption", kind=ctypes.c_ulonglong)

    def throttle_reasons(self) -> int | None:
        """The bit mask of reasons for lowered clocks."""
        return self._number("nvmlDeviceGetCurrentClocksThrottleReasons", kind=ctypes.c_ulonglong)

    def utilisation(self) -> int | None:
        """Percent of the recent past in which a kernel ran."""
        value = _Utilisation()
        return None if self._ask("nvmlDeviceGetUtilizationRates", ctypes.byref(value)) else int(value.gpu)

    def used_bytes(self) -> int | None:
        """Device memory in use by all processes."""
        value = _Memory()
        return None if self._ask("nvmlDeviceGetMemoryInfo", ctypes.byref(value)) else int(value.used)

    def _number(
        self, name: str, *arguments: ctypes.c_uint, kind: type[ctypes.c_uint] | type[ctypes.c_ulonglong]
    ) -> int | None:
        value = kind(0)
        return None if self._ask(name, *arguments, ctypes.byref(value)) else int(value.value)

    def _ask(self, name: str, *arguments: object) -> int:
        function = getattr(self.library, name, None)
        return 1 if function is None else int(function(self.handle, *arguments))
