"""Sources that travel to a worker together, and what comes back: both are lines of JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gms_rt.artifacts import sha256_json
from gms_rt.errors import DeviceError, GateError, GmsError, UsageError, line_from_error
from gms_rt.infer.journal import Entry
from gms_rt.infer.sources import Source
from gms_rt.scan.series import Series

FILES = 64  # in one chunk: some seconds of work, lost at most when a worker dies
_FEWEST_CHUNKS = 4  # for each worker, so that all end at about the same time
_CODES: dict[int, type[GmsError]] = {2: UsageError, 3: GateError, 4: DeviceError}


@dataclass(frozen=True)
class Chunk:
    """Some sources, in order. A DICOM series is one source, and is never split."""

    sources: tuple[Source, ...]

    @property
    def id(self) -> str:
        """A name that follows from the sources."""
        return sha256_json([source.name.encode("utf-8", "surrogateescape").hex() for source in self.sources])[:16]

    def line(self) -> str:
        """The chunk as text."""
        return json.dumps([_values_from_source(source) for source in self.sources], separators=(",", ":"))


@dataclass(frozen=True)
class ChunkResult:
    """What a worker made of a chunk: entries for the journal, or the error that ended its work."""

    chunk: str  # its id
    entries: list[Entry] = field(default_factory=list)
    error: GmsError | None = None
    worker: str = ""  # node and process
    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)  # seconds of threads by stage
    threads: dict[str, int] = field(default_factory=dict)  # by stage
    peak_bytes: int = 0  # of the worker's memory so far

    def line(self) -> str:
        """The result as text."""
        value = dataclasses.asdict(self)
        value["error"] = value_from_error(self.error) if self.error else None
        return json.dumps(value, separators=(",", ":"))


def chunks_from_sources(sources: Sequence[Source], workers: int) -> Iterator[Chunk]:
    """All sources in chunks of up to 64 files, fewer where there would be too few chunks for this many workers."""
    files = sum(len(source.paths) for source in sources)
    most = max(1, min(FILES, files // (workers * _FEWEST_CHUNKS)))
    taken: list[Source] = []
    count = 0
    for source in sources:
        if taken and count + len(source.paths) > most:
            yield Chunk(tuple(taken))
            taken, count = [], 0
        taken.append(source)
        count += len(source.paths)
    if taken:
        yield Chunk(tuple(taken))


def chunk_from_line(line: str) -> Chunk:
    """What `Chunk.line` wrote."""
    return Chunk(tuple(_source_from_values(values) for values in json.loads(line)))


def result_from_line(line: str) -> ChunkResult:
    """What `ChunkResult.line` wrote."""
    value = json.loads(line)
    value["entries"] = [Entry(**entry) for entry in value["entries"]]
    value["error"] = error_from_value(value["error"]) if value["error"] else None
    return ChunkResult(**value)


def value_from_error(error: BaseException) -> dict[str, Any]:
    """An error as it travels."""
    if isinstance(error, GmsError):
        return {"what": error.what, "where": error.where, "fix": error.fix, "code": error.exit_code}
    return {"what": f"{type(error).__name__}: {line_from_error(error)}", "where": None, "fix": None, "code": 1}


def error_from_value(value: dict[str, Any]) -> GmsError:
    """An error as it arrived."""
    return _CODES.get(value["code"], GmsError)(value["what"], where=value["where"], fix=value["fix"])


def _values_from_source(source: Source) -> dict[str, Any]:
    value: dict[str, Any] = {"path": str(source.path), "name": source.name, "stem": source.stem}
    if source.series is not None:
        series = dataclasses.asdict(source.series)
        series["paths"] = [str(path) for path in source.series.paths]
        series["copies"] = [str(path) for path in source.series.copies]
        value |= {"series": series, "members": source.members}
    return value


def _source_from_values(value: dict[str, Any]) -> Source:
    series = None
    if "series" in value:
        given = value["series"]
        paths = {name: tuple(map(Path, given[name])) for name in ("paths", "copies")}
        series = Series(**(given | paths | {"notes": tuple(given["notes"])}))
    members = tuple(value.get("members", ()))
    return Source(Path(value["path"]), value["name"], value["stem"], series, members)
