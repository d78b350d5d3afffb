"""The pages of a TIFF: which there are, what their directories say, and one page as a small TIFF of its own.

Classic and BigTIFF, both byte orders. Everything is checked against the file's length, and directories that lead in a
circle end. A page of its own is what decoders are given: no other page is touched, and no decoder seeks.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gms_rt.errors import InputError

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, ORIENTATION, SAMPLES, STRIP_ROWS, STRIP_BYTES, PLANAR = 273, 274, 277, 278, 279, 284
PREDICTOR, PALETTE, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 317, 320, 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, SUBSAMPLING, DEPTH, TILE_DEPTH = 338, 339, 530, 32997, 32998
COMPRESSIONS = {
    1: "none", 2: "CCITT RLE", 3: "CCITT G3", 4: "CCITT G4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate",
    32771: "CCITT RLE", 32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG",
    34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 34933: "PNG", 50000: "Zstandard",
    50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_POINTERS = (330, 34665, 34853, 40965)  # directories elsewhere in the file, which a page of its own leaves behind
_REDUCED, _TRANSPARENCY_MASK = 1, 4
_MAX_PAGES, _MAX_TAGS = 100_000, 4096


@dataclass(frozen=True)
class TiffPage:
    """One directory: its entries as (type, count, raw value), and where it stands among the file's."""

    number: int  # from 0
    order: Literal["<", ">"]  # as struct and numpy say it
    big: bool
    entries: Mapping[int, tuple[int, int, bytes]]

    def values(self, tag: int, default: Sequence[int] = ()) -> tuple[int, ...]:
        """The integers of a tag."""
        kind, count, raw = self.entries.get(tag, (0, 0, b""))
        if kind not in _INTEGERS:
            return tuple(default)
        return struct.unpack(f"{self.order}{count}{_INTEGERS[kind]}", raw)

    def value(self, tag: int, default: int) -> int:
        """The first integer of a tag."""
        return (self.values(tag) or (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.value(WIDTH, 0), self.value(HEIGHT, 0)


def full_pages(data: bytes) -> list[TiffPage]:
    """The pages that are pictures: reduced copies and transparency masks are left out, unless there is nothing else."""
    pages = _pages(data)
    skipped = _REDUCED | _TRANSPARENCY_MASK
    return [page for page in pages if not page.value(SUBFILE, 0) & skipped] or pages[:1]


def _pages(data: bytes) -> list[TiffPage]:
    order: Literal["<", ">"] = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    place = _unpack(f"{order}Q", data, 8)[0] if big else _unpack(f"{order}I", data, 4)[0]
    pages: list[TiffPage] = []
    seen = set()
    while place and place not in seen:
        if len(pages) == _MAX_PAGES:
            raise InputError(f"has more than {_MAX_PAGES} pages")
        seen.add(place)
        entries, place = _directory(data, place, order, big)
        pages.append(TiffPage(len(pages), order, big, entries))
    if not pages:
        raise InputError("is a damaged TIFF (it has no page)")
    return pages


def _directory(data: bytes, place: int, order: str, big: bool) -> tuple[dict[int, tuple[int, int, bytes]], int]:
    count_code, entry_code, inline = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
    (count,) = _unpack(order + count_code, data, place)
    if count > _MAX_TAGS:
        raise InputError(f"is a damaged TIFF (a directory of {count} entries)")
    place += struct.calcsize(order + count_code)
    entries: dict[int, tuple[int, int, bytes]] = {}
    for _ in range(count):
        tag, kind, number = _unpack(order + entry_code, data, place)
        place += struct.calcsize(order + entry_code)
        length = _SIZES.get(kind, 0) * number
        start = place if length <= inline else _unpack(order + ("Q" if big else "I"), data, place)[0]
        if start + length <= len(data) and kind in _SIZES:
            entries.setdefault(tag, (kind, number, data[start : start + length]))
        place += inline
    # Writers that were stopped leave out the last pointer: there is no further page.
    link = data[place : place + inline]
    return entries, int.from_bytes(link, "little" if order == "<" else "big") if len(link) == inline else 0


def _unpack(form: str, data: bytes, place: int) -> tuple[int, ...]:
    if place + struct.calcsize(form) > len(data):
        raise InputError("is a damaged TIFF (it ends within a directory)")
    return struct.unpack_from(form, data, place)


def segments(data: bytes, page: TiffPage, least: int = 0) -> list[bytes]:
    """The strips or tiles of a page as they are stored, or `least` bytes of each where the directory says fewer."""
    tiled = TILE_OFFSETS in page.entries
    offsets = page.values(TILE_OFFSETS if tiled else STRIP_OFFSETS)
    lengths = page.values(TILE_BYTES if tiled else STRIP_BYTES)
    if not offsets:
        raise InputError("is a damaged TIFF (a page says nothing about where its pixels are)")
    if len(lengths) < len(offsets) or not all(lengths):  # some writers leave lengths out: up to what comes next
        ends = sorted({*offsets, len(data)})
        room = [next((end for end in ends if end > start), start) - start for start in offsets]
        stated = (*lengths, *[0] * len(offsets))
        lengths = tuple(length or free for length, free in zip(stated, room, strict=False))
    view = memoryview(data)
    return [bytes(view[start : start + max(length, least)]) for start, length in zip(offsets, lengths, strict=False)]


def page_as_file(data: bytes, page: TiffPage) -> bytes:
    """A classic TIFF that holds this page only, in the same byte order."""
    tiled = TILE_OFFSETS in page.entries
    kept = {tag: entry for tag, entry in page.entries.items() if tag not in _POINTERS}
    for tag, (kind, count, raw) in kept.items():
        if kind in (16, 17, 18) and tag not in (STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES):
            narrow = [min(value, 2**32 - 1) for value in struct.unpack(f"{page.order}{count}Q", raw)]
            kept[tag] = (4, count, struct.pack(f"{page.order}{count}I", *narrow))
    keys = (TILE_OFFSETS, TILE_BYTES) if tiled else (STRIP_OFFSETS, STRIP_BYTES)
    return _file(page.order, kept, keys, segments(data, page))


def strips_as_file(width: int, height: int, rows: int, tags: Mapping[int, int], parts: Sequence[bytes]) -> bytes:
    """A TIFF of 8-bit grey made of given strips of `rows` rows; `tags` such as the compression are added."""
    about = {WIDTH: width, HEIGHT: height, BITS: 8, PHOTOMETRIC: 1, SAMPLES: 1, STRIP_ROWS: rows, **tags}
    entries = {tag: (4, 1, struct.pack("<I", value)) for tag, value in about.items()}
    for tag in (BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES):
        if tag in about:
            entries[tag] = (3, 1, struct.pack("<H", about[tag]))
    return _file("<", entries, (STRIP_OFFSETS, STRIP_BYTES), parts)


def _file(
    order: str, entries: dict[int, tuple[int, int, bytes]], keys: tuple[int, int], parts: Sequence[bytes]
) -> bytes:
    """Header, pixels, long values, directory."""
    out = bytearray(struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 0))
    offsets = []
    for part in parts:
        offsets.append(len(out))
        out += part + b"\0" * (len(part) % 2)
    if len(out) + sum(len(raw) for _, _, raw in entries.values()) + (1 << 20) > 2**32:
        raise InputError("has a page of more than 4 GiB")
    entries = dict(entries)
    for tag, numbers in zip(keys, (offsets, [len(part) for part in parts]), strict=True):
        entries[tag] = (4, len(numbers), struct.pack(f"{order}{len(numbers)}I", *numbers))
    directory = struct.pack(f"{order}H", len(entries))
    for tag in sorted(entries):
        kind, count, raw = entries[tag]
        if len(raw) > 4:
            out += b"\0" * (len(out) % 2)
            field = struct.pack(f"{order}I", len(out))
            out += raw
        else:
            field = raw.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, kind, count) + field
    out += b"\0" * (len(out) % 2)
    out[4:8] = struct.pack(f"{order}I", len(out))
    return bytes(out + directory + b"\0\0\0\0")
