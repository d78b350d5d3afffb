"""Which files a run segments, in a stable order, and the name that each result gets.

Results keep the folders and names of their sources below the common root. A result is named by its source's stem,
unless another source could claim the same name; then both names keep the source's ending. The rule looks at
all sources together, so that their order never matters and nothing is overwritten.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gms_rt.errors import UsageError
from gms_rt.progress import OnProgress, silent
from gms_rt.scan.dicom import DICOM_SUFFIXES
from gms_rt.scan.nifti import NIFTI_SUFFIXES
from gms_rt.scan.reader import SUFFIXES, is_scan
from gms_rt.scan.series import Series
from gms_rt.scan.slices import Slice, series_from_files

# A folder that holds this file is the output of a run, never its input.
OUTPUT_MARK = ".gms-rt.lock"
_FRAME_LIKE = re.compile(r"\.frame-\d+$")


@dataclass(frozen=True)
class Source:
    """One file or series: where it is, its name below the common root, and the name of its results (no ending)."""

    path: Path  # of a series the first file
    name: str
    stem: str
    series: Series | None = None
    members: tuple[str, ...] = ()  # names of a series' files, in the order of the frames

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its file, or its files in the order of the frames."""
        return self.series.paths if self.series else (self.path,)


@dataclass(frozen=True)
class FoundSources:
    """The sources of a run; `skipped` counts files in folders that are not scans."""

    sources: list[Source]
    root: Path
    skipped: int
    inputs: list[str] = field(default_factory=list)


def find_sources(inputs: Sequence[str], *, keep_suffix: bool = False) -> FoundSources:
    """Every scan named by files, folders (recursive), globs, text lists (`.txt`), or `-` for a list on stdin."""
    if not inputs:
        raise UsageError("there is nothing to segment", fix="name files or folders: gms-rt infer folder/")
    walker = _Walker()
    paths: dict[str, None] = {}
    roots = []
    for text in inputs:
        for path in _expand(text):
            here = os.path.abspath(path)  # noqa: PTH100 (resolve() would follow links and change names)
            folder = os.path.isdir(here)  # noqa: PTH112 (Path.is_dir raises where a folder above may not be entered)
            roots.append(here if folder else os.path.dirname(here))  # noqa: PTH120
            paths.update(dict.fromkeys(walker.files(here) if folder else [here]))
    root = os.path.commonpath(roots) if roots else os.getcwd()  # noqa: PTH109
    names = [os.path.relpath(path, root) for path in paths]
    stems = result_names(names, keep_suffix=keep_suffix)
    sources = [Source(Path(p), n, stems[n]) for p, n in zip(paths, names, strict=True)]
    return FoundSources(sources, Path(root), walker.skipped, [str(text) for text in inputs])


def with_series(
    found: FoundSources, on_progress: OnProgress = silent, look: Callable[[Path], Slice | None] | None = None
) -> FoundSources:
    """The same sources, with the files of each DICOM series as one source in the place of the first of them.

    A series is named by the folder that holds all its files and its own name. All other sources keep their names.
    """
    names = {source.path: source for source in found.sources if _may_be_dicom(source.name)}
    owners: dict[Path, Series] = {}
    for series in series_from_files(list(names), on_progress, look):
        owners |= dict.fromkeys((*series.paths, *series.copies), series)
    taken = {source.stem for source in found.sources}
    sources: list[Source] = []
    begun: set[int] = set()
    for source in found.sources:
        owner = owners.get(source.path)
        if owner is None:
            sources.append(source)
        elif id(owner) not in begun:
            begun.add(id(owner))
            members = tuple(names[path].name for path in owner.paths)
            name = os.path.join(os.path.commonpath([os.path.dirname(m) for m in members]), owner.name)  # noqa: PTH118, PTH120
            while name in taken:
                name += "~"
            taken.add(name)
            sources.append(Source(owner.paths[0], name, name, owner, members))
    return dataclasses.replace(found, sources=sources)


def _may_be_dicom(name: str) -> bool:
    return name.lower().endswith(DICOM_SUFFIXES) or not name.lower().endswith(SUFFIXES)


def result_names(names: Iterable[str], *, keep_suffix: bool = False) -> dict[str, str]:
    """The result's name for each source name, no two alike.

    >>> result_names(["a/x.png", "a/x.jpg", "a/y.jpg", "b/x.png"])
    {'a/x.png': 'a/x.png', 'a/x.jpg': 'a/x.jpg', 'a/y.jpg': 'a/y', 'b/x.png': 'b/x'}
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folder, _, base = name.rpartition("/")
        folders[folder].append(base)
    results = {}
    for folder, bases in folders.items():
        full = set(bases)
        stems = Counter(_stem(base) for base in bases)
        for base in bases:
            stem = _stem(base)
            free = stems[stem] == 1 and (stem not in full or stem == base) and not _FRAME_LIKE.search(stem)
            chosen = stem if free and not keep_suffix else base
            prefix = f"{folder}/" if folder else ""
            results[prefix + base] = prefix + chosen
    return results


def _stem(name: str) -> str:
    for suffix in NIFTI_SUFFIXES[::-1]:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return os.path.splitext(name)[0]  # noqa: PTH122 (works on names that are not paths)


def _expand(text: str) -> Iterator[str]:
    if text == "-":
        yield from _read_list(sys.stdin.buffer.read(), "", "standard input")
    elif os.path.lexists(text):
        if text.lower().endswith(".txt") and Path(text).is_file():
            try:
                data = Path(text).read_bytes()
            except OSError as error:
                raise UsageError(f"cannot be read ({error.strerror})", where=text) from error
            yield from _read_list(data, str(Path(text).parent), text)
        else:
            yield text
    elif glob.has_magic(text):
        hits = sorted(glob.glob(text, recursive=True), key=os.fsencode)  # noqa: PTH207 (any pattern, also absolute)
        hits = [hit for hit in hits if not os.path.isdir(hit)] or hits  # noqa: PTH112
        if not hits:
            raise UsageError("matches no file", where=text)
        yield from hits
    else:
        raise UsageError("no such file or folder", where=text)


def _read_list(data: bytes, folder: str, where: str) -> Iterator[str]:
    """The names of a list, one per line, or ended by NUL if it has any. A file that is gone becomes a failed case."""
    lines = data.split(b"\0") if b"\0" in data else [line.rstrip(b"\r") for line in data.split(b"\n")]
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise UsageError("lists no files", where=where)
    for name in names:
        yield os.path.join(folder, name)  # noqa: PTH118 (keeps surrogate bytes as they are)


class _Walker:
    """Scans below folders, sorted by name; each real folder is entered once, so that link loops end."""

    def __init__(self) -> None:
        self.skipped = 0
        self._seen: set[tuple[int, int]] = set()

    def files(self, folder: str) -> Iterator[str]:
        try:
            about = Path(folder).stat()
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError:
            yield folder  # becomes a failed case that says why: scans must not go missing in silence
            return
        identity = (about.st_dev, about.st_ino)
        if identity in self._seen or any(entry.name == OUTPUT_MARK for entry in entries):
            return
        self._seen.add(identity)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                mode = entry.stat().st_mode
            except PermissionError:  # a folder that can be listed but not entered
                yield entry.path
                continue
            except OSError:  # a link that leads nowhere or to itself
                self.skipped += 1
                continue
            if stat.S_ISDIR(mode):
                yield from self.files(entry.path)
            elif stat.S_ISREG(mode) and is_scan(Path(entry.path)):
                yield entry.path
            else:
                self.skipped += 1
