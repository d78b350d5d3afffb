"""Where the frames of a DICOM file or series lie in the patient, as one affine for a volume of columns, rows, slices.

DICOM counts to the patient's left and back (LPS), NIfTI to the right and front (RAS). One affine can say that slices
are parallel and evenly spaced; slices that are not are refused, not bent. An enhanced file holds its frames in any
order: they are put in the order of their positions, and frames of one position are times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F64
from gms_rt.errors import InputError, line_from_error
from gms_rt.scan.dicom_spacing import functional_group, pixel_spacing

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_SAME = 1e-3  # millimetres between positions that are one
_UNEVEN = 0.05  # of the spacing: how far a slice may lie from its place; as where a series has one distance


@dataclass(frozen=True)
class Placement:
    """A volume's place: `affine` takes column, row, slice to millimetres (RAS); None where the header has no place."""

    zooms: tuple[float, float, float]  # millimetres between columns, rows, slices; 1 where not known
    affine: F64 | None = None
    known: bool = False  # whether spacing within a frame is known
    square: bool = False  # whether slices are stacked at right angles, which is all that a qform can say
    still: bool = False  # all frames lie in one place: a film
    seconds: float | None = None  # between the frames of a film
    order: NDArray[np.intp] | None = None  # of an enhanced file: the frames (from 0) by place and time; else as given


def placement_from_headers(headers: Sequence[Any], frames: int) -> Placement:
    """The place of `frames` frames, from one header of them all or one header for each."""
    try:
        return _placement(headers, frames)
    except InputError:
        raise
    except Exception as error:  # headers hold anything
        raise InputError(f"has a header without a usable position ({line_from_error(error)[:200]})") from error


def _placement(headers: Sequence[Any], frames: int) -> Placement:
    spacing = pixel_spacing(headers[0], 1)
    rows, columns = spacing or (1.0, 1.0)
    places = [_place(headers, number) for number in range(1, frames + 1)]
    single = len(headers) == 1 and frames > 1
    seconds = _seconds(headers[0]) if single else None
    if spacing is None or not any(places):
        still = single and "PerFrameFunctionalGroupsSequence" not in headers[0]
        return Placement((columns, rows, 1.0), known=spacing is not None, still=still, seconds=seconds)
    placed = [place for place in places if place is not None]
    if len(placed) < frames:
        raise InputError(f"has {frames - len(placed)} of {frames} frames without a position")
    if single and len({pixel_spacing(headers[0], number) for number in range(1, frames + 1)}) > 1:
        raise InputError("has frames of different spacing, which one affine cannot hold")
    positions, axes = np.array([place[0] for place in placed]), np.array([place[1] for place in placed])
    if np.abs(axes - axes[0]).max() > 1e-3:
        raise InputError("has slices of different orientations, which one affine cannot hold")
    along_row, along_column = axes[0, :3], axes[0, 3:]
    lengths = [np.linalg.norm(along_row), np.linalg.norm(along_column)]
    if not np.allclose(lengths, 1, atol=0.01) or abs(along_row @ along_column) > 0.01:
        raise InputError("has rows and columns whose directions are not of length 1 and at right angles")
    still = single and np.abs(positions - positions[0]).max() < 1e-6
    normal = np.cross(along_row, along_column)
    order = _order(positions, normal) if single and not still else None
    if order is not None:
        positions = positions[order[:, 0]]
        frames = len(order)
    if frames == 1 or still:
        step = normal * _thickness(headers[0])
    else:
        if np.abs(np.diff(positions @ normal)).min() < _SAME:
            raise InputError("has several slices in one place, which one affine cannot hold")
        step = (positions[-1] - positions[0]) / (frames - 1)
        away = np.linalg.norm(positions - positions[0] - np.arange(frames)[:, None] * step, axis=1).max()
        length = float(np.linalg.norm(step))
        if away > _UNEVEN * length:
            raise InputError(f"has slices that are not evenly spaced (one is {away:.2f} mm off its place)")
    affine = np.eye(4)
    affine[:3] = _LPS_TO_RAS @ np.column_stack([along_row * columns, along_column * rows, step, positions[0]])
    depth = float(np.linalg.norm(step))
    square = bool(np.linalg.norm(np.cross(step / depth, normal)) < 1e-4 and abs(along_row @ along_column) < 1e-4)
    return Placement((columns, rows, depth), affine, True, square, still, seconds if still else None, order)


def _order(positions: F64, normal: F64) -> NDArray[np.intp]:
    """The frames at each place along the normal, in the order in which they are stored."""
    heights = positions @ normal
    ranked = np.argsort(heights, kind="stable")
    ends = np.flatnonzero(np.diff(heights[ranked]) > _SAME) + 1
    groups = [np.sort(group) for group in np.split(ranked, ends)]
    if len({len(group) for group in groups}) > 1:
        raise InputError("has more frames at some positions than at others, which one volume cannot hold")
    order = np.stack(groups)
    if np.abs(positions[order] - positions[order[:, :1]]).max() > 10 * _SAME:
        raise InputError("has frames side by side in one plane, which one affine cannot hold")
    return order


def _place(headers: Sequence[Any], number: int) -> tuple[list[float], list[float]] | None:
    """Position and orientation of a frame, where its header says them."""
    header = headers[number - 1] if len(headers) > 1 else headers[0]
    position, orientation = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    if len(headers) == 1:
        plane = functional_group(header, number, "PlanePositionSequence")
        turned = functional_group(header, number, "PlaneOrientationSequence")
        position = plane.get("ImagePositionPatient") if plane else position
        orientation = turned.get("ImageOrientationPatient") if turned else orientation
    if not position or not orientation or len(position) != 3 or len(orientation) != 6:
        return None
    found = [float(value) for value in position], [float(value) for value in orientation]
    return found if all(np.isfinite([*found[0], *found[1]])) and any(found[1]) else None


def _thickness(header: Any) -> float:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = float(header.get(name) or 0)
        if np.isfinite(value) and value > 0:
            return value
    return 1.0


def _seconds(header: Any) -> float | None:
    value = float(header.get("FrameTime") or 0) / 1000
    return value if np.isfinite(value) and value > 0 else None
