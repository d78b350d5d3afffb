"""TensorRT's timing cache: measured times of kernels from earlier builds, so that a rebuild is quick.

It is no promise that a rebuild picks the same kernels: NVIDIA's users report that it may not, so a rebuilt plan is a
new engine, and is certified anew. One lies in each engine folder, next to the plans it explains and listed with its
hash, and a shared one per flavour, GPU, board and power mode in the user's cache folder. A cache of another version is
set aside, never an error.
"""

from __future__ import annotations

from pathlib import Path

from gms_rt.artifacts import write_bytes
from gms_rt.engine.manifest import read_manifest, read_verified
from gms_rt.engine.user_cache import cache_root
from gms_rt.errors import GmsError
from gms_rt.runtime.device import Machine, probe

TIMING_CACHE = "timing.cache"


def shared_path(flavour: str, version: str, sm: int, machine: Machine | None = None) -> Path:
    """The shared cache of a flavour, version and GPU; GPUs, boards and power modes of one SM measure other times."""
    here = machine or probe()
    gpu = next((gpu.name for gpu in here.gpus if gpu.sm == sm), "")
    measured = here.name if here.board else "-".join("".join(c if c.isalnum() else " " for c in gpu.lower()).split())
    return cache_root() / "timing" / f"{flavour}-{version}-sm{sm}{f'-{measured}' if measured else ''}.cache"


def read_timing_cache(place: Path) -> bytes:
    """A cache of the user's own, or nothing: TensorRT starts an empty one."""
    try:
        return place.read_bytes()
    except OSError:
        return b""


def timing_cache_from_engine(folder: Path, device: str | None = None) -> bytes:
    """The cache of an engine folder, or nothing where `engine.json` does not list its hash or it was changed.

    Nothing either where one of its plans was timed on another GPU or board, or in another power mode, than `device`.
    """
    try:
        manifest = read_manifest(folder)
        if any(plan.device not in (None, device) for plan in manifest.plans):
            return b""
        return read_verified(folder, manifest, TIMING_CACHE)
    except GmsError:
        return b""


def keep(place: Path, data: bytes) -> None:
    """Store a cache; a full or read-only cache folder costs speed later, not this build."""
    try:
        write_bytes(place, data)
    except (GmsError, OSError):
        return
