"""Where the sources of a run are, and how each looks, so that a later run knows which have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gms_rt.artifacts import sha256_json
from gms_rt.errors import UsageError
from gms_rt.infer import find_sources, with_series
from gms_rt.infer.sources import FoundSources, Source
from gms_rt.progress import OnProgress, silent
from gms_rt.scale.remote import RemoteFolder, find_remote


@dataclass(frozen=True)
class Archive:
    """The sources of a run."""

    found: FoundSources
    url: str | None  # of the folder that they are below; None: their paths are on this machine, or on each node
    stamp: Callable[[Source], str]  # changes when a source does; "" where it cannot be told


def find_archive(place: str, *, series: bool = True, on_progress: OnProgress = silent) -> Archive:
    """The sources at a place: a path, a list or a glob as `gms-rt infer` takes them, or a URL such as s3://bucket/ct."""
    if "://" not in place:
        found = find_sources([place])
        if series:
            found = with_series(found, on_progress)
        return Archive(_some(found, place), None, _local_stamp)
    folder = RemoteFolder(place)
    found, stamps = find_remote(folder)
    if series:
        names = {source.path: source.name for source in found.sources}
        found = with_series(found, on_progress, look=lambda path: folder.slice(names[path], path))
    return Archive(
        _some(found, place), place, lambda s: sha256_json([stamps.get(name, "") for name in s.members or (s.name,)])
    )


def _some(found: FoundSources, place: str) -> FoundSources:
    if not found.sources:
        raise UsageError(f"has no scans ({found.skipped} other files)", where=place)
    return found


def _local_stamp(source: Source) -> str:
    try:
        about = [path.stat() for path in source.paths]
    except OSError:
        return ""
    return sha256_json([[each.st_size, each.st_mtime_ns] for each in about])
