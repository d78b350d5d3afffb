"""No phantom serves two purposes."""

from __future__ import annotations

import itertools

from gms_rt.demo import seeds


def test_no_two_ranges_meet() -> None:
    ranges = {name: value for name, value in vars(seeds).items() if isinstance(value, range)}
    assert len(ranges) >= 8
    for (one, first), (other, second) in itertools.combinations(ranges.items(), 2):
        assert first.stop <= second.start or second.stop <= first.start, f"{one} meets {other}"
