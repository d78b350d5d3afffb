"""Jetson boards as folders, and the machines that gms-rt makes of them."""

from __future__ import annotations

from pathlib import Path

from gms_rt.runtime.board import board_from_files
from gms_rt.runtime.device import Gpu, Machine, cpu_from_files, probe

BOARDS = Path(__file__).parents[1] / "fixtures/jetson"
AGX_ORIN, ORIN_NANO = BOARDS / "agx-orin-jetpack6", BOARDS / "orin-nano-jetpack6"
OLD_ORIN_NANO, XAVIER, THOR = (
    BOARDS / name for name in ("orin-nano-jetpack5", "agx-xavier-jetpack5", "agx-thor-jetpack7")
)


def machine_from_files(root: Path, *gpus: Gpu) -> Machine:
    """What `probe` would find on such a board, with "Orin" as its GPU unless others are given."""
    found = gpus or (Gpu(0, "Orin", 87, 2**33, integrated=True),)
    return Machine(cpu_from_files(root), found, "12.6", "", dict.fromkeys(probe().packages), board_from_files(root))
