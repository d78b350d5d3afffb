"""Windows and values that no 32-bit float holds, as a damaged or a foreign file may have them."""

from __future__ import annotations

import numpy as np
import pytest

from gms_rt.scan.window import to_8bit


@pytest.mark.parametrize(
    ("values", "low", "high", "shown"),
    [
        ([-1e300, 0.0, 5e299, 1e300], -1e300, 1e300, [0, 128, 191, 255]),
        ([-1.7e308, 0.0, 1.7e308], -1.7e308, 1.7e308, [0, 128, 255]),
        ([0.0, 1e-310, 1.0], 0.0, 1e-310, [0, 255, 255]),  # a factor beyond every float
        ([0.0, 0.25, 1e200, -1e200], 0.0, 1.0, [0, 64, 255, 0]),
        ([np.nan, np.inf, -np.inf, 0.5, 1e39], 0.0, 1.0, [0, 0, 0, 128, 255]),
    ],
)
def test_what_float32_does_not_hold(values: list[float], low: float, high: float, shown: list[int]) -> None:
    assert to_8bit(np.array(values), low, high).tolist() == shown


def test_numbers_of_numpy_are_no_other_numbers() -> None:
    window = np.float64(0.0), np.float64(1e-310)
    assert to_8bit(np.array([0, 7], np.int16), *window).tolist() == [0, 255]
