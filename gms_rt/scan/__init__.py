"""One reading of a scan, whatever it is: bytes in, frames of 8 bits out, and the way of a frame through a model.

reader.py         a file of any format: is it a scan, its hash, its frames, its first image
pictures.py       PNG, JPEG, TIFF, BMP and WebP, 8 or 16 bit;  pillow_limit.py  their size is checked here
tiff.py           the pages of a TIFF;  tiff_samples.py  their pixels where they are not plain 8 bit
series.py         slices of a DICOM series as frames;  slices.py  which files are slices of which series
dicom.py          DICOM files;  dicom_values.py  their values as 8 bit;  dicom_spacing.py  their millimetres
                  dicom_origin.py  their identity and place, for tables
nifti.py          slices of NIfTI volumes
video.py          video files, in and out
frame.py          what every reader yields, and the limits it keeps
window.py         deep pixel values to 8 bit
encode.py         pixels as a picture file
geometry.py       resize to network size and back, grey to RGB, orientation
mask.py           probabilities, their levels of 0-255, and where foreground begins
flips.py          views of an image, mirrored and turned, whose masks are averaged
segmenter.py      prepare, infer, restore, threshold: the order of an image's way through a model

Frames, limits and geometry are imported from here, everything else from its file.
"""

from __future__ import annotations

from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames, check_size
from gms_rt.scan.geometry import resize_image, resize_probability, rgb

__all__ = ["MAX_PIXELS", "Frame", "ScanFrames", "check_size", "resize_image", "resize_probability", "rgb"]
