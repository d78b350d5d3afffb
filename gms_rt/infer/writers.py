"""What is written once for a whole source: one entry for each kind of file.

A writer gets the source's whole result and a path, and writes that file or raises an InputError. The masks are not lost
by that: the reason is put into the rows of the source, and no case fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gms_rt.infer.dicom_seg import write_seg
from gms_rt.infer.options import InferOptions
from gms_rt.infer.result import SourceResult
from gms_rt.scan.reader import Fetched


@dataclass(frozen=True)
class SourceWriter:
    """One kind of file that needs all frames of a source."""

    kind: str  # its folder in the output folder
    ending: str  # of its files' names
    label: str  # what people call it
    wanted: Callable[[InferOptions, Fetched], bool]  # asked when a source is opened, before any frame
    write: Callable[[Path, SourceResult], None]
    column: str | None = None  # of cases.csv, for the file or the reason why not; without one the reason is a `note`
    probabilities: bool = False  # whether it needs SourceResult.probabilities


def _wants_seg(options: InferOptions, fetched: Fetched) -> bool:
    return options.dicom_seg and fetched.kind == "dicom"


SOURCE_WRITERS = (SourceWriter("dicom", ".dcm", "DICOM SEG", _wants_seg, write_seg, column="seg"),)
