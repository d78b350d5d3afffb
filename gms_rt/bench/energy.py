"""Energy over timed rounds: tegrastats on Jetson, NVML on other NVIDIA GPUs, RAPL on processors that allow it.

The draw of the whole package, idle included, is counted: that is what the battery or the socket pays. The draw while
nothing runs stands beside it. A source that is absent, or falls silent, says why.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gms_rt.bench.nvml import Nvml
from gms_rt.bench.results import Energy
from gms_rt.bench.tegra import module_rails, module_watts

_TEGRA_MS = 100
_NVML_SECONDS = 0.02
IDLE_SECONDS = 1.0
_FIRST_SECONDS = 3.0

Samples = list[tuple[float, float]]


class Meter(ABC):
    """Measures joules between `start` and `stop`, one span after the other; `close` lets its source go.

    `trouble` says why a span had no reading, and is empty as long as all had one.
    """

    source = ""

    def __init__(self) -> None:
        self.trouble = ""
        self._began = 0.0

    def start(self) -> None:
        """Begin a span."""
        self._begin()
        self._began = time.monotonic()

    def stop(self) -> tuple[float, float]:
        """End a span: its joules and seconds, zero where there was no reading."""
        end = time.monotonic()
        joules = self._joules(self._began, end)
        if joules is None:
            self.trouble = self.trouble or "no reading"
            return 0.0, 0.0
        return joules, end - self._began

    def close(self) -> None:
        """Let the source go; a second call does nothing."""
        return

    def _begin(self) -> None:
        """Make ready for a span."""
        return

    @abstractmethod
    def _joules(self, start: float, end: float) -> float | None: ...


@dataclass
class Account:
    """What one engine or peer draws from the meter that all share."""

    meter: Meter | None
    why: str = ""
    joules: float = 0.0
    seconds: float = 0.0

    @contextlib.contextmanager
    def span(self) -> Iterator[None]:
        """Book what is drawn within."""
        if self.meter is None:
            yield
            return
        self.meter.start()
        try:
            yield
        finally:
            joules, seconds = self.meter.stop()
            self.joules += joules
            self.seconds += seconds

    @property
    def watts(self) -> float | None:
        """The mean draw, or None without a reading."""
        return self.joules / self.seconds if self.joules > 0 and self.seconds > 0 else None

    def energy(self, images: int, idle: Account | None = None) -> Energy:
        """Joules an image, and beside it the draw while nothing ran; a span without a reading makes it worthless."""
        if self.meter is None:
            return Energy(None, None, "", self.why)
        if self.meter.trouble or self.watts is None or images < 1:
            why = self.meter.trouble or "no reading"
            return Energy(None, None, self.meter.source, f"{self.meter.source}: {why}")
        still = idle.watts if idle else None
        why = "" if still is not None else "idle draw: no reading"
        return Energy(self.joules / images, self.watts, self.meter.source, why, still)


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
        self._first = self.nvml.millijoules()

    def _joules(self, start: float, end: float) -> float | None:
        last = self.nvml.millijoules()
        if self._first is None or last is None:
            self.trouble = f"the counter cannot be read ({self.nvml.why('energy')})"
            return None
        if last < self._first:
            self.trouble = "the counter went back: the driver was loaded again"
            return None
        return (last - self._first) / 1000


class RaplMeter(Meter):
    """The processor packages' energy counters, which wrap around."""

    source = "RAPL (processor packages)"

    def __init__(self, zones: list[Path]) -> None:
        super().__init__()
        self.zones = zones
        self._first: list[int] = []

    def _begin(self) -> None:
        try:
            self._first = [_number(zone / "energy_uj") for zone in self.zones]
        except (OSError, ValueError):
            self._first = []

    def _joules(self, start: float, end: float) -> float | None:
        total = 0
        try:
            for zone, first in zip(self.zones, self._first, strict=True):
                gone = _number(zone / "energy_uj") - first
                total += gone if gone >= 0 else gone + _number(zone / "max_energy_range_uj")
        except (OSError, ValueError):
            self.trouble = "the counter cannot be read any more"
            return None
        return total / 1e6


class PowerMeter(Meter):
    """Integrates samples of the draw, which a thread collects from the first span on."""

    def __init__(self) -> None:
        super().__init__()
        self.samples: Samples = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._collect, daemon=True)
            self._thread.start()
            # The first reading takes a moment; without it the first span would begin in the dark.
            deadline = time.monotonic() + _FIRST_SECONDS
            while not self.samples and self._thread.is_alive() and time.monotonic() < deadline:
                time.sleep(0.005)

    def _joules(self, start: float, end: float) -> float | None:
        return integral(self.samples, start, end)

    def _note(self, watts: float) -> None:
        self.samples.append((time.monotonic(), watts))

    @abstractmethod
    def _collect(self) -> None: ...


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
            milliwatts = self.nvml.milliwatts()
            if milliwatts is None:
                self.trouble = f"the draw cannot be read ({self.nvml.why('power')})"
                return
            self._note(milliwatts / 1000)
            self._ended.wait(_NVML_SECONDS)


class TegraMeter(PowerMeter):
    """Samples of tegrastats, the only source on Jetson."""

    source = "tegrastats (module)"

    def __init__(self, tool: str) -> None:
        super().__init__()
        self.tool = tool
        self._process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """End tegrastats and the thread."""
        self._ended.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        super().close()

    def _collect(self) -> None:
        command = [self.tool, "--interval", str(_TEGRA_MS)]
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except OSError as error:
            self.trouble = f"it cannot be started ({error.strerror})"
            return
        self._process = process
        last = ""
        with process:
            for line in process.stdout or ():
                last = line.strip() or last
                watts = module_watts(line)
                if watts is not None:
                    self.source = f"tegrastats ({' + '.join(module_rails(line))})"
                    self._note(watts)
        if not self._ended.is_set():
            self.trouble = f"it ended with status {process.returncode} ({last[-80:] or 'no word'})"
        elif not self.samples:
            self.trouble = "no line names the module's rails"


def integral(samples: Sequence[tuple[float, float]], start: float, end: float) -> float | None:
    """Joules from `start` to `end` of a draw that goes straight from sample to sample; None without a sample near.

    >>> integral([(0.0, 4.0), (1.0, 6.0), (2.0, 6.0)], 0.5, 2.5)
    11.75
    """
    # A sample tells of the time around it, not of a time long past.
    near = [s for s in samples if start - 1.0 <= s[0] <= end + 1.0]
    if not near or end <= start:
        return None

    def at(moment: float) -> float:
        before = [s for s in near if s[0] <= moment]
        after = [s for s in near if s[0] > moment]
        if not before or not after:
            return (before[-1] if before else after[0])[1]
        (t0, w0), (t1, w1) = before[-1], after[0]
        return w0 + (w1 - w0) * (moment - t0) / (t1 - t0)

    points = [(start, at(start)), *(s for s in near if start < s[0] < end), (end, at(end))]
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))


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
        if nvml.milliwatts() is not None:
            return NvmlPowerMeter(nvml), ""
        reasons = f"energy counter: {nvml.why('energy')}; power: {nvml.why('power')}"
        nvml.close()
        return None, f"this GPU's driver tells neither energy nor power ({reasons})"
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
