"""Dice, IoU and HD95 against definitions written differently and against known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from gms_rt import metrics
from gms_rt.errors import UsageError

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
PAIRS = SHAPES.flatmap(lambda s: st.tuples(hnp.arrays(np.bool_, s), hnp.arrays(np.bool_, s)))
SPACINGS = st.sampled_from([(1.0, 1.0), (0.5, 0.5), (0.3, 1.7)])


def reference_hd95(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: tuple[float, float]) -> float:
    """The same definition through scipy: erosion for surfaces, exact distance transform."""
    edges = [m ^ ndimage.binary_erosion(m) for m in (a, b)]
    fields = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return float(max(np.percentile(fields[1][edges[0]], 95), np.percentile(fields[0][edges[1]], 95)))


@given(PAIRS)
def test_dice_and_iou_agree_with_their_definitions(pair: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> None:
    a, b = pair
    both, either = (a & b).sum(), (a | b).sum()
    assert metrics.dice(a, b) == (2 * both / (a.sum() + b.sum()) if either else 1.0)
    assert metrics.iou(a, b) == (both / either if either else 1.0)
    assert metrics.dice(a, b) == metrics.dice(b, a)
    assert metrics.differing_pixels(a, b) == (a != b).sum()


@settings(max_examples=150, deadline=None)
@given(PAIRS, SPACINGS)
def test_hd95_agrees_with_scipy(
    pair: tuple[NDArray[np.bool_], NDArray[np.bool_]], spacing: tuple[float, float]
) -> None:
    a, b = pair
    got = metrics.hd95(a, b, spacing)
    if a.any() and b.any():
        assert got == pytest.approx(reference_hd95(a, b, spacing), abs=1e-4)
    else:
        assert got == (0.0 if a.any() == b.any() else math.inf)


def test_a_missed_lesion_is_a_miss() -> None:
    truth, nothing = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    assert metrics.dice(truth, nothing) == 0
    assert metrics.iou(truth, nothing) == 0
    assert metrics.hd95(truth, nothing) == math.inf
    assert metrics.dice(nothing, nothing) == 1


def test_any_foreground_value_counts() -> None:
    a = np.array([[0, 1], [255, 0]], np.uint8)
    assert metrics.dice(a, a > 0) == 1


def test_shapes_and_spacing_are_checked() -> None:
    square = np.ones((3, 3), np.uint8)
    with pytest.raises(UsageError, match="cannot be compared"):
        metrics.dice(square, np.ones((3, 4), np.uint8))
    with pytest.raises(UsageError, match="spacing"):
        metrics.hd95(square, square, (0.0, 1.0))
