"""DICOM files that are slices of a stack: what their headers say, grouped and put in order.

A slice is a single image with a place in space. Slices of one patient, study, series, orientation and size are a stack,
in the order of their positions along its normal: names and instance numbers do not count. Localizers, pictures without
a place and multi-frame files belong to no stack; a stack tells how many images of its series are not in it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gms_rt.artifacts import sha256_json
from gms_rt.progress import OnProgress, silent
from gms_rt.scan.dicom import check_stream, is_dicom
from gms_rt.scan.series import Series

# fmt: off
_PHASES = ("TemporalPositionIdentifier", "AcquisitionNumber", "EchoNumbers", "TriggerTime", "DiffusionBValue",
           "AcquisitionTime", "ContentTime")  # what tells stacks at one place apart
_TAGS = (*_PHASES, "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber", "Modality",
         "ImageType", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PixelSpacing",
         "ImagePositionPatient", "ImageOrientationPatient",
         "FrameOfReferenceUID", "InstanceNumber", "SOPClassUID")
# fmt: on
_READERS = 8  # threads: most of the time is waiting for the disk or the network
_TURN = 1e-3  # how far direction cosines of one stack may differ
_SAME = 1e-3  # millimetres between positions that are one
_OFF_GRID = 0.05  # share of a step by which slices may lie off an even grid: some devices round their positions


@dataclass(frozen=True)
class Slice:
    """What the header of one image says of its place; an image without a place has neither `turn` nor `position`."""

    path: Path
    uid: str  # SOPInstanceUID
    series: str  # SeriesInstanceUID
    number: int | None  # of the series
    modality: str
    length: int  # of the file in bytes
    size: tuple[Any, ...]  # rows, columns and all else that slices of a stack have in common
    turn: tuple[float, ...] = ()  # direction cosines of a row and a column
    position: float = math.nan  # millimetres along the stack's normal
    instance: int = 0
    phases: tuple[float | None, ...] = ()  # values of _PHASES


def series_from_files(
    paths: Sequence[Path], on_progress: OnProgress = silent, look: Callable[[Path], Slice | None] | None = None
) -> list[Series]:
    """The stacks of two slices and more among these files, in the order of their first file.

    `look` reads one file's slice, where a caller remembers what it read before.
    """
    groups: dict[tuple[Any, ...], list[Slice]] = defaultdict(list)
    placeless: Counter[str] = Counter()
    with ThreadPoolExecutor(_READERS) as pool:
        for done, found in enumerate(pool.map(look or slice_from_file, paths), 1):
            if found is not None and found.turn:
                groups[(found.series, *found.size)].append(found)
            elif found is not None:
                placeless[found.series] += 1
            on_progress("reading headers", done, len(paths))
    parallel = [turned for group in groups.values() for turned in _by_turn(group)]
    peers: dict[str, list[tuple[tuple[float, ...], int]]] = defaultdict(list)
    for turned in parallel:
        peers[turned[0].series].append((turned[0].turn, len(turned)))
    found_series = []
    for turned in (turned for turned in parallel if len(turned) > 1):
        like = sum(count for turn, count in peers[turned[0].series] if _is_parallel(turn, turned[0].turn))
        others = like - len(turned) + placeless[turned[0].series]
        found_series += [_series(stack, phase, others) for stack, phase in _by_phase(turned)]
    place = {path: index for index, path in enumerate(paths)}
    several = [series for series in found_series if len(series.paths) > 1]
    return sorted(several, key=lambda series: min(place[path] for path in (*series.paths, *series.copies)))


def slice_from_file(path: Path) -> Slice | None:
    """A file's slice; None for what is not an image of a series, or cannot be read."""
    try:
        with path.open("rb") as stream:
            return slice_from_stream(path, stream)
    except OSError:
        return None


def slice_from_stream(path: Path, stream: IO[bytes]) -> Slice | None:
    """The slice of a file that is open, wherever it is: only its header is read. `path` stands for it."""
    import pydicom

    try:
        bare, length = not is_dicom(stream.read(132)), stream.seek(0, os.SEEK_END)
        if not bare:
            check_stream(stream)  # pydicom would inflate all of it
        stream.seek(0)
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS), force=bare)
        return _slice(path, header, length)
    except Exception:  # hostile bytes fail in many ways
        return None


def _slice(path: Path, header: Any, length: int) -> Slice | None:
    if not header.get("SeriesInstanceUID") or not header.get("Rows"):
        return None
    if int(header.get("NumberOfFrames") or 1) != 1 or _is_localizer(header.get("ImageType")):
        return None
    found = Slice(
        path=path,
        uid=str(header.get("SOPInstanceUID") or ""),
        series=str(header.SeriesInstanceUID),
        number=_whole(header.get("SeriesNumber")),
        modality=str(header.get("Modality") or ""),
        length=length,
        size=(),
    )
    try:
        row, column, position = _place(header)
    except (TypeError, ValueError):
        return found
    spacing = [round(float(v), 4) for v in header.get("PixelSpacing") or ()]
    shape = (int(header.Rows), int(header.Columns), int(header.get("SamplesPerPixel") or 1), *spacing)
    names = ("FrameOfReferenceUID", "SOPClassUID", "StudyInstanceUID", "PatientID")
    return dataclasses.replace(
        found,
        size=(*shape, *(str(header.get(name) or "") for name in names)),
        turn=(*row, *column),
        position=position,
        instance=_whole(header.get("InstanceNumber")) or 0,
        phases=tuple(_number(header.get(name)) for name in _PHASES),
    )


def _place(header: Any) -> tuple[list[float], list[float], float]:
    """Directions of a row and a column, and how far along their normal; a ValueError where there is no place."""
    place, turn = header.get("ImagePositionPatient") or (), header.get("ImageOrientationPatient") or ()
    row, column = [float(v) for v in turn[:3]], [float(v) for v in turn[3:]]
    if len(turn) != 6 or len(place) != 3:
        raise ValueError("no position or no orientation")
    normal = _cross(row, column)
    length = math.sqrt(_dot(normal, normal))
    position = _dot([float(v) for v in place], normal) / length if length > 0.5 else math.nan
    if not math.isfinite(position):
        raise ValueError("not a position in space")
    return row, column, position


def _is_localizer(kind: Any) -> bool:
    words = [kind] if isinstance(kind, str) else list(kind or ())
    return any("LOCALIZER" in str(word).upper() or "SCOUT" in str(word).upper() for word in words)


def _by_turn(group: list[Slice]) -> list[list[Slice]]:
    """Slices of one orientation each."""
    stacks: list[list[Slice]] = []
    for item in group:
        for stack in stacks:
            if _is_parallel(item.turn, stack[0].turn):
                stack.append(item)
                break
        else:
            stacks.append([item])
    return stacks


def _is_parallel(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < _TURN


@dataclass(frozen=True)
class _Phase:
    """Which of several stacks at one place a stack is."""

    name: str  # of the attribute that tells them apart
    value: float
    rank: int  # from 1
    count: int


def _by_phase(stack: list[Slice]) -> Iterator[tuple[list[Slice], _Phase | None]]:
    """Stacks that were taken at one place one after the other, where something tells them apart."""
    # Of copies the first is kept: the longest, because a copy that was cut off still has its header.
    stack = sorted(stack, key=lambda item: (item.position, item.instance, -item.length, os.fsencode(item.path)))
    if _has_doubles(_without_copies(stack)[0]):
        for index, name in enumerate(_PHASES):
            phases: dict[float | None, list[Slice]] = defaultdict(list)
            for item in stack:
                phases[item.phases[index]].append(item)
            # A value that each slice has for itself, such as its time, tells no stacks apart.
            clean = all(len(p) > 1 and not _has_doubles(_without_copies(p)[0]) for p in phases.values())
            if None not in phases and len(phases) > 1 and clean:
                values = sorted(value for value in phases if value is not None)
                for rank, value in enumerate(values, 1):
                    yield phases[value], _Phase(name, value, rank, len(values))
                return
    yield stack, None


def _has_doubles(stack: list[Slice]) -> bool:
    return any(b.position - a.position < _SAME for a, b in _pairs(stack))


def _without_copies(stack: list[Slice]) -> tuple[list[Slice], list[Slice]]:
    """The slices, and files that are one of them once more."""
    seen: set[tuple[str, float]] = set()
    kept: list[Slice] = []
    copies: list[Slice] = []
    for item in stack:
        identity = (item.uid, item.position)
        (copies if item.uid and identity in seen else kept).append(item)
        seen.add(identity)
    return kept, copies


def _series(stack: list[Slice], phase: _Phase | None, others: int) -> Series:
    kept, copies = _without_copies(stack)
    first = kept[0]
    spacing, notes = _spacing([item.position for item in kept])
    if phase is not None:  # not its value, which can be a time of the day
        notes.insert(0, f"stack {phase.rank} of {phase.count} at one place, told apart by {phase.name}")
    if others:
        notes.append(f"other images of the series that do not fit into this stack, or have no position: {others}")
    if copies:
        notes.append(f"left out as copies of other files: {len(copies)}")
    turn = [round(value, 2) + 0.0 for value in first.turn]
    mark = sha256_json([first.series, first.size, turn, (phase.name, phase.value) if phase else None])[:8]
    return Series(
        name="-".join(["series", *([] if first.number is None else [str(first.number)]), mark]),
        uid=first.series,
        modality=first.modality,
        paths=tuple(item.path for item in kept),
        spacing=spacing,
        notes=tuple(notes),
        copies=tuple(item.path for item in copies),
    )


def _spacing(positions: list[float]) -> tuple[float | None, list[str]]:
    """The distance between neighbours where it is the same everywhere, and what else there is to say."""
    steps = [b - a for a, b in _pairs(positions)]
    doubles = [index for index, step in enumerate(steps, 1) if step < _SAME]
    if doubles:
        return None, [f"slices at the position of the one before: {len(doubles)} (first: slice {doubles[0] + 1})"]
    if not steps:
        return None, []
    mean = (positions[-1] - positions[0]) / len(steps)
    if all(abs(place - positions[0] - mean * index) <= _OFF_GRID * mean for index, place in enumerate(positions)):
        return round(mean, 6), []
    typical = sorted(steps)[len(steps) // 2]
    allowed = 2 * _OFF_GRID * typical
    missing = {index: round(step / typical) - 1 for index, step in enumerate(steps, 1)}
    whole = all(abs(step - (missing[index] + 1) * typical) <= allowed for index, step in enumerate(steps, 1))
    if whole and min(missing.values()) >= 0:
        gaps = [f"{count} after slice {index}" for index, count in missing.items() if count]
        text = ", ".join(gaps[:5]) + (f" and {len(gaps) - 5} more places" if len(gaps) > 5 else "")
        return None, [f"slices are missing: {text}"]
    return None, [f"the distance between slices differs: {min(steps):.3g} to {max(steps):.3g} mm"]


def _pairs(values: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    return itertools.pairwise(values)


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _cross(a: list[float], b: list[float]) -> list[float]:
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]


def _dot(a: Iterable[float], b: Iterable[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
