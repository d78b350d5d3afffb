"""TensorRT's timing cache: the measured kernel choices of earlier builds, so that a rebuild picks the same.

One lies in each engine folder, next to the plans it explains, and a shared one per flavour and SM in the user's cache
folder. A cache of another version or device is set aside, never an error.
"""

from __future__ import annotations

from pathlib import Path

from gms_rt.artifacts import write_bytes
from gms_rt.engine.user_cache import cache_root
from gms_rt.errors import GmsError

TIMING_CACHE = "timing.cache"


def shared_path(flavour: str, version: str, sm: int) -> Path:
    """The shared cache of a flavour, version and SM."""
    return cache_root() / "timing" / f"{flavour}-{version}-sm{sm}.cache"


def read_timing_cache(*places: Path) -> bytes:
    """The first of some caches that exists, else nothing: TensorRT starts an empty one."""
    for place in places:
        try:
            return place.read_bytes()
        except OSError:
            continue
    return b""


def keep(place: Path, data: bytes) -> None:
    """Store a cache; a full or read-only cache folder costs speed later, not this build."""
    try:
        write_bytes(place, data)
    except (GmsError, OSError):
        return
