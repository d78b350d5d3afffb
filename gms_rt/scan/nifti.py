"""Slices of NIfTI volumes (needs nibabel): planes of the third stored axis, rows along the second, columns the first.

No reorientation is made, so that slice numbers are those of the file. One percentile window serves the whole volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.errors import InputError, MissingExtraError, line_from_error
from gms_rt.scan import window
from gms_rt.scan.frame import MAX_PIXELS, Frame, ScanFrames, check_size

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# A compressed header can promise any size: eight times the picture limit, in voxels, is where a volume stops.
_VOLUME = 8


def read_nifti(path: Path, *, max_pixels: int = MAX_PIXELS) -> ScanFrames:
    """Open a NIfTI volume of two, three or four axes; a fourth (time) counts on after the slices."""
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError("reading NIfTI", "nifti") from error
    try:
        image: Any = nibabel.load(path)
        shape = tuple(int(n) for n in image.shape)
        kind = image.get_data_dtype().kind
    except Exception as error:  # hostile headers fail in many ways
        raise InputError(f"is not a NIfTI file, or is damaged ({line_from_error(error)})") from error
    shape = shape + (1,) * (4 - len(shape))
    if kind not in "iuf" or len(shape) > 4:
        raise InputError(f"has values of kind '{kind}' in {len(shape)} axes; a scan has real values in 2 to 4 axes")
    check_size(shape[0], shape[1], max_pixels)
    count = shape[2] * shape[3]
    if shape[0] * shape[1] * count > _VOLUME * max_pixels:
        raise InputError(f"has {shape[0] * shape[1] * count / 1e6:.0f} million voxels", fix="raise --max-pixels")
    return ScanFrames(count > 1, _slices(image, shape))


def _slices(image: Any, shape: tuple[int, ...]) -> Iterator[Frame]:
    try:
        volume = np.asanyarray(image.dataobj, dtype=np.float32).reshape(shape)
        zooms = tuple(float(z) for z in image.header.get_zooms()[:2])
    except Exception as error:  # truncated and corrupted streams fail in many ways
        raise InputError(f"is a damaged NIfTI file ({line_from_error(error)})") from error
    low, high = window.percentiles(volume.ravel(order="K"))
    choice = f"{window.percentiles_text(low, high)}, whole volume"
    known = len(zooms) == 2 and all(np.isfinite(z) and z > 0 for z in zooms)
    spacing = (zooms[1], zooms[0]) if known else None
    number = 0
    for time in range(shape[3]):
        for index in range(shape[2]):
            number += 1
            plane: NDArray[Any] = volume[:, :, index, time].T
            yield Frame(np.ascontiguousarray(window.to_8bit(plane, low, high)), number, choice, spacing)
