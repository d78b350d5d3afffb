"""How masks are made and what is written: one frozen set of options, checked once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gms_rt.artifacts import sha256_json
from gms_rt.errors import UsageError
from gms_rt.scan import MAX_PIXELS
from gms_rt.scan.flips import check_flips

FOLDERS, BIDS = LAYOUTS = ("folders", "bids")


@dataclass(frozen=True)
class InferOptions:
    """Options of a run. `tile` 0 segments each image as a whole; `dicom_seg` applies to DICOM input only."""

    threshold: float = 0.5
    tta: bool = False
    flips: str | None = None  # of `tta`; None is both
    tile: int = 0
    overlap: float = 0.25
    largest: bool = False
    fill_holes: bool = False
    min_area: int = 0
    refer_below: float | None = None
    overlays: bool = True
    contours: bool = True
    probabilities: bool = False
    dicom_seg: bool = True
    nifti: bool | None = None  # also over DICOM; None: over NIfTI only, and over DICOM in the BIDS layout
    layout: str = FOLDERS  # how the results of whole volumes are named, one of LAYOUTS
    dicom_fractional: bool = False  # probabilities as DICOM SEG
    dicom_report: bool = False  # measurements as DICOM structured report
    deidentify: bool = False  # replace what identifies a person in all results
    overlay_video: bool = False
    slices: bool = False  # of a DICOM series, too, write masks, overlays and contours slice by slice
    reduced_jpeg: bool = False  # decode large JPEG files at a part of their size; not with overlays or tiles
    keep_suffix: bool = False  # a watch names results by whole file names: results and keys differ from a run's
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UsageError(f"threshold {self.threshold} is not between 0 and 1", where="--threshold")
        check_flips(self.tta, self.flips)
        if self.tile and not 32 <= self.tile <= 8192:
            raise UsageError(f"tiles of {self.tile} pixels are not between 32 and 8192", where="--tile")
        if not 0 <= self.overlap <= 0.75:
            raise UsageError(f"overlap {self.overlap} is not between 0 and 0.75", where="--overlap")
        if self.min_area < 0:
            raise UsageError(f"area {self.min_area} is negative", where="--min-area")
        if self.refer_below is not None and not 0 <= self.refer_below <= 1:
            raise UsageError(f"{self.refer_below} is not between 0 and 1", where="--refer-below")
        if self.layout not in LAYOUTS:
            raise UsageError(f"unknown layout '{self.layout}'", where="--layout", fix=f"use {' or '.join(LAYOUTS)}")
        if self.deidentify and self.layout == BIDS:
            # Its names are made from those of the sources, and it links to them.
            raise UsageError("cannot be used with --layout bids", where="--deidentify", fix="leave one of them out")
        if self.reduced_jpeg and self.overlays:
            raise UsageError("leaves overlays no pixels to show", where="--reduced-jpeg", fix="add --no-overlay")
        if self.reduced_jpeg and self.tile:
            raise UsageError("leaves tiles no pixels", where="--reduced-jpeg", fix="leave it or --tile out")
        if self.max_pixels < 1:
            raise UsageError(f"{self.max_pixels} pixels allow no image", where="--max-pixels")

    def key(self, engine: str) -> str:
        """A fingerprint of everything that decides the files: these options and the engine's own fingerprint.

        `refer_below` only sorts finished cases, and the size limit changes no result: they are left out.
        """
        values = dataclasses.asdict(self)
        del values["refer_below"], values["max_pixels"]
        if not self.reduced_jpeg:  # keys from before there was such an option
            del values["reduced_jpeg"]
        return sha256_json([engine, values])[:16]
