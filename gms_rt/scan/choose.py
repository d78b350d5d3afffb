"""Pictures that a user names as a folder or a list, brought to a network's size as `gms-rt infer` brings them.

Calibration, the gate and a graph's reference pictures are read here, so that the same file gives the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from gms_rt.arrays import U8
from gms_rt.errors import InputError, UsageError
from gms_rt.scan.reader import first_image, is_scan
from gms_rt.scan.segmenter import prepare_image

_Item = TypeVar("_Item")


def scans_from_place(path: Path) -> Sequence[Path]:
    """The scans of a folder, or of a text file with one path per line; a scan itself is a list of one."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if not p.name.startswith(".") and p.is_file() and is_scan(p))
    if not path.is_file():
        raise UsageError("does not exist", where=path, fix="give a folder of images or a text file that lists them")
    if is_scan(path):
        return [path]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("is neither a folder nor a list of images", where=path) from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [Path(name) if Path(name).is_absolute() else path.parent / name for name in names]


def image_from_scan(file: Path, height: int, width: int) -> U8:
    """The first frame of a scan at a network's size; one that cannot be read is the user's to remove."""
    try:
        return prepare_image(first_image(file), height, width)
    except InputError as error:
        raise UsageError(error.what, where=file, fix=error.fix or "remove it from the folder or list") from error


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most so many of a sequence, evenly chosen."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)
