"""What every child process of a measurement needs: an environment that finds this package, and its peak memory."""

from __future__ import annotations

import os
from pathlib import Path


def child_environment() -> dict[str, str]:
    """An environment in which a child finds this very package, however it was put on the path."""
    here = str(Path(__file__).resolve().parents[2])
    paths = [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def peak_resident_bytes(process: int | None = None) -> int | None:
    """The most memory that a process (by default this one) held at once, or None where the kernel does not tell."""
    try:
        for line in Path(f"/proc/{process or 'self'}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
