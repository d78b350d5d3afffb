"""DICOM in, DICOM SEG out.

read.py      frames of a DICOM file, one at a time, as 8-bit images
values.py    stored values to 8 bit: rescale, window, VOI LUT, palette, MONOCHROME1
spacing.py   millimetres between pixels, from wherever a modality keeps them
seg.py       masks as a DICOM Segmentation that refers to its source (needs highdicom)
"""

from __future__ import annotations

from gms_rt.dicom.read import DICOM_SUFFIXES, is_dicom, read_dicom, read_header
from gms_rt.dicom.seg import Algorithm, seg_available, write_seg

__all__ = ["DICOM_SUFFIXES", "Algorithm", "is_dicom", "read_dicom", "read_header", "seg_available", "write_seg"]
