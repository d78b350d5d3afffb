"""An image's way through a model: the same mask by every path, and images that have no way refused."""

from __future__ import annotations

import numpy as np
import pytest

from gms_rt.arrays import U8
from gms_rt.errors import InputError, UsageError
from gms_rt.scan import resize_image, resize_probability
from gms_rt.scan.mask import levels_from_probability, mask_from_levels, resize_mask
from gms_rt.scan.segmenter import Segmenter, prepare_image

RNG = np.random.default_rng(3)


def first_channel(images: U8) -> U8:
    return np.ascontiguousarray(images[..., 0])


def test_the_steps_stand_in_this_order() -> None:
    image = RNG.integers(0, 256, (50, 70, 3), np.uint8)
    model = Segmenter(first_channel, 32, 48)
    small = resize_image(image, 32, 48)
    assert np.array_equal(model.prepare(image), small)
    assert np.array_equal(model.levels(image), small[..., 0])
    assert np.array_equal(model.probability(image), resize_probability(small[..., 0], 50, 70))
    expected = np.where(resize_probability(small[..., 0], 50, 70) >= np.float32(0.3), 255, 0)
    assert np.array_equal(model(image, threshold=0.3), expected)


def test_many_images_of_any_size_are_segmented_as_one_by_one() -> None:
    images = [RNG.integers(0, 256, shape, np.uint8) for shape in ((50, 70, 3), (20, 90), (31, 8, 1))]
    model = Segmenter(first_channel, 32, 48)
    assert model.batch([]) == []
    for image, mask in zip(images, model.batch(images), strict=True):
        assert np.array_equal(mask, model(image))
        assert mask.shape == image.shape[:2]


@pytest.mark.parametrize("image", [
    np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8),
])  # fmt: skip
def test_what_is_not_an_image_is_refused(image: U8) -> None:
    with pytest.raises(InputError, match=r"cannot be segmented|is empty"):
        prepare_image(image, 8, 8)


def test_a_threshold_outside_its_range_is_refused() -> None:
    with pytest.raises(UsageError, match="threshold"):
        Segmenter(first_channel, 8, 8)(np.zeros((8, 8), np.uint8), threshold=1.0)


def test_levels_and_probabilities_meet_at_one_half() -> None:
    levels = np.arange(256, dtype=np.uint8)[None]
    probability = resize_probability(levels, *levels.shape)
    assert np.array_equal(levels_from_probability(probability), levels)
    assert np.array_equal(mask_from_levels(levels), np.where(probability >= 0.5, 255, 0))


def test_a_resized_mask_stays_black_and_white() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 255
    small = resize_mask(mask, 7, 9)
    assert set(np.unique(small)) == {0, 255}
    assert small[:, 5:].all() and not small[:, :4].any()
