"""Small files that the kernel and the system keep below /proc, /sys and /etc. Nothing here can fail."""

from __future__ import annotations

from pathlib import Path


def kernel_text(path: Path) -> str | None:
    """What such a file says, without the blanks and NULs around it; None where it cannot be read or says nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except (OSError, TypeError):
        # TypeError is what Python makes of EAGAIN: a Jetson answers so for a sensor whose part is switched off.
        return None


def kernel_number(path: Path) -> int | None:
    """The whole number in such a file, None where there is none."""
    try:
        return int(kernel_text(path) or "")
    except ValueError:
        return None
