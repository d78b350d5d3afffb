"""Files that outlive a process: hashes, and writes that are whole or absent.

Everything is written next to its final place and takes it in one step, so a kill leaves the old one or the new one,
never a part and never nothing. Folders change places in one step where kernel and file system can do that (Linux:
ext4, xfs, btrfs, tmpfs and others); elsewhere the old one steps aside for a moment, and is put back if that is cut
short: at once after an error, by `restore_folder` after a kill.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gms_rt.errors import ArtifactError, GmsError, UsageError


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: object) -> str:
    """Hex SHA-256 of plain values, whatever the order of their keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True).encode())


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(final: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path next to `final`; on success it becomes `final`, on any failure it is gone.

    `durable` also waits until the disk has the file and its entry in the folder, so that a power cut cannot lose it
    (as far as disk and file system keep that promise); a kill never does, either way.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "note.txt") as path:
    ...     _ = path.write_text("whole")
    >>> (folder / "note.txt").read_text()
    'whole'
    """
    make_folder(final.parent)
    try:
        # The name keeps the ending, because writers choose a format by it.
        handle, name = tempfile.mkstemp(prefix=".part-", suffix=final.suffix, dir=final.parent)
    except OSError as error:
        raise _cannot_write(final, error) from error
    os.close(handle)
    part = Path(name)
    try:
        with disk_errors_explained(final):
            yield part
            part.chmod(0o666 & ~_umask())
            if durable:
                sync_path(part)
            part.replace(final)
            if durable:
                sync_path(final.parent)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(final: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with atomic_path(final) as part:
        part.write_bytes(data)


def write_json(final: Path, value: object) -> None:
    """Write JSON, readable and stable, whole or nothing."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(final, text.encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, with the file's name in every complaint."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror})", where=path) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"is not JSON ({error})", where=path) from error
    if not isinstance(value, dict):
        raise ArtifactError("is not a JSON object", where=path)
    return value


def check_format(value: dict[str, Any], name: str, version: int, *, where: object, fix: str) -> None:
    """Refuse a file of another format, or of a version newer than this program reads."""
    if value.get("format") != name:
        raise ArtifactError(f"is not a {name} file", where=where, fix=fix)
    found = value.get("version")
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= version:
        raise ArtifactError(
            f"is {name} version {found!r}, this program reads up to version {version}",
            where=where,
            fix=f"update gms-rt, or {fix}",
        )


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A temporary folder next to `final`; on success it takes its place, and an older one is deleted.

    It waits until the disk has all of it, so that a power cut cannot lose it either.
    """
    make_folder(final.parent)
    restore_folder(final)
    try:
        part = Path(tempfile.mkdtemp(prefix=f".part-{final.name}-", dir=final.parent))
    except OSError as error:
        raise _cannot_write(final, error) from error
    try:
        with disk_errors_explained(final):
            yield part
            part.chmod(0o777 & ~_umask())
            _sync_tree(part)
            _take_place(part, final)
            sync_path(final.parent)
    finally:
        _remove(part)


def restore_folder(final: Path) -> None:
    """Put the old folder back if a process was killed while it replaced `final`, else do nothing."""
    if os.path.lexists(final):
        return
    with contextlib.suppress(OSError, ValueError):
        for aside in sorted(final.parent.glob(f"{glob.escape(_aside_prefix(final))}*")):
            handle = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
            try:
                # Held for as long as the process that made it is about to take the place.
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (aside / final.name).replace(final)
                aside.rmdir()
            except OSError:
                continue
            finally:
                os.close(handle)
            return


def _take_place(part: Path, final: Path) -> None:
    """Rename a finished folder; what was there before is deleted."""
    if not os.path.lexists(final):
        part.replace(final)
        return
    if _exchange(part, final):
        return  # `part` is now the old one
    aside = Path(tempfile.mkdtemp(prefix=_aside_prefix(final), dir=final.parent))
    handle = os.open(aside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        final.replace(aside / final.name)
        part.replace(final)
    except BaseException:
        if not os.path.lexists(final) and os.path.lexists(aside / final.name):
            (aside / final.name).replace(final)
        raise
    finally:
        os.close(handle)
        if os.path.lexists(final):
            _remove(aside)


def _aside_prefix(final: Path) -> str:
    return f".old-{final.name}-"


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; False where kernel or file system cannot."""
    rename = _renameat2()
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


@functools.lru_cache(maxsize=1)
def _renameat2() -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return function


def sync_path(path: Path) -> None:
    """Wait until the disk has a file's bytes, or a folder's entries where its file system lets them be waited for."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # it may be written but not read: then nobody can wait for it
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                sync_path(path)
        sync_path(Path(place))


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def only_ours(about: os.stat_result) -> bool:
    """Whether nobody but this user can write what `stat` tells of."""
    return about.st_uid == os.geteuid() and not about.st_mode & 0o022


def check_writable(path: Path) -> None:
    """Refuse a place that cannot be written, before long work begins; nothing stays there."""
    ancestor = path.absolute()
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if ancestor != path.absolute() and not ancestor.is_dir():
        raise _cannot_write(path, NotADirectoryError(errno.ENOTDIR, f"{ancestor} is a file"))
    if not os.access(ancestor, os.W_OK):
        raise _cannot_write(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    if ancestor.is_dir():  # a file server refuses what the permissions allow, and a full disk a new folder
        try:
            Path(tempfile.mkdtemp(prefix=".gms-rt-", dir=ancestor)).rmdir()
        except OSError as error:
            raise _cannot_write(path, error) from error


def check_apart(out: Path, given: Path) -> None:
    """Refuse to write results into the very folder that is read: they would mix with what they were made from."""
    if out.is_dir() and given.is_dir() and out.samefile(given):
        raise UsageError("is the folder that is read", where=out, fix="choose another place with --out")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they are absent, and wait until the disk has them."""
    if folder.is_dir():
        return
    try:
        absent = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for place in absent:
            sync_path(place.parent)
    except OSError as error:
        raise _cannot_write(folder, error) from error


@contextlib.contextmanager
def disk_errors_explained(final: Path) -> Iterator[None]:
    """Turn what a disk refuses into an error that says so; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise _cannot_write(final, error) from error
        raise


def _cannot_write(path: Path, error: OSError) -> GmsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return GmsError("no space left on the disk", where=path, fix="free some space and run it again")
    reason = error.strerror or type(error).__name__
    return UsageError(f"cannot be written ({reason})", where=path, fix="choose another place with --out")


def _umask() -> int:
    # Linux tells it without changing it, which matters in a process with threads.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
