"""Files that outlive a process: hashes, and writes that are whole or absent.

Everything is written next to its final place and renamed, so a kill leaves the old file or the new one, never a part.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
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

    `durable` also waits for the disk, so that a power cut cannot lose it; a kill never does, either way.

    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "note.txt") as path:
    ...     _ = path.write_text("whole")
    >>> (folder / "note.txt").read_text()
    'whole'
    """
    _make_folder(final.parent)
    try:
        # The name keeps the ending, because writers choose a format by it.
        handle, name = tempfile.mkstemp(prefix=".part-", suffix=final.suffix, dir=final.parent)
    except OSError as error:
        raise _cannot_write(final, error) from error
    os.close(handle)
    part = Path(name)
    try:
        with _explained(final):
            yield part
            part.chmod(0o666 & ~_umask())
            if durable:
                with part.open("rb") as stream:
                    os.fsync(stream.fileno())
            part.replace(final)
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
    """A temporary folder next to `final`; on success it takes its place (an older one is swapped out)."""
    _make_folder(final.parent)
    try:
        part = Path(tempfile.mkdtemp(prefix=f".part-{final.name}-", dir=final.parent))
    except OSError as error:
        raise _cannot_write(final, error) from error
    try:
        with _explained(final):
            yield part
            part.chmod(0o777 & ~_umask())
            if final.exists():
                old = Path(tempfile.mkdtemp(prefix=f".old-{final.name}-", dir=final.parent))
                final.replace(old / final.name)
                part.replace(final)
                shutil.rmtree(old, ignore_errors=True)
            else:
                part.replace(final)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Refuse a place that cannot be written, before long work begins; nothing is created."""
    ancestor = path.absolute()
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    if ancestor != path.absolute() and not ancestor.is_dir():
        raise _cannot_write(path, NotADirectoryError(errno.ENOTDIR, f"{ancestor} is a file"))
    if not os.access(ancestor, os.W_OK):
        raise _cannot_write(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


@contextlib.contextmanager
def _explained(final: Path) -> Iterator[None]:
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
