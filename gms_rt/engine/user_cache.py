"""The user's cache folder: what earlier builds and opens left so that later ones are faster, and how to clear it.

Nothing in it is needed, and nothing in it is trusted for what it says: compiled graphs carry their hashes (the C
library compares them before use), trials are remembered as empty files, and TensorRT sets aside a timing cache of
another device. `GMS_RT_CACHE` moves all but the trials, which the C library remembers in the XDG folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_KINDS = {
    "compiled": "compiled graphs of the CPU",
    "kernels": "GPU kernels that TensorRT-RTX compiled",
    "tried": "graphs that passed their trial",
    "timing": "TensorRT's timing caches",
    "web": "ONNX Runtime Web, for pages that gms-rt pack makes",
}


@dataclass(frozen=True)
class CacheContents:
    """One kind of what is kept."""

    name: str
    what: str
    folder: Path
    files: int
    bytes: int


def cache_root() -> Path:
    """Where builds and opens keep what later ones can use; `GMS_RT_CACHE` moves it."""
    named = os.environ.get("GMS_RT_CACHE")
    return Path(named).absolute() if named else _xdg_root()


def compiled_graphs() -> Path | None:
    """The folder of the CPU's compiled graphs, made where it is absent; None where it cannot be made."""
    return _made("compiled")


def compiled_kernels() -> Path | None:
    """The folder of TensorRT-RTX's compiled kernels, made where it is absent; None where it cannot be made."""
    return _made("kernels")


def _made(name: str) -> Path | None:
    try:
        root = cache_root()
        folder = root / name
        for place in (root, folder):  # the user's own: `parents=True` would not set the mode of both
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home is a RuntimeError
        return None
    return folder


def cache_contents() -> list[CacheContents]:
    """How much of each kind is there."""
    contents = []
    for name, what, folder in _folders():
        sizes = [size for _, size in _files(folder)]
        contents.append(CacheContents(name, what, folder, len(sizes), sum(sizes)))
    return contents


def clear_caches() -> list[CacheContents]:
    """Delete all of it; how much it was. What cannot be deleted stays and is not counted."""
    cleared = []
    for name, what, folder in _folders():
        files = size = 0
        for path, length in list(_files(folder)):
            try:
                path.unlink()
            except OSError:
                continue
            files, size = files + 1, size + length
        cleared.append(CacheContents(name, what, folder, files, size))
    return cleared


def _folders() -> Iterator[tuple[str, str, Path]]:
    for name, what in _KINDS.items():
        try:
            yield name, what, (_xdg_root() if name == "tried" else cache_root()) / name
        except RuntimeError:  # a user without a home has no such folder
            continue


def _xdg_root() -> Path:
    named = os.environ.get("XDG_CACHE_HOME", "")
    # As the XDG rules say, and as the C library does: a relative one counts for nothing.
    return (Path(named) if Path(named).is_absolute() else Path("~/.cache").expanduser()) / "gms-rt"


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """The files right in a folder, with their sizes; nothing behind links."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return
        for path in folder.iterdir():
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                yield path, about.st_size
    except OSError:
        return
