"""In which state a device is: clocks, governor, power mode, temperature, and what else runs on it.

Two snapshots around a run become readings; what cannot be read says why. Nothing here can fail.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from gms_rt.bench.board_gpu import LOCKED, board_gpu_readings, plausible_temperature, zone_temperature
from gms_rt.bench.nvml import Nvml, open_nvml
from gms_rt.bench.results import DeviceReading, Load
from gms_rt.runtime.board import power_mode
from gms_rt.runtime.kernel_files import kernel_number, kernel_text

_CPU = Path("sys/devices/system/cpu")
OTHERS_LIMIT, STOLEN_LIMIT = 10.0, 2.0  # percent of all cores
_CLOCK_DROP = 0.05
_REASONS = "GPU throttle reasons"
# By NVML's bit: idle, what somebody has set, and what holds the clock down against everybody's wish.
_REASON_WORDS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "too warm",
    0x40: "too hot",
    0x80: "power brake",
    0x100: "display clock",
}
_HELD_DOWN = ("power cap", "hardware slowdown", "too warm", "too hot", "power brake")


@dataclass(frozen=True)
class Ticks:
    """Processor time so far, in clock ticks: of everything, of this process and all below it, and stolen."""

    wall: float
    busy: int
    own: float
    stolen: int
    total: int


@dataclass(frozen=True)
class Snapshot:
    """Readings at one moment: name to value, or to the reason it is absent."""

    values: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    ticks: Ticks | None = None
    gpu: bool = False  # whether a GPU is being timed


def snapshot(*, gpu: int | None = None, root: Path = Path("/")) -> Snapshot:
    """Look at the device now; `root` is where its kernel files are."""
    values: dict[str, str] = {}
    absent: dict[str, str] = {}
    for name, found, why in (
        ("CPU governor", _governor(root), "the kernel offers no frequency control (often so in virtual machines)"),
        ("CPU frequency", _frequency(root), "the kernel reports no frequency"),
        ("CPU temperature", _temperature(root), "the kernel lists no thermal zone"),
        ("load average", _load_average(root), "the kernel reports no load"),
        ("free memory", _free_memory(root), "the kernel reports no memory"),
        ("power mode", power_mode(root), "no nvpmodel tells one (Jetson boards have it)"),
    ):
        if found is None:
            absent[name] = why
        else:
            values[name] = found
    junction = zone_temperature(root, "tj")
    if junction is not None:  # the one by which a Jetson lowers its clocks
        values["junction temperature"] = junction
    _gpu_readings(gpu, root, values, absent)
    return Snapshot(values, absent, ticks(root), gpu is not None)


def readings(before: Snapshot, after: Snapshot) -> tuple[DeviceReading, ...]:
    """Both snapshots, side by side."""
    names = list(dict.fromkeys([*before.values, *after.values, *before.absent, *after.absent]))
    why = after.absent | before.absent
    return tuple(
        DeviceReading(name, before.values.get(name), after.values.get(name))
        if name in before.values or name in after.values
        else DeviceReading(name, None, None, why[name])
        for name in names
    )


def load_between(before: Snapshot, after: Snapshot) -> Load:
    """What other programs, and other guests of the same host, took in between."""
    first, last = before.ticks, after.ticks
    if first is None or last is None or last.total <= first.total:
        return Load(None, None, "the kernel's processor times cannot be read")
    total = last.total - first.total
    others = (last.busy - first.busy) - (last.own - first.own)
    stolen = last.stolen - first.stolen
    return Load(round(max(0.0, others) / total * 100, 1), round(stolen / total * 100, 1))


def warnings(before: Snapshot, after: Snapshot, load: Load) -> list[str]:
    """What a reader must know before trusting a latency."""
    lines = []
    if load.others is not None and load.others > OTHERS_LIMIT:
        lines.append(f"noisy machine: other programs used {load.others:.0f} % of the processor during the run")
    if load.stolen is not None and load.stolen > STOLEN_LIMIT:
        lines.append(f"noisy host: {load.stolen:.0f} % of the processor time went to other virtual machines")
    governor = before.values.get("CPU governor")
    if governor is not None and governor not in ("performance", "schedutil"):
        lines.append(f"the CPU governor is '{governor}': clocks may change during the run")
    if before.gpu and f"not {LOCKED}" in before.values.get("GPU SM clock", ""):
        lines.append("the GPU's clock is not locked and may change during the run: sudo jetson_clocks locks it")
    held = [word for word in _HELD_DOWN if word in after.values.get(_REASONS, "")]
    if held:
        lines.append(f"the GPU's clock was held down at the end of the run: {', '.join(held)}")
    for name in ("CPU frequency", "GPU SM clock"):
        first, last = _leading(before.values.get(name)), _leading(after.values.get(name))
        if first and last and last < first * (1 - _CLOCK_DROP):
            lines.append(f"{name} fell from {first:.0f} to {last:.0f} MHz during the run")
    return lines


def ticks(root: Path = Path("/")) -> Ticks | None:
    """Processor time so far, or None where the kernel does not tell."""
    try:
        first = (root / "proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, idle, wait, irq, soft, steal = (int(n) for n in first[1:9])
    except (OSError, ValueError):
        return None
    busy = user + nice + system + irq + soft
    return Ticks(time.monotonic(), busy, _own(root), steal, busy + idle + wait + steal)


def _own(root: Path) -> float:
    """The time of this process, of the processes below it that live (peers), and of those that have ended.

    A process counts its own time and that of the children it has waited for, so one that ends between two readings
    only moves from its own line to its parent's.
    """
    parents: dict[int, list[int]] = {}
    spent: dict[int, int] = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # it may end while it is read
            # The name may hold spaces and brackets; what follows its last bracket is regular.
            fields = path.read_text().rpartition(")")[2].split()
            process = int(path.parent.name)
            parents.setdefault(int(fields[1]), []).append(process)
            spent[process] = sum(int(field) for field in fields[11:15])
    if os.getpid() not in spent:
        times = os.times()
        seconds = times.user + times.system + times.children_user + times.children_system
        return seconds * os.sysconf("SC_CLK_TCK")
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        total += spent[process]
        waiting += parents.get(process, ())
    return total


def _governor(root: Path) -> str | None:
    found = {g for p in sorted((root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_governor")) if (g := kernel_text(p))}
    return ", ".join(sorted(found)) or None


def _frequency(root: Path) -> str | None:
    clocks = (kernel_number(p) for p in (root / _CPU).glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    numbers = [clock / 1000 for clock in clocks if clock]
    if not numbers:
        info = kernel_text(root / "proc/cpuinfo") or ""
        for line in info.splitlines():
            if line.lower().startswith("cpu mhz"):
                with contextlib.suppress(ValueError):
                    numbers.append(float(line.partition(":")[2]))
    if not numbers:
        return None
    top = kernel_number(root / _CPU / "cpu0/cpufreq/cpuinfo_max_freq")
    limit = f" of {top / 1000:.0f}" if top else ""
    return f"{sum(numbers) / len(numbers):.0f}{limit} MHz"


def _temperature(root: Path) -> str | None:
    """The processor's own zones; where none is named so, the hottest that is not another part's."""
    own = zone_temperature(root, "cpu")
    if own is not None:
        return own
    # A PMIC's zone always says 100 °C.
    zones = [
        reading
        for zone in (root / "sys/class/thermal").glob("thermal_zone*")
        if not (kernel_text(zone / "type") or "").lower().startswith(("pmic", "gpu"))
        and (reading := plausible_temperature(zone)) is not None
    ]
    return f"{max(zones) / 1000:.0f} °C" if zones else None


def _load_average(root: Path) -> str | None:
    text = kernel_text(root / "proc/loadavg")
    return " ".join(text.split()[:3]) if text else None


def _free_memory(root: Path) -> str | None:
    for line in (kernel_text(root / "proc/meminfo") or "").splitlines():
        found = re.match(r"MemAvailable:\s*(\d+) kB", line)
        if found:
            return f"{int(found[1]) / 1048576:.1f} GiB"
    return None


def _gpu_readings(index: int | None, root: Path, values: dict[str, str], absent: dict[str, str]) -> None:
    """NVML's figures, and the kernel's for those that NVML does not give."""
    nvml, why = open_nvml(index or 0)
    kernel = board_gpu_readings(root)
    if nvml is None:
        values |= kernel
        if not kernel:
            absent["GPU clocks, temperature and power"] = why
        return
    try:
        _nvml_readings(nvml, values, absent)
    finally:
        nvml.close()
    for name, reading in kernel.items():
        if values.setdefault(name, reading) is reading:
            absent.pop(name, None)


def _nvml_readings(nvml: Nvml, values: dict[str, str], absent: dict[str, str]) -> None:
    for figure, unit, scale in (
        ("SM clock", "MHz", 1),
        ("memory clock", "MHz", 1),
        ("temperature", "°C", 1),
        ("power", "W", 1000),
        ("utilisation", "%", 1),
    ):
        now, top = nvml.read(figure), nvml.read(f"highest {figure}") if unit == "MHz" else None
        if now is None:
            absent[f"GPU {figure}"] = f"the driver does not report it: {nvml.why(figure)}"
        else:
            values[f"GPU {figure}"] = f"{now / scale:.0f}{f' of {top}' if top else ''} {unit}"
    reasons = nvml.read("throttle reasons")
    if reasons is not None:
        values[_REASONS] = throttle_text(reasons)


def throttle_text(bits: int) -> str:
    """NVML's reasons for a clock below the highest, in words.

    >>> throttle_text(0x44)
    'power cap, too hot (0x44)'
    """
    words = [word for bit, word in _REASON_WORDS.items() if bits & bit]
    return f"{', '.join(words) or 'others'} (0x{bits:x})" if bits else "none"


def _leading(text: str | None) -> float | None:
    try:
        return float((text or "").split()[0])
    except (IndexError, ValueError):
        return None
