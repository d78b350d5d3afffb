"""Phantoms: the same from the same seed, honest masks, lesions that can be seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from gms_rt.demo.phantoms import CONTRASTS, POSTERIORS, SHAPES, phantom
from gms_rt.demo.seeds import HELD_OUT_SEEDS

SEEDS = HELD_OUT_SEEDS[:40]


@pytest.fixture(scope="module")
def drawn():
    return [phantom(seed, 224, 224) for seed in SEEDS]


def test_a_seed_gives_the_same_phantom_and_another_seed_another():
    first, again, other = phantom(5, 96, 128), phantom(5, 96, 128), phantom(6, 96, 128)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert first.lesions == again.lesions
    assert first.image.shape != other.image.shape or not np.array_equal(first.image, other.image)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (60, 200), (333, 97)])
def test_sizes_and_types(height, width):
    case = phantom(1, height, width)
    assert case.image.dtype == case.mask.dtype == np.uint8
    assert case.image.shape[:2] == case.mask.shape == (height, width)
    assert case.rgb.shape == (height, width, 3)
    assert set(np.unique(case.mask)) <= {0, 255}


def test_too_small_is_refused():
    with pytest.raises(ValueError, match="at least 32"):
        phantom(0, 16, 64)


def test_mask_and_lesions_agree(drawn):
    for case in drawn:
        assert bool(case.lesions) == bool(case.mask.any())
        parts, _ = cv2.connectedComponents(case.mask)
        assert parts - 1 == len(case.lesions)
        for lesion in case.lesions:
            assert case.mask[round(lesion.centre[1]), round(lesion.centre[0])] == 255


def test_every_kind_occurs_and_some_are_empty_double_or_tinted(drawn):
    lesions = [lesion for case in drawn for lesion in case.lesions]
    assert {lesion.shape for lesion in lesions} == set(SHAPES)
    assert {lesion.contrast for lesion in lesions} == set(CONTRASTS)
    assert {lesion.posterior for lesion in lesions} == set(POSTERIORS)
    assert {len(case.lesions) for case in drawn} == {0, 1, 2}
    assert 0 < sum(case.image.ndim == 3 for case in drawn) < len(drawn) / 2


def test_a_lesion_differs_from_the_tissue_beside_it(drawn):
    kernel = np.ones((3, 19), np.uint8)
    for case in drawn:
        if len(case.lesions) != 1:
            continue
        inside = cv2.erode(case.mask, np.ones((5, 5), np.uint8)) > 0
        beside = (cv2.dilate(case.mask, kernel) > 0) & (cv2.dilate(case.mask, np.ones((5, 5), np.uint8)) == 0)
        grey = case.rgb.mean(axis=2)
        # Compare with what lies at the same depth, so that neither gain nor shadow helps.
        difference = grey[inside].mean() - grey[beside].mean()
        darker = case.lesions[0].contrast != "hyper"
        assert (difference < -8) if darker else (difference > 8), case.lesions


def test_looks_alike_at_any_size():
    greys = []
    for seed in range(6):
        small, large = phantom(seed, 112, 112), phantom(seed, 336, 336)
        assert [o.contrast for o in small.lesions] == [o.contrast for o in large.lesions]
        assert np.allclose([o.radius for o in small.lesions], [o.radius / 3 for o in large.lesions])
        greys.append([(c.rgb.mean(), c.rgb.std()) for c in (small, large)])
    means, spreads = np.array(greys).mean(axis=0).T
    assert abs(means[0] - means[1]) < 10 and abs(spreads[0] - spreads[1]) < 6
