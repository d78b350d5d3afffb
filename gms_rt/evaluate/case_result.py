"""One case of an evaluation: what was measured, and the table `cases.csv` that holds it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gms_rt.artifacts import write_bytes
from gms_rt.errors import InputError, UsageError
from gms_rt.spreadsheet import cell_from_text, text_from_cell

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TABLE = "cases.csv"
_NEWER = ("nsd", "nsd_224", "lesions", "lesions_found", "false_regions")
_KINDS: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": text_from_cell}


@dataclass(frozen=True)
class CaseResult:
    """One row of `cases.csv`. Pixels and distances are at the picture's own size, `…_224` at 224x224."""

    name: str
    height: int = 0
    width: int = 0
    dice: float = math.nan
    iou: float = math.nan
    hd95: float = math.nan
    dice_224: float = math.nan
    iou_224: float = math.nan
    hd95_224: float = math.nan
    truth_pixels: int = 0
    predicted_pixels: int = 0
    seconds: float = 0.0
    error: str = ""
    nsd: float = math.nan
    nsd_224: float = math.nan
    lesions: int = 0  # regions of the truth, at the picture's own size
    lesions_found: int = 0
    false_regions: int = 0

    @property
    def outcome(self) -> str:
        """`failed`, `hit`, `miss` (a lesion, nothing found), `false alarm`, or `both empty`."""
        if self.error:
            return "failed"
        if self.truth_pixels and self.predicted_pixels:
            return "hit"
        if self.truth_pixels:
            return "miss"
        return "false alarm" if self.predicted_pixels else "both empty"


def write_cases(folder: Path, results: Sequence[CaseResult]) -> None:
    """Write an evaluation's `cases.csv`."""
    write_rows(folder / TABLE, CaseResult, results)


def write_rows(path: Path, kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> None:
    """Write dataclasses of one kind as a table, a column for each field."""
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(kind)], lineterminator="\n")
    table.writeheader()
    for one in rows:
        row = asdict(one)
        table.writerow(row | {key: cell_from_text(value) for key, value in row.items() if isinstance(value, str)})
    write_bytes(path, text.getvalue().encode())


def read_cases(folder: Path) -> list[CaseResult]:
    """The rows of an evaluation's `cases.csv`."""
    path = folder / TABLE if folder.is_dir() else folder
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        names = {f.name: _KINDS[str(f.type)] for f in fields(CaseResult)}
        # Tables of earlier versions lack the newer columns.
        kept = [{key: row[key] for key in names if key in row or key not in _NEWER} for row in rows]
        return [CaseResult(**{key: names[key](value) for key, value in row.items()}) for row in kept]
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})", where=path, fix="name a folder of gms-rt eval"
        ) from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"is not a table of gms-rt eval ({error})", where=path) from error
