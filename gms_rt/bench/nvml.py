"""The few figures of NVIDIA's management library (NVML) that a report needs, through NVIDIA's own `nvidia-ml-py`.

A figure is None where the driver does not give it, and `why` says why; `open_nvml` says why there is no library: older
Jetson boards, and machines without NVIDIA's driver, have none. Nothing here can fail.
"""

from __future__ import annotations

import contextlib
from typing import Any

from gms_rt.runtime.device import probe

# By name: NVML's call, what it takes besides the device, and the part of its answer that counts.
FIGURES: dict[str, tuple[str, tuple[int, ...], str]] = {
    "SM clock": ("nvmlDeviceGetClockInfo", (1,), ""),  # MHz, as all clocks
    "highest SM clock": ("nvmlDeviceGetMaxClockInfo", (1,), ""),
    "memory clock": ("nvmlDeviceGetClockInfo", (2,), ""),
    "highest memory clock": ("nvmlDeviceGetMaxClockInfo", (2,), ""),
    "temperature": ("nvmlDeviceGetTemperature", (0,), ""),  # of the GPU itself, °C
    "power": ("nvmlDeviceGetPowerUsage", (), ""),  # milliwatts now
    "energy": ("nvmlDeviceGetTotalEnergyConsumption", (), ""),  # millijoules since the driver was loaded
    "utilisation": ("nvmlDeviceGetUtilizationRates", (), "gpu"),  # percent of the recent past in which a kernel ran
    "throttle reasons": ("nvmlDeviceGetCurrentClocksThrottleReasons", (), ""),  # bits
    "memory": ("nvmlDeviceGetMemoryInfo", (), "used"),  # bytes in use by all processes
}


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

    def read(self, figure: str) -> int | None:
        """A figure of `FIGURES` now."""
        call, arguments, field = FIGURES[figure]
        try:
            value = getattr(self._library, call)(self._device, *arguments)
        except (self._library.NVMLError, AttributeError) as error:  # a future nvidia-ml-py may drop an old call
            self._failures[figure] = str(error)
            return None
        return int(getattr(value, field) if field else value)

    def why(self, figure: str) -> str:
        """Why the figure was None when it was last read."""
        return self._failures.get(figure, "no error")
