"""Many files that become whole and durable together: one wait for the disk for a group, not one for each file.

Each file is written next to its final place. A group is then synced as a whole, every file takes its name in one step,
and the folders are synced. Only after that may anyone say that the files are there; a kill or a power cut before leaves
the old files or none, and temporary ones that the next run sweeps away.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gms_rt.artifacts import make_folder, sync_path

# File systems on which `syncfs` is a promise about the disk; what others, such as network ones, make of it is not sure.
_MAGIC = {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994, 0x794C7630}  # ext, xfs, btrfs, f2fs, tmpfs, overlay
_FEWEST = 3  # files for which a sync of the file system is worth more than one of each
_FOREIGN = 64 << 20  # bytes that wait to be written, also by others: above this, waiting for all of them costs more
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class PartFile:
    """A file that is written, and not yet in its place."""

    part: str  # where it is
    final: str  # where it goes
    size: int

    def discard(self) -> None:
        """Remove it."""
        with suppress(OSError):
            os.unlink(self.part)  # noqa: PTH108 (a Path costs as much as the call)


def part_from_bytes(final: Path, data: bytes) -> PartFile:
    """Write bytes next to their final place, where `commit_parts` takes them from."""
    name = str(final)
    folder, slash, base = name.rpartition("/")
    ending = base[base.rfind(".") :] if "." in base else ""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    made_folder = False
    while True:
        part = f"{folder}{slash}.part-{os.getpid():x}-{next(_NUMBERS):x}{ending}"
        try:
            handle = os.open(part, flags, 0o666)
            break
        except FileExistsError:  # of a killed process with the same number
            continue
        except FileNotFoundError:
            if made_folder:
                raise
            make_folder(Path(folder))  # another thread may have made it since
            made_folder = True
    made = PartFile(part, name, len(data))
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
    except BaseException:
        made.discard()
        raise
    finally:
        os.close(handle)
    return made


def commit_parts(parts: Sequence[PartFile]) -> dict[PartFile, OSError]:
    """Make written files durable and give them their names; those that could not take theirs, and why.

    An error of the disk itself is raised, and no file takes its name.
    """
    if not parts:
        return {}
    _sync_parts(parts)
    failed: dict[PartFile, OSError] = {}
    folders: dict[str, None] = {}
    for each in parts:
        try:
            os.replace(each.part, each.final)  # noqa: PTH105 (a Path costs as much as the call)
            folders[each.final.rpartition("/")[0]] = None
        except OSError as error:
            failed[each] = error
            each.discard()
    for folder in folders:
        sync_path(Path(folder))
    return failed


def _sync_parts(parts: Sequence[PartFile]) -> None:
    """Wait until the disk has the bytes of all these files."""
    syncfs = _syncfs() if len(parts) >= _FEWEST else None
    if syncfs is not None:
        handle = os.open(parts[0].part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _keeps_promise(handle) and _unwritten_bytes() <= _FOREIGN + sum(each.size for each in parts):
                if syncfs(handle) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code), parts[0].final)
                return
        finally:
            os.close(handle)
    for each in parts:
        sync_path(Path(each.part))


def _unwritten_bytes() -> int:
    """What waits to be written to all disks."""
    with suppress(OSError), open("/proc/meminfo", "rb") as stream:  # noqa: PTH123 (once for each group)
        if found := re.search(rb"^Dirty:\s+(\d+) kB", stream.read(), re.MULTILINE):
            return int(found[1]) << 10
    return 1 << 62


def _keeps_promise(handle: int) -> bool:
    """Whether a file lies on one of the file systems that `syncfs` is used on."""
    about = (ctypes.c_long * 64)()  # a struct statfs is smaller on every platform, and begins with the type
    return ctypes.CDLL(None).fstatfs(handle, about) == 0 and about[0] & 0xFFFFFFFF in _MAGIC


@functools.lru_cache(maxsize=1)
def _syncfs() -> ctypes._NamedFuncPointer | None:
    """The C library's function, where the kernel makes it report errors of writing (Linux 5.8 and later)."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if release is None or (int(release[1]), int(release[2])) < (5, 8):
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int,)
    return function
