"""Energy of a processor from the kernel's RAPL counters, where they may be read."""

from __future__ import annotations

from pathlib import Path

from gms_rt.bench.energy import Meter


def rapl_meter(root: Path = Path("/")) -> tuple[RaplMeter | None, str]:
    """The meter of this processor, or None and the reason; `root` is where its kernel files are."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:?"))
    if not zones:
        return None, "no energy counter: the kernel offers no RAPL (often so in virtual machines), and no tegrastats"
    try:
        for zone in zones:
            _number(zone / "energy_uj")
    except (OSError, ValueError):
        return None, "the kernel's energy counter (RAPL) can be read by root only"
    return RaplMeter(zones), ""


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


def _number(path: Path) -> int:
    return int(path.read_text())
