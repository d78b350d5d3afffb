"""What `--keep` keeps: each answer in a folder of its own. Without it nothing is stored."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from gms_rt.artifacts import write_bytes
from gms_rt.serve.answer import JSON, Rendered
from gms_rt.serve.segment import SegmentedSource


def keep_answer(root: Path, found: Sequence[SegmentedSource], rendered: Rendered) -> Path:
    """Write the files of an answer, and the answer where it is none of them, into a new folder; return the folder."""
    folder = kept_folder(root)
    for each in found:
        for name, data in each.files.items():
            write_bytes(folder / name, data)
    if rendered.kind == JSON:
        write_bytes(folder / "answer.json", rendered.body)
    return folder


def kept_folder(root: Path) -> Path:
    """A new folder's place, named by the time and by chance, never by what a client says."""
    now = datetime.now(timezone.utc)
    return root / f"{now:%Y-%m-%d}" / f"{now:%H%M%S}-{secrets.token_hex(8)}"
