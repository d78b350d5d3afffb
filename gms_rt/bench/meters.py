"""Which meter counts the energy: tegrastats on Jetson, NVML on other NVIDIA GPUs, RAPL on processors that allow it."""

from __future__ import annotations

import shutil
from pathlib import Path

from gms_rt.bench.energy import Meter
from gms_rt.bench.nvml_energy import nvml_meter
from gms_rt.bench.rapl import rapl_meter
from gms_rt.bench.tegra import TegraMeter


def open_meter(*, gpu: int | None, root: Path = Path("/")) -> tuple[Meter | None, str]:
    """The best meter for the device that computes, or None and the reason."""
    tegra = shutil.which("tegrastats")
    if tegra is not None:
        return TegraMeter(tegra), ""
    return nvml_meter(gpu) if gpu is not None else rapl_meter(root)
