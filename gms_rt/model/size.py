"""The size of the pictures that a run segments: as asked, else as it was trained. Needs no torch."""

from __future__ import annotations

import re
from pathlib import Path

from gms_rt.config import read_toml
from gms_rt.errors import ConfigError, UsageError

USUAL = 224


def trained_size(run: Path) -> int:
    """The side of the pictures a run was trained on; 224 where it does not say, as for an official checkpoint."""
    path = run / "config.toml"
    told = read_toml(path) if path.is_file() else {}
    size = told.get("student", told.get("comparator", told.get("training", {}))).get("size", USUAL)
    if not isinstance(size, int) or size < 1:
        raise ConfigError(f"the training size is {size!r}", where=path, fix="give a whole number, such as 224")
    return size


def run_size(run: Path, text: str | None) -> tuple[int, int]:
    """Height and width of a run's graph.

    >>> run_size(Path("run"), "256x320"), run_size(Path("run"), "160")
    ((256, 320), (160, 160))
    """
    if text is None:
        side = trained_size(run)
        return side, side
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if found is None:
        raise UsageError("is not a size", where=f"--size {text}", fix="give one number or HEIGHTxWIDTH")
    return int(found[1]), int(found[2] or found[1])
