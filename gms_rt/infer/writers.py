"""What is written once for a whole source: one entry for each kind of file.

A writer gets the source's whole result and a path, and writes that file or raises an InputError. The masks are not lost
by that: the reason is put into the rows of the source, and no case fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gms_rt.infer.bids import write_dseg_sidecar, write_dseg_table, write_probseg_sidecar
from gms_rt.infer.dicom_report import write_dicom_report
from gms_rt.infer.dicom_seg import write_probability_seg, write_seg
from gms_rt.infer.nifti_mask import write_nifti, write_probability_nifti
from gms_rt.infer.options import BIDS, InferOptions
from gms_rt.infer.result import SourceResult
from gms_rt.scan.reader import Fetched


@dataclass(frozen=True)
class SourceWriter:
    """One kind of file that needs all frames of a source."""

    kind: str  # of results; its folder in the output folder, where `folder` names no other
    ending: str  # of its files' names
    label: str  # what people call it
    wanted: Callable[[InferOptions, Fetched], bool]  # asked when a source is opened, before any frame
    write: Callable[[Path, SourceResult], None]
    column: str | None = None  # of cases.csv, for the file or the reason why not; without one the reason is a `note`
    probabilities: bool = False  # whether it needs SourceResult.probabilities
    folder: str = ""  # that several kinds share
    describes: str = ""  # the kind next to which it stands; without that file it is not written
    masks: bool = True  # whether the masks are in it, so that those of a series need no files of their own


def _wants_seg(options: InferOptions, fetched: Fetched) -> bool:
    return options.dicom_seg and fetched.kind == "dicom"


def _wants_fractional(options: InferOptions, fetched: Fetched) -> bool:
    return options.dicom_fractional and fetched.kind == "dicom"


def _wants_report(options: InferOptions, fetched: Fetched) -> bool:
    return options.dicom_report and fetched.kind == "dicom"


def _wants_nifti(options: InferOptions, fetched: Fetched) -> bool:
    if fetched.kind == "nifti":
        return options.nifti is not False
    return fetched.kind == "dicom" and bool(options.nifti or (options.nifti is None and options.layout == BIDS))


def _wants_probability_nifti(options: InferOptions, fetched: Fetched) -> bool:
    return options.probabilities and _wants_nifti(options, fetched)


def _wants_bids(options: InferOptions, fetched: Fetched) -> bool:
    return options.layout == BIDS and _wants_nifti(options, fetched)


def _wants_probability_bids(options: InferOptions, fetched: Fetched) -> bool:
    return options.layout == BIDS and _wants_probability_nifti(options, fetched)


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
    SourceWriter("nifti", "_dseg.nii.gz", "NIfTI mask", _wants_nifti, write_nifti),
    SourceWriter(
        "nifti-probability",
        "_probseg.nii.gz",
        "NIfTI probability",
        _wants_probability_nifti,
        write_probability_nifti,
        probabilities=True,
        folder="nifti",
        masks=False,
    ),
    SourceWriter(
        "bids-mask",
        "_dseg.json",
        "BIDS sidecar",
        _wants_bids,
        write_dseg_sidecar,
        folder="nifti",
        describes="nifti",
        masks=False,
    ),
    SourceWriter(
        "bids-classes",
        "_dseg.tsv",
        "BIDS table of classes",
        _wants_bids,
        write_dseg_table,
        folder="nifti",
        describes="nifti",
        masks=False,
    ),
    SourceWriter(
        "bids-probability",
        "_probseg.json",
        "BIDS sidecar",
        _wants_probability_bids,
        write_probseg_sidecar,
        folder="nifti",
        describes="nifti-probability",
        masks=False,
    ),
)
