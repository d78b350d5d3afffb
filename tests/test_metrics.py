"""Dice, IoU, HD95, surface Dice and lesion matching against definitions written differently and against known cases."""

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


@settings(max_examples=100, deadline=None)
@given(PAIRS, SPACINGS, st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.3]))
def test_surface_dice_agrees_with_scipy(
    pair: tuple[NDArray[np.bool_], NDArray[np.bool_]], spacing: tuple[float, float], tolerance: float
) -> None:
    a, b = pair
    got = metrics.surface_dice(a, b, tolerance + 1e-5, spacing)
    if not (a.any() and b.any()):
        assert got == (1.0 if a.any() == b.any() else 0.0)
        return
    edges = [m ^ ndimage.binary_erosion(m) for m in (a, b)]
    fields = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    near = (fields[1][edges[0]] <= tolerance + 1e-5).sum() + (fields[0][edges[1]] <= tolerance + 1e-5).sum()
    assert got == pytest.approx(near / (edges[0].sum() + edges[1].sum()))


def lesions_by_hand(truth: NDArray[np.bool_], found: NDArray[np.bool_], least: float) -> tuple[int, int, int]:
    """The stated rule, pair by pair over sets of pixels."""
    sides = []
    for mask in (truth, found):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions = [{tuple(p) for p in np.argwhere(labels == n)} for n in range(1, count + 1)]
        sides.append(sorted(regions, key=min))
    pairs = [(len(t & f) / len(t | f), i, j) for i, t in enumerate(sides[0]) for j, f in enumerate(sides[1])]
    used: tuple[set[int], set[int]] = (set(), set())
    for overlap, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if overlap >= least and i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
    return len(sides[0]), len(used[0]), len(sides[1]) - len(used[1])


@settings(max_examples=200, deadline=None)
@given(PAIRS, st.sampled_from([0.01, 0.1, 0.34, 0.5, 1.0]))
def test_lesions_are_matched_as_the_rule_says(pair: tuple[NDArray[np.bool_], NDArray[np.bool_]], least: float) -> None:
    got = metrics.match_lesions(*pair, least)
    lesions, found, alarms = lesions_by_hand(*pair, least)
    assert got.lesions == lesions
    # Between pairs of equal overlap the order is free, and may change how many find a partner.
    assert abs(got.found - found) <= 1
    assert got.found + got.false_alarms == found + alarms, "every region of the prediction is one or the other"


def test_two_lesions_in_one_region_are_one_found_and_a_split_one_is_a_false_alarm() -> None:
    truth, joined = np.zeros((6, 20), np.uint8), np.zeros((6, 20), np.uint8)
    truth[1:5, 1:8] = truth[1:5, 10:17] = 1
    joined[1:5, 1:17] = 1
    assert metrics.match_lesions(truth, joined) == (2, 1, 0)
    assert metrics.match_lesions(joined, truth) == (1, 1, 1)
    speck = truth.copy()
    speck[0, 19] = 1
    assert metrics.match_lesions(truth, speck) == (2, 2, 1)
    faint = np.zeros_like(truth)
    faint[1, 1:3] = 1
    assert metrics.match_lesions(truth, faint) == (2, 0, 1), "2 of 28 pixels are below the least overlap of 0.1"
    assert metrics.match_lesions(truth, faint, 0.05) == (2, 1, 0)
    nothing = np.zeros_like(truth)
    assert metrics.match_lesions(nothing, nothing) == (0, 0, 0)
    with pytest.raises(UsageError, match="IoU"):
        metrics.match_lesions(truth, faint, 0)


def test_a_tolerance_is_checked() -> None:
    square = np.ones((3, 3), np.uint8)
    assert metrics.surface_dice(square, square, 0) == 1
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="tolerance"):
            metrics.surface_dice(square, square, wrong)
