"""Pictures that are made for the teacher: what they follow from, and that they are pictures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gms_rt.distill.mixed import Mixing, mixed_picture


def images(count: int = 5, height: int = 48, width: int = 40) -> NDArray[np.uint8]:
    """Grey gradients with a bright place each."""
    y, x = np.mgrid[0:height, 0:width]
    found = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        place = (x - 8 * number - 4) ** 2 + (y - 20) ** 2 < 40
        found[number] = np.where(place, 230, 60 + x + y)[..., None]
    return found


def test_a_picture_follows_from_seed_and_number_alone() -> None:
    stored = images()
    before = stored.copy()
    first = [mixed_picture(stored, number, Mixing(4, 7, True)) for number in range(10)]
    for number in reversed(range(10)):
        assert np.array_equal(mixed_picture(stored, number, Mixing(9, 7, True)), first[number])
    assert np.array_equal(stored, before)
    assert len({picture.tobytes() for picture in first}) == 10
    assert not np.array_equal(mixed_picture(stored, 0, Mixing(4, 8, True)), first[0])


def test_pictures_are_whole_and_not_the_stored_ones() -> None:
    stored = images()
    for number in range(40):
        made = mixed_picture(stored, number, Mixing(8, 0, True))
        assert made.dtype == np.uint8 and made.shape == stored.shape[1:]
        assert np.ptp(made) > 20  # something is to be seen
        assert np.array_equal(made[..., 0], made[..., 1])  # grey stays grey
        nearest = min(np.abs(made.astype(int) - one).mean() for one in stored)
        assert nearest > 2


def test_without_a_mirror_left_stays_left() -> None:
    half = np.zeros((1, 64, 64, 3), np.uint8)
    half[:, :, 32:] = 255  # of one picture: mixed with itself it is still dark at the left
    for number in range(60):
        made = mixed_picture(half, number, Mixing(60, 1, False)).astype(float)
        assert made[16:48, :16].mean() <= made[16:48, -16:].mean()
    mirrored = [mixed_picture(half, number, Mixing(60, 1, True)).astype(float) for number in range(60)]
    assert any(made[16:48, :16].mean() > made[16:48, -16:].mean() + 50 for made in mirrored)


@pytest.mark.parametrize("level", [0, 255])
def test_an_even_picture_is_no_hindrance(level: int) -> None:
    even = np.full((1, 32, 32, 3), level, np.uint8)
    for number in range(20):
        assert np.isfinite(mixed_picture(even, number, Mixing(20, 0, True))).all()
