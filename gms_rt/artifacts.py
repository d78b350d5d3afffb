"""Files that outlive a process: hashes, whole-or-nothing writes, and the manifest of an engine folder.

Everything is written beside its final place and renamed, so a kill leaves the old file or the new one, never a part.
A manifest names every file of its folder with its hash; `read_manifest` refuses what it does not know.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gms_rt.errors import ArtifactError, GmsError, UsageError

MANIFEST = "engine.json"
ENGINE_FORMAT = "gms-rt-engine"
ENGINE_VERSION = 1
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
TARGETS = ("cpu", "tensorrt", "tensorrt-rtx")


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(final: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `final`; on success it becomes `final`, on any failure it is gone.

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
        raise ArtifactError("holds no JSON object", where=path)
    return value


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`; on success it takes its place (an older one is swapped out)."""
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
    """Refuse a place that cannot be written before long work begins; nothing is made there yet."""
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
    """Put what a disk refuses into words; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise _cannot_write(final, error) from error
        raise


def _cannot_write(path: Path, error: OSError) -> GmsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return GmsError("no space left on the disk", where=path, mend="free some space and run it again")
    reason = error.strerror or type(error).__name__
    return UsageError(f"cannot be written ({reason})", where=path, mend="choose another place with --out")


def _umask() -> int:
    # Linux tells it without changing it, which matters in a process with threads.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


@dataclass(frozen=True)
class Plan:
    """One device's serialised engine inside an engine folder."""

    target: str  # "tensorrt" or "tensorrt-rtx"
    file: str
    sha256: str
    bytes: int
    sm: int  # compute capability times ten: 80, 89
    version: str  # of the TensorRT that built it
    build_seconds: float
    driver: str | None = None  # of the machine that built it, where there was one


@dataclass(frozen=True)
class EngineManifest:
    """`engine.json`: what the folder holds, from what it was made, and what was really built.

    `source` says what was built (kind, name, sha256), `census` what the typed graph really contains, `gate` the
    accuracy check made at build. `files` lists every other file with its hash; `model` is the CPU's graph.
    """

    name: str
    precision: str
    created: str
    gms_rt: str
    height: int
    width: int
    batch: int
    model: str
    files: dict[str, str]
    source: dict[str, Any]
    tokenizer: dict[str, Any]
    targets: list[str]
    plans: list[Plan]
    census: dict[str, Any]
    gate: dict[str, Any] | None
    execution: str  # the arithmetic asked of the CPU runtime: "f32" or "bf16"
    rebuild: str  # the command that builds this engine again
    notes: list[str] = field(default_factory=list)
    format: str = ENGINE_FORMAT
    version: int = ENGINE_VERSION


def write_manifest(folder: Path, manifest: EngineManifest) -> None:
    """Write `engine.json` into an engine folder."""
    write_json(folder / MANIFEST, dataclasses.asdict(manifest))


def read_manifest(folder: Path) -> EngineManifest:
    """Read and check `engine.json`; hashes are checked by `verify_files`."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            "is not an engine folder (no engine.json)",
            where=folder,
            mend="build one: gms-rt build --precision fp16",
        )
    data = read_json(path)
    if data.get("format") != ENGINE_FORMAT:
        raise ArtifactError(f"is not a {ENGINE_FORMAT} manifest", where=path, mend="build the engine again")
    version = data.get("version")
    if not isinstance(version, int) or version > ENGINE_VERSION:
        raise ArtifactError(
            f"has manifest version {version!r}, this program reads up to {ENGINE_VERSION}",
            where=path,
            mend="update gms-rt or build the engine again",
        )
    plans = data.pop("plans", None)
    try:
        manifest = EngineManifest(plans=[Plan(**plan) for plan in plans or []], **data)
    except TypeError as error:
        raise ArtifactError(f"has missing or unknown keys ({error})", where=path, mend="build it again") from error
    _check_types(manifest, path)
    return manifest


def _check_types(manifest: EngineManifest, path: Path) -> None:
    sizes = (manifest.height, manifest.width, manifest.batch)
    names = [manifest.model, *manifest.files, *(plan.file for plan in manifest.plans)]
    if not all(isinstance(size, int) and 0 < size <= 16384 for size in sizes):
        raise ArtifactError(f"has impossible sizes {sizes}", where=path, mend="build the engine again")
    if not all(isinstance(name, str) and name and Path(name).name == name for name in names):
        raise ArtifactError("names a file outside its folder", where=path, mend="build the engine again")
    if manifest.precision not in PRECISIONS:
        raise ArtifactError(f"has unknown precision {manifest.precision!r}", where=path)


def verify_files(folder: Path, manifest: EngineManifest, names: list[str] | None = None) -> None:
    """Compare files with their recorded hashes; a changed or absent one is refused by name."""
    hashes = manifest.files | {plan.file: plan.sha256 for plan in manifest.plans}
    for name in hashes if names is None else names:
        path = folder / name
        if name not in hashes:
            raise ArtifactError("is not listed in engine.json", where=path, mend=f"rebuild: {manifest.rebuild}")
        try:
            same = sha256_file(path) == hashes[name]
        except OSError as error:
            raise ArtifactError(
                f"cannot be read ({error.strerror})", where=path, mend=f"rebuild: {manifest.rebuild}"
            ) from error
        if not same:
            raise ArtifactError(
                "was changed since it was built (hash differs)",
                where=path,
                mend=f"rebuild: {manifest.rebuild}",
            )


def is_engine(folder: Path) -> bool:
    """Whether a folder claims to be an engine."""
    return (folder / MANIFEST).is_file()


def newest_engines(root: Path) -> list[Path]:
    """Engine folders below `root`, the newest first."""
    if not root.is_dir():
        return []
    found = [child for child in root.iterdir() if not child.name.startswith(".") and is_engine(child)]
    return sorted(found, key=lambda child: (child / MANIFEST).stat().st_mtime_ns, reverse=True)
