"""A Jetson GPU's clock, load and temperature from the kernel's files, for the figures that NVML does not give there.

The GPU stands in `sys/class/devfreq` under a name that differs between chips and JetPacks: `17000000.gv11b` (Xavier),
`17000000.ga10b` (Orin, JetPack 5), `17000000.gpu` (Orin, JetPack 6), `gpu-gpc-0` (Thor). Boards of other makers have
such files for GPUs that nothing here runs on. Nothing here can fail.
"""

from __future__ import annotations

import re
from pathlib import Path

from gms_rt.runtime.kernel_files import kernel_number, kernel_text

_GPU = re.compile(r"(?:[0-9a-f]+\.(?:gpu|g[a-z]\d\d[a-z])|gpu-gpc-0)")
LOCKED = "locked"


def board_gpu_readings(root: Path = Path("/")) -> dict[str, str]:
    """The figures that are there, under the names that a report uses for NVML's; none on other boards."""
    found: dict[str, str] = {}
    if "nvidia,tegra" not in (kernel_text(root / "proc/device-tree/compatible") or ""):
        return found
    for place in sorted((root / "sys/class/devfreq").glob("*")):
        if _GPU.fullmatch(place.name):
            _note(found, "GPU SM clock", _clock(place))
            _note(found, "GPU governor", kernel_text(place / "governor"))
            _note(found, "GPU utilisation", _load(root, place))
            break
    _note(found, "GPU temperature", zone_temperature(root, "gpu"))
    return found


def zone_temperature(root: Path, part: str) -> str | None:
    """The hottest thermal zone of a part; zones are called `gpu-thermal`, `GPU-therm` or `gpu_thermal`."""
    zones = [
        temperature
        for zone in (root / "sys/class/thermal").glob("thermal_zone*")
        if re.match(rf"{part}\d*[-_]", (kernel_text(zone / "type") or "").lower())
        and (temperature := plausible_temperature(zone)) is not None
    ]
    return f"{max(zones) / 1000:.0f} °C" if zones else None


def plausible_temperature(zone: Path) -> int | None:
    """A zone's reading in thousandths of a degree, None where it has none."""
    reading = kernel_number(zone / "temp")
    return reading if reading is not None and 0 < reading < 150_000 else None


def _clock(place: Path) -> str | None:
    now, low, top = (kernel_number(place / f"{name}_freq") for name in ("cur", "min", "max"))
    if now is None:
        return None
    limit = f" of {top / 1e6:.0f}" if top else ""
    if low is None or top is None:
        return f"{now / 1e6:.0f}{limit} MHz"
    return f"{now / 1e6:.0f}{limit} MHz, {LOCKED if low == top else f'not {LOCKED}'}"


def _load(root: Path, place: Path) -> str | None:
    """The load, which the kernel gives in thousandths, from the first of its places that can be read."""
    devices = root / "sys/devices"
    folders = (
        place / "device",
        devices / "platform/bus@0" / place.name,
        devices / "platform" / place.name,
        devices / place.name,
        devices / "platform/gpu.0",
        devices / "gpu.0",
    )
    loads = (kernel_number(folder / "load") for folder in folders)
    load = next((load for load in loads if load is not None), None)
    return None if load is None else f"{load / 10:.0f} %"


def _note(found: dict[str, str], name: str, reading: str | None) -> None:
    if reading is not None:
        found[name] = reading
