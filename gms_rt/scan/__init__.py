"""Pictures in and out: one reading, one resize for training and inference, whole-or-nothing writes.

geometry.py   resize to network size and back, grey to RGB, orientation
frame.py      what a reader yields, and the limits it keeps
window.py     deep pixel values to 8 bit, with the choice in words
pictures.py   PNG, JPEG, TIFF, BMP
video.py      video files, in and out
nifti.py      slices of NIfTI volumes
"""

from __future__ import annotations

from gms_rt.scan.frame import MAX_PIXELS, Frame, Reading, check_size
from gms_rt.scan.geometry import oriented, resize_image, resize_probability, rgb
from gms_rt.scan.pictures import read_picture

__all__ = [
    "MAX_PIXELS",
    "Frame",
    "Reading",
    "check_size",
    "oriented",
    "read_picture",
    "resize_image",
    "resize_probability",
    "rgb",
]
