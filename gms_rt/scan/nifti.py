"""Slices of NIfTI volumes (needs nibabel): planes of the third stored axis, rows along the second, columns the first.

No reorientation is made, so that slice numbers are those of the file. One percentile window serves the whole volume, in
which NaN and infinity are background. A compressed file is read to its end, where its checksum stands.
"""

from __future__ import annotations

import gzip
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
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
_CHUNK, _MAX_REST = 1 << 20, 256 << 20  # bytes after the volume


def read_nifti(path: Path, *, max_pixels: int = MAX_PIXELS) -> ScanFrames:
    """Open a NIfTI volume of two, three or four axes; a fourth (time) counts on after the slices."""
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError("reading NIfTI", "nifti") from error
    try:
        image: Any = nibabel.load(path)
        shape = tuple(int(n) for n in image.shape)
        dtype = image.get_data_dtype()
    except Exception as error:  # hostile headers fail in many ways
        raise InputError(f"is not a NIfTI file, or is damaged ({line_from_error(error)})") from error
    if not isinstance(image, (nibabel.Nifti1Image, nibabel.Nifti2Image)):
        raise InputError(
            f"is a {type(image).__name__.removesuffix('Image')} file, not a volume, which is not supported"
        )
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    shape = shape + (1,) * (4 - len(shape))
    if (dtype.kind not in "iuf" and not _is_colour(dtype)) or len(shape) > 4:
        kind = "complex numbers" if dtype.kind == "c" else f"values of kind '{dtype.kind}'"
        raise InputError(f"has {kind} in {len(shape)} axes; a scan has real values or colours in 2 to 4 axes")
    check_size(shape[0], shape[1], max_pixels)
    count = shape[2] * shape[3]
    if shape[0] * shape[1] * count > _VOLUME * max_pixels:
        raise InputError(f"has {shape[0] * shape[1] * count / 1e6:.0f} million voxels", fix="raise --max-pixels")
    return ScanFrames(count > 1, _slices(path, image, shape))


def _is_colour(dtype: np.dtype[Any]) -> bool:
    return dtype.names is not None and dtype.names[:3] == ("R", "G", "B") and dtype["R"] == np.uint8


def _slices(path: Path, image: Any, shape: tuple[int, ...]) -> Iterator[Frame]:
    try:
        volume = _volume(path, image).reshape(*shape, -1)
        spacing = _spacing(image.header)
    except InputError:
        raise
    except Exception as error:  # truncated and corrupted streams fail in many ways
        raise InputError(f"is a damaged NIfTI file ({line_from_error(error)})") from error
    low, high, choice = 0.0, 255.0, "8 bit as stored, RGB"
    if volume.shape[4] == 1:
        low, high = window.percentiles(volume.ravel(order="K"))
        choice = f"{window.percentiles_text(low, high)}, whole volume{window.gaps_text(volume)}"
    number = 0
    for time in range(shape[3]):
        for index in range(shape[2]):
            number += 1
            plane: NDArray[Any] = volume[:, :, index, time].swapaxes(0, 1)
            shown = plane if volume.shape[4] == 3 else window.to_8bit(plane[..., 0], low, high)
            yield Frame(np.ascontiguousarray(shown), number, choice, spacing)


def _volume(path: Path, image: Any) -> NDArray[Any]:
    """All values as float32, or colours as uint8 with one axis more."""
    if not path.name.lower().endswith(".gz"):
        return _values(image)
    with gzip.open(path) as stream:
        volume = _values(type(image).from_stream(stream))
        rest = 0
        while chunk := stream.read(_CHUNK):  # the checksum is compared at the end
            rest += len(chunk)
            if rest > _MAX_REST:
                raise InputError("has more than 256 MiB after its volume")
        return volume


def _values(image: Any) -> NDArray[Any]:
    if not _is_colour(image.get_data_dtype()):
        return np.asanyarray(image.dataobj, dtype=np.float32)
    stored = np.asanyarray(image.dataobj)
    return np.stack([stored[name] for name in ("R", "G", "B")], axis=-1)


def _spacing(header: Any) -> tuple[float, float] | None:
    zooms = tuple(float(zoom) for zoom in header.get_zooms()[:2])
    scale = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    known = len(zooms) == 2 and all(np.isfinite(zoom) and zoom > 0 for zoom in zooms)
    return (zooms[1] * scale, zooms[0] * scale) if known else None
