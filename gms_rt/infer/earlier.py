"""What an output folder holds from an earlier run, and whether this run may take its place."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from gms_rt.artifacts import read_json
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.infer.journal import earlier_entries
from gms_rt.infer.measure import as_text
from gms_rt.infer.sources import FoundSources


def is_same_root(out: Path, found: FoundSources) -> bool:
    """Whether the results in `out`, if any, are of scans below the same folder."""
    root = _record(out).get("root")
    return not isinstance(root, str) or not earlier_entries(out) or _real(root) == _real(as_text(str(found.root)))


def check_replaceable(out: Path, found: FoundSources, *, keep: str | None = None) -> None:
    """Refuse to delete results that this run does not make again.

    Those are results of another root, and results of scans that are not among these inputs, unless a run with the very
    same inputs made them. `keep` is the key of results that are kept anyway.
    """
    record = _record(out)
    fix = "choose another folder with --out, or add --replace to delete them"
    if not is_same_root(out, found):
        raise UsageError(f"holds the results of {record['root']}", where=out, fix=fix)
    if record.get("inputs") in (None, [as_text(text) for text in found.inputs]):
        return
    names = {name for source in found.sources for name in (source.name, *source.members)}
    lost = [entry.source for entry in earlier_entries(out) if entry.key != keep and entry.source not in names]
    if lost:
        what = f"holds results of {len(lost)} scans that are not among these inputs (first: {as_text(lost[0])})"
        raise UsageError(what, where=out, fix=fix)


def _record(out: Path) -> dict[str, object]:
    with contextlib.suppress(ArtifactError):
        return read_json(out / "run.json")
    return {}


def _real(path: str) -> str:
    return os.path.realpath(path)
