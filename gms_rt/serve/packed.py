"""Zip archives from strangers: how many entries, how much they hold, where their names lead.

Everything that the archive says of itself is checked before anything is unpacked, and what comes out is counted again.
Names are only shown: no file on the disk is named by them. An archive in an archive is not opened.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from gms_rt.errors import InputError, TooLargeError
from gms_rt.serve.held import Held
from gms_rt.serve.limits import ServeLimits

ZIP = b"PK\x03\x04"
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x07"
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes before they unpack a byte
# What zipfile raises for what is no archive; an IndexError where an entry has no name.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, OSError, IndexError,
)  # fmt: skip
_NAME = 1024  # bytes of the directory for each entry, with its name


def unpack(data: bytes, limits: ServeLimits, held: Held) -> Iterator[tuple[str, bytes]]:
    """The files of an archive, one at a time: their names and contents. What macOS and others hide is left out.

    What they hold together is taken from what may be held before anything is unpacked.
    """
    _check_directory(data, limits)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            held.take(_check_entries(entries, limits))
            left = limits.max_unpacked
            for entry in entries:
                name = PurePosixPath(entry.filename)
                if any(part.startswith((".", "__MACOSX")) for part in name.parts):
                    continue
                with archive.open(entry) as stream:
                    content = stream.read(min(left, entry.file_size) + 1)
                if len(content) > min(left, entry.file_size):
                    raise TooLargeError("is an archive that holds more than it says")
                left -= len(content)
                yield entry.filename, content
    except _DAMAGED as error:
        raise InputError(f"is a damaged zip archive ({error})") from error
    except RuntimeError as error:  # a password is needed
        raise InputError(f"is a zip archive that cannot be opened ({error})") from error


def _check_directory(data: bytes, limits: ServeLimits) -> None:
    """Refuse an archive with a directory too large to be read, before it is read."""
    place = data.rfind(_END, max(0, len(data) - 65_557))
    if place < 0 or len(data) < place + 22:
        raise InputError("is a truncated zip archive (its directory is missing)")
    count, size = struct.unpack_from("<HI", data, place + 10)
    if data[max(0, place - 20) :].startswith(_END_64) or count == 0xFFFF:
        raise TooLargeError("is a zip archive of the large kind (zip64)", fix="send fewer files at a time")
    if size > limits.max_files * _NAME:
        raise TooLargeError(f"is an archive with a directory of {size >> 10} KiB", fix="send fewer files at a time")
    if count > limits.max_files:
        raise TooLargeError(f"is an archive of {count} files, the limit is {limits.max_files}")


def _check_entries(entries: list[zipfile.ZipInfo], limits: ServeLimits) -> int:
    """The bytes of all entries together, as the archive tells them."""
    if not entries:
        raise InputError("is an archive without files")
    if len(entries) > limits.max_files:
        raise TooLargeError(f"is an archive of {len(entries)} files, the limit is {limits.max_files}")
    total = sum(entry.file_size for entry in entries)
    if total > limits.max_unpacked:
        raise TooLargeError(
            f"is an archive of {total >> 20} MiB when unpacked, the limit is {limits.max_unpacked >> 20}"
        )
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or "\0" in entry.filename:
            raise InputError("is an archive with an entry that leads out of it", fix="pack the files again")
        if entry.flag_bits & 1:
            raise InputError("is an archive with a password", fix="pack the files without one")
        if entry.compress_type not in _KINDS:
            raise InputError("is an archive packed in a way that is not read", fix="pack it with deflate, as zip does")
    return total
