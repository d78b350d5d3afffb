"""What `--keep` keeps: each answer in a folder of its own. Without it nothing is stored."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from gms_rt.artifacts import atomic_folder, check_writable
from gms_rt.errors import GmsError, UsageError
from gms_rt.serve.answer import JSON, Rendered
from gms_rt.serve.segment import SegmentedSource


def keep_answer(root: Path, found: Sequence[SegmentedSource], rendered: Rendered) -> Path:
    """Write the files of an answer, and the answer where it is none of them, into a new folder; return the folder.

    The folder is whole or absent, also after a kill or on a full disk.
    """
    folder = kept_folder(root)
    with kept_or_failed(), atomic_folder(folder) as part:
        for each in found:
            for name, data in each.files.items():
                _write(part / name, data)
        if rendered.kind == JSON:
            _write(part / "answer.json", rendered.body)
    return folder


def check_keep(root: Path) -> None:
    """Refuse, before the service starts, a place that cannot be written."""
    try:
        check_writable(root)
    except UsageError as error:
        raise UsageError(error.what, where=error.where, fix="choose another place with --keep") from error


def kept_folder(root: Path) -> Path:
    """A new folder's place, named by the time and by chance, never by what a client says."""
    now = datetime.now(timezone.utc)
    return root / f"{now:%Y-%m-%d}" / f"{now:%H%M%S}-{secrets.token_hex(8)}"


@contextlib.contextmanager
def kept_or_failed() -> Iterator[None]:
    """What cannot be kept is the service's failure, not a mistake of who asks; its folder is not told."""
    try:
        yield
    except (GmsError, OSError) as error:
        raise GmsError("the answer cannot be kept") from error


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
