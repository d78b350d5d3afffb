"""Energy over timed rounds: tegrastats on Jetson, NVML on other NVIDIA GPUs, RAPL on processors that allow it.

The draw of the whole package, idle included, is counted: that is what the battery or the socket pays. A source that
is absent says why.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from gms_rt.bench.nvml import Nvml
from gms_rt.bench.results import Energy

# One rail per board generation carries the whole module: Orin and Thor, Xavier and Nano, TX2.
_RAILS = ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN", "VIN")
_TEGRA_MS = 100


class Meter(ABC):
    """Counts joules between `start` and `stop`, over any number of such spans."""

    source = ""

    def __init__(self) -> None:
        self.joules = 0.0
        self.seconds = 0.0
        self._began = 0.0

    def start(self) -> None:
        """Begin a span."""
        self._began = time.monotonic()
        self._start()

    def stop(self) -> None:
        """End a span and add its energy."""
        self.joules += self._stop()
        self.seconds += time.monotonic() - self._began

    def energy(self, images: int) -> Energy:
        """What the spans add up to, per image."""
        if self.joules <= 0 or self.seconds <= 0 or images < 1:
            return Energy(None, None, self.source, f"{self.source} delivered no reading in {self.seconds:.1f} s")
        return Energy(self.joules / images, self.joules / self.seconds, self.source)

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _stop(self) -> float: ...


class NvmlMeter(Meter):
    """The GPU's own energy counter."""

    source = "NVML energy counter (GPU board)"

    def __init__(self, nvml: Nvml) -> None:
        super().__init__()
        self.nvml = nvml
        self._first = 0

    def _start(self) -> None:
        self._first = self.nvml.millijoules() or 0

    def _stop(self) -> float:
        return max(0, (self.nvml.millijoules() or 0) - self._first) / 1000


class RaplMeter(Meter):
    """The processor packages' energy counters, which wrap around."""

    source = "RAPL (processor packages)"

    def __init__(self, zones: list[Path]) -> None:
        super().__init__()
        self.zones = zones
        self._first: list[int] = []

    def _start(self) -> None:
        self._first = [_number(zone / "energy_uj") for zone in self.zones]

    def _stop(self) -> float:
        total = 0
        for zone, first in zip(self.zones, self._first, strict=True):
            gone = _number(zone / "energy_uj") - first
            total += gone if gone >= 0 else gone + _number(zone / "max_energy_range_uj")
        return total / 1e6


class TegraMeter(Meter):
    """Power samples of tegrastats, the only source on Jetson, times the span."""

    source = "tegrastats (module input rail)"

    def __init__(self, tool: str) -> None:
        super().__init__()
        self.tool = tool
        self._process: subprocess.Popen[str] | None = None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [self.tool, "--interval", str(_TEGRA_MS)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def _stop(self) -> float:
        process = self._process
        if process is None:
            return 0.0
        process.terminate()
        try:
            output, _ = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        watts = [w for line in output.splitlines() if (w := tegra_watts(line)) is not None]
        return sum(watts) / len(watts) * (time.monotonic() - self._began) if watts else 0.0


def tegra_watts(line: str) -> float | None:
    """The module's draw in one line of tegrastats.

    >>> tegra_watts("RAM 2/7 CPU [1%@729] VDD_IN 5120mW/5000mW VDD_CPU 800mW/790mW")
    5.12
    >>> tegra_watts("RAM 2/7 POM_5V_IN 2500/2480 POM_5V_GPU 40/40")
    2.5
    """
    for rail in _RAILS:
        match = re.search(rf"\b{rail} (\d+)(?:mW)?/\d+", line)
        if match:
            return int(match[1]) / 1000
    return None


def meter(*, gpu: int | None, root: Path = Path("/")) -> tuple[Meter | None, str]:
    """The best meter for the device that computes, or None and the reason."""
    tegra = shutil.which("tegrastats")
    if tegra is not None:
        return TegraMeter(tegra), ""
    if gpu is not None:
        nvml, why = Nvml.open(gpu)
        if nvml is None:
            return None, why
        if nvml.millijoules() is not None:
            return NvmlMeter(nvml), ""
        nvml.close()
        return None, "this GPU's driver has no energy counter"
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:?"))
    if not zones:
        return None, "no energy counter: the kernel offers no RAPL (often so in virtual machines), and no tegrastats"
    try:
        for zone in zones:
            _number(zone / "energy_uj")
    except (OSError, ValueError):
        return None, "the kernel's energy counter (RAPL) can be read by root only"
    return RaplMeter(zones), ""


def _number(path: Path) -> int:
    return int(path.read_text())
