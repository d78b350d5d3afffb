"""Energy of an NVIDIA GPU from its own counter, or from samples of its draw where the driver has no counter."""

from __future__ import annotations

from gms_rt.bench.energy import Meter, PowerMeter
from gms_rt.bench.nvml import Nvml, open_nvml

_SAMPLE_SECONDS = 0.02


def nvml_meter(gpu: int) -> tuple[Meter | None, str]:
    """The better of both meters for CUDA's device of this number, or None and the reason."""
    nvml, why = open_nvml(gpu)
    if nvml is None:
        return None, why
    if nvml.read("energy") is not None:
        return NvmlMeter(nvml), ""
    if nvml.read("power") is not None:
        return NvmlPowerMeter(nvml), ""
    reasons = f"energy counter: {nvml.why('energy')}; power: {nvml.why('power')}"
    nvml.close()
    return None, f"this GPU's driver reports neither energy nor power ({reasons})"


class NvmlMeter(Meter):
    """The GPU's own energy counter."""

    source = "NVML energy counter (GPU board)"

    def __init__(self, nvml: Nvml) -> None:
        super().__init__()
        self.nvml = nvml
        self._first: int | None = None

    def close(self) -> None:
        """Close NVML."""
        self.nvml.close()

    def _begin(self) -> None:
        self._first = self.nvml.read("energy")

    def _joules(self, start: float, end: float) -> float | None:
        last = self.nvml.read("energy")
        if self._first is None or last is None:
            self.trouble = f"the counter cannot be read ({self.nvml.why('energy')})"
            return None
        if last < self._first:
            self.trouble = "the counter went back: the driver was loaded again"
            return None
        return (last - self._first) / 1000


class NvmlPowerMeter(PowerMeter):
    """Samples of the GPU's draw, for drivers without an energy counter."""

    source = "NVML power samples (GPU board)"

    def __init__(self, nvml: Nvml) -> None:
        super().__init__()
        self.nvml = nvml

    def close(self) -> None:
        """End the thread and close NVML."""
        super().close()
        self.nvml.close()

    def _collect(self) -> None:
        while not self._ended.is_set():
            milliwatts = self.nvml.read("power")
            if milliwatts is None:
                self.trouble = f"the draw cannot be read ({self.nvml.why('power')})"
                return
            self._note(milliwatts / 1000)
            self._ended.wait(_SAMPLE_SECONDS)
