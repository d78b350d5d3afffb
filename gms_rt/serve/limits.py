"""The bounds of one service. Each is checked before what it bounds costs anything."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gms_rt.errors import UsageError

_MIB = 1 << 20


@dataclass(frozen=True)
class ServeLimits:
    """What one service takes. The defaults fit a machine with 4 GiB."""

    requests: int = 64  # taken and not yet answered; more get 429
    images: int = 64  # prepared and waiting for one engine
    timeout: float = 30.0  # seconds within which a request is answered or dropped
    max_bytes: int = 256 * _MIB  # of one request's body
    all_bytes: int = 1024 * _MIB  # of all bodies that are held at the same time; more get 429
    max_pixels: int = 25_000_000  # of one image, told by its header
    max_frames: int = 2000  # of one request: slices, pages, pictures
    max_files: int = 2000  # of one request: parts of a form, entries of an archive
    max_unpacked: int = 1024 * _MIB  # of what an archive says it holds, and of what it really holds
    max_answer: int = 512 * _MIB  # of the results that are held for one answer
    body_seconds: float = 30.0  # a body that stands still for as long is given up
    header_seconds: float = 10.0  # in which the head of a request must be there
    header_bytes: int = 16 * 1024  # of the head of a request
    connections: int = 512  # open at the same time
    workers: int = 0  # threads that decode and write; 0 is twice what the engines work on at a time, four at least
    batch_wait: float = 0.0  # seconds that an engine of several images per inference waits for more to come
    shelf_bytes: int = 512 * _MIB  # of scans that clients upload first and ask about later
    shelf_seconds: float = 1800.0  # for which those are held after the last question

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            lowest = 0 if field.name in ("workers", "batch_wait") else 1 if isinstance(value, int) else 1e-3
            if not value >= lowest:
                option = field.name.replace("_", "-")
                raise UsageError(f"{value} is less than {lowest}", where=f"--{option}")
