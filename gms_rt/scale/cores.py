"""Cores of its own for each worker of a machine, where nobody gives them out.

Ray counts cores and does not say which. Without that OpenVINO's threads of two workers can be pinned to the same core.
So each worker locks a place in a folder of this machine; the lock ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gms_rt.artifacts import only_ours


@dataclass(frozen=True)
class CoreClaim:
    """Some cores that no other worker of this user has."""

    cores: tuple[int, ...]
    handle: int  # of the lock

    def release(self) -> None:
        """Let others have them."""
        os.close(self.handle)


def claim_cores(count: int, folder: Path | None = None) -> CoreClaim | None:
    """So many cores of this machine; None where all are taken, or the folder of locks cannot be had."""
    place = folder or Path(tempfile.gettempdir()) / f"gms-rt-cores-{os.getuid()}"
    usable = sorted(os.sched_getaffinity(0))
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        if place.is_symlink() or not only_ours(place.stat()):
            return None
        for first in range(0, len(usable) - count + 1, count):
            cores = tuple(usable[first : first + count])
            name = "-".join(map(str, cores))
            handle = os.open(place / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return CoreClaim(cores, handle)
            except OSError:
                os.close(handle)
    except OSError:
        return None
    return None
