"""The few figures of NVIDIA's management library (NVML) that a report needs, through NVIDIA's own `nvidia-ml-py`.

Every reader returns None where the driver does not give the figure, and `why` says why; `open_nvml` says why there is
no library: older Jetson boards, and machines without NVIDIA's driver, have none. Nothing here can fail.
"""

from __future__ import annotations

import contextlib
from typing import Any

from gms_rt.runtime.device import probe

_CLOCKS = {"SM": 1, "memory": 2}
_TEMPERATURE_GPU = 0


def open_nvml(index: int = 0) -> tuple[Nvml | None, str]:
    """The device that CUDA numbers so, or None and the reason."""
    try:
        import pynvml
    except ImportError:
        return None, "no NVML (nvidia-ml-py is not installed)"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        missing = error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        return None, "no NVML (libnvidia-ml.so.1 not found)" if missing else f"NVML does not start ({error})"
    # NVML counts all GPUs in the order of the bus; CUDA hides and reorders them as its environment says.
    place = next((gpu.bus for gpu in probe().gpus if gpu.index == index), None)
    try:
        if place is None:
            return Nvml(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)), ""
        return Nvml(pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(place.encode())), ""
    except pynvml.NVMLError as error:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
        return None, f"NVML has no device {index} ({error})"


class Nvml:
    """The started library and one device in it."""

    def __init__(self, library: Any, device: Any) -> None:
        self._library, self._device = library, device
        self._failures: dict[str, str] = {}

    def close(self) -> None:
        """Let the library go."""
        with contextlib.suppress(self._library.NVMLError):
            self._library.nvmlShutdown()

    def why(self, figure: str) -> str:
        """Why the figure was None when it was last asked for: "energy", "power", "clock", …"""
        return self._failures.get(figure, "no error")

    def clock(self, kind: str) -> int | None:
        """A current clock in MHz: "SM" or "memory"."""
        return self._number("clock", "nvmlDeviceGetClockInfo", _CLOCKS[kind])

    def max_clock(self, kind: str) -> int | None:
        """The highest clock in MHz."""
        return self._number("highest clock", "nvmlDeviceGetMaxClockInfo", _CLOCKS[kind])

    def temperature(self) -> int | None:
        """Degrees Celsius."""
        return self._number("temperature", "nvmlDeviceGetTemperature", _TEMPERATURE_GPU)

    def milliwatts(self) -> int | None:
        """The current draw."""
        return self._number("power", "nvmlDeviceGetPowerUsage")

    def millijoules(self) -> int | None:
        """Energy since the driver was loaded."""
        return self._number("energy", "nvmlDeviceGetTotalEnergyConsumption")

    def throttle_reasons(self) -> int | None:
        """The bit mask of reasons for lowered clocks."""
        return self._number("throttling", "nvmlDeviceGetCurrentClocksThrottleReasons")

    def utilisation(self) -> int | None:
        """Percent of the recent past in which a kernel ran."""
        value = self._ask("utilisation", "nvmlDeviceGetUtilizationRates")
        return None if value is None else int(value.gpu)

    def used_bytes(self) -> int | None:
        """Device memory in use by all processes."""
        value = self._ask("memory", "nvmlDeviceGetMemoryInfo")
        return None if value is None else int(value.used)

    def _number(self, figure: str, name: str, *arguments: int) -> int | None:
        value = self._ask(figure, name, *arguments)
        return None if value is None else int(value)

    def _ask(self, figure: str, name: str, *arguments: int) -> Any:
        try:
            return getattr(self._library, name)(self._device, *arguments)
        except (self._library.NVMLError, AttributeError) as error:  # a future nvidia-ml-py may drop an old call
            self._failures[figure] = str(error)
            return None
