"""Frame times of an MP4 file, set after it was written at a constant rate, so that variable rates stay as they were.

An MP4 keeps the duration of each frame in a table of its header (`stts`), apart from the pictures. OpenCV writes the
header behind the pictures, so that it can grow without moving them. A file of another build is left as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path

_SCALE = 90_000  # parts of a second; MPEG's own clock
_HEAD = struct.Struct(">I4s")
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")


def set_frame_times(path: Path, times: Sequence[float], last: float) -> bool:
    """Let frames begin at `times` (seconds, rising, from the first one on) and the last one stay for `last` seconds.

    Returns whether it was done.
    """
    data = path.read_bytes() if path.stat().st_size < 1 << 31 else b""
    boxes = {kind: (start, size) for kind, start, size in _boxes(data, 0, len(data))}
    moov, mdat = boxes.get(b"moov"), boxes.get(b"mdat")
    if not times or moov is None or mdat is None or moov[0] < mdat[0]:
        return False
    ticks = [round((time - times[0]) * _SCALE) for time in times]
    ticks.append(ticks[-1] + max(1, round(last * _SCALE)))
    lengths = [after - before for before, after in pairwise(ticks)]
    header = data[moov[0] : moov[0] + moov[1]]
    if min(lengths) < 1 or ticks[-1] >= 1 << 32 or not _is_plain(header, len(times)):
        return False
    changed = _rebuilt(header, lengths, ticks[-1])
    with path.open("r+b") as stream:
        stream.seek(moov[0])
        stream.write(changed + data[moov[0] + moov[1] :])
        stream.truncate()
    return True


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, place and whole size of the boxes in a part of a file; it ends where sizes make no sense."""
    while start + 8 <= end:
        size, kind = _HEAD.unpack_from(data, start)
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
        if size < 8 or start + size > end:
            return
        yield kind, start, size
        start += size


def _all_boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for kind, place, size in _boxes(data, start, end):
        yield kind, place, size
        if kind in _PARENTS:
            yield from _all_boxes(data, place + 8, place + size)


def _is_plain(header: bytes, count: int) -> bool:
    """One track whose frames are shown in the order in which they are stored, with short headers."""
    found = list(_all_boxes(header, 0, len(header)))
    kinds = [kind for kind, _, _ in found]
    places = {kind: place for kind, place, _ in found}
    needed = (b"mvhd", b"tkhd", b"mdhd", b"stts", b"stsz")
    if any(kinds.count(kind) != 1 for kind in needed) or b"ctts" in kinds:
        return False
    if any(header[places[kind] + 8] for kind in needed):  # versions with 64-bit times
        return False
    return bool(struct.unpack_from(">I", header, places[b"stsz"] + 16)[0] == count)


def _rebuilt(data: bytes, lengths: list[int], total: int) -> bytes:
    """Boxes with the durations of frames put in, and those of the track and of the whole to match."""
    out = b""
    for kind, place, size in _boxes(data, 0, len(data)):
        body = bytearray(data[place + 8 : place + size])
        if kind in _PARENTS:
            body = bytearray(_rebuilt(bytes(body), lengths, total))
        elif kind in (b"mdhd", b"mvhd"):
            struct.pack_into(">II", body, 12, _SCALE, total)
        elif kind == b"tkhd":
            struct.pack_into(">I", body, 20, total)
        elif kind == b"stts":
            runs = [(len(list(same)), length) for length, same in groupby(lengths)]
            body = bytearray(struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *run) for run in runs))
        if kind != b"edts":  # that one says only where the track begins, which is at its beginning
            out += _HEAD.pack(8 + len(body), kind) + body
    return out
