"""What is written once for a whole source: one entry for each kind of file.

A writer gets the source's whole result and a path, and writes that file or raises an InputError. The masks are not lost
by that: the reason is put into the rows of the source, and no case fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gms_rt.infer.dicom_report import write_dicom_report
from gms_rt.infer.dicom_seg import write_probability_seg, write_seg
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
    masks: bool = True  # whether it holds the masks, so that a series needs no other files of them


def _wants_seg(options: InferOptions, fetched: Fetched) -> bool:
    return options.dicom_seg and fetched.kind == "dicom"


def _wants_fractional(options: InferOptions, fetched: Fetched) -> bool:
    return options.dicom_fractional and fetched.kind == "dicom"


def _wants_report(options: InferOptions, fetched: Fetched) -> bool:
    return options.dicom_report and fetched.kind == "dicom"


SOURCE_WRITERS = (
    SourceWriter("dicom", ".dcm", "DICOM SEG", _wants_seg, write_seg, column="seg"),
    SourceWriter(
        "dicom-fractional",
        ".dcm",
        "fractional DICOM SEG",
        _wants_fractional,
        write_probability_seg,
        probabilities=True,
        masks=False,
    ),
    SourceWriter("dicom-report", ".dcm", "DICOM report", _wants_report, write_dicom_report, masks=False),
)
