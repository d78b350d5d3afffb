"""Masks and probabilities as NIfTI volumes that lie exactly over the scan they were made from (needs nibabel).

Over a NIfTI scan: voxel i, j, k of the mask is voxel i, j, k of the scan. The header is the scan's own, with its sform,
qform, codes, units and time steps as they stand; only what tells of the values is new (type, scale, intent,
description), and what may hold a patient's data is left out (extensions, free text). Over a DICOM series: column, row,
slice in the order of the slices, with the affine from their positions in NIfTI's axes (right, anterior, superior).

Files are the same bytes every time.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path
from gms_rt.errors import InputError, MissingExtraError, line_from_error
from gms_rt.infer.dicom_affine import Placement, placement_from_headers
from gms_rt.infer.result import SourceResult

LABEL, ESTIMATE = 1002, 1001  # NIfTI's intents: values are labels; values are estimates of a parameter
_TEXT = "gms-rt, not for clinical use"


def write_nifti(path: Path, result: SourceResult) -> None:
    """Write the label map: 0 is background, k is the k-th class."""
    _write(path, result, result.labels, intent=LABEL, slope=1.0)


def write_probability_nifti(path: Path, result: SourceResult) -> None:
    """Write the probabilities of 0 to 1: stored in 8 bits, which the header's slope scales."""
    if result.probabilities is None:
        raise InputError("its probabilities were not kept")
    _write(path, result, result.probabilities, intent=ESTIMATE, slope=1 / 255)


def _write(path: Path, result: SourceResult, frames: U8, *, intent: int, slope: float) -> None:
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError("writing NIfTI", "nifti") from error
    if result.headers:
        image = _over_dicom(nibabel, result.headers, frames)
    else:
        image = _over_nifti(nibabel, result.paths[0], frames)
    header = image.header
    header.set_slope_inter(slope, 0.0)  # said here, so that values are stored as they are and not scaled to fit
    header.set_intent(intent, (), name=_intent_name(result, intent))
    header["cal_min"] = header["cal_max"] = 0.0
    header["descrip"] = _TEXT
    for name in {"aux_file", "db_name", "data_type"} & set(header.keys()):
        header[name] = ""
    header.extensions.clear()
    header.set_data_offset(0)  # right behind the header
    with (
        atomic_path(path) as part,
        part.open("wb") as raw,
        # Neither name nor time, so that the bytes depend on the volume only.
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as stream,
    ):
        image.to_stream(stream)


def _intent_name(result: SourceResult, intent: int) -> str:
    # The first class gives the probability its name; a label map has several.
    name = result.classes[0].name if intent == ESTIMATE or len(result.classes) == 1 else "classes"
    return name.encode("ascii", "replace").decode()[:15]


def _over_nifti(nibabel: Any, path: Path, frames: U8) -> Any:
    try:
        source = nibabel.load(path)
        header = source.header.copy()
        shape = tuple(int(n) for n in source.shape)
    except Exception as error:
        raise InputError(f"can no longer be read ({line_from_error(error)})") from error
    width, height, depth, times = (*shape, 1, 1, 1)[:4]
    if frames.shape != (depth * times, height, width):
        raise InputError(f"has the shape {shape}, and its masks {frames.shape}")
    voxels = frames.reshape(times, depth, height, width).transpose(3, 2, 1, 0).reshape(shape)
    header.set_data_dtype(np.uint8)
    # Without an affine of its own the image takes over sform and qform as they stand.
    return type(source)(voxels, None, header)


def _over_dicom(nibabel: Any, headers: Any, frames: U8) -> Any:
    placement: Placement = placement_from_headers(headers, len(frames))
    voxels: NDArray[Any] = frames.transpose(2, 1, 0)
    if placement.order is not None:
        voxels = voxels[:, :, placement.order]
        voxels = voxels if voxels.shape[3] > 1 else voxels[..., 0]
    elif placement.still:  # frames of one place are times
        voxels = voxels[:, :, None, :]
    image = nibabel.Nifti1Image(voxels, None)
    header = image.header
    header.set_data_dtype(np.uint8)
    header.set_xyzt_units("mm" if placement.known else "unknown", "sec" if placement.seconds else "unknown")
    zooms = [*placement.zooms, placement.seconds or 1.0]
    header.set_zooms(zooms[: voxels.ndim])
    if placement.affine is not None:
        header.set_sform(placement.affine, code="scanner")
        if placement.square:
            header.set_qform(placement.affine, code="scanner")
    return image
