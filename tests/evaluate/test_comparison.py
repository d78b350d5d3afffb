"""Paired comparison against scipy, and Bland-Altman by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gms_rt.errors import UsageError
from gms_rt.evaluate.case_result import CaseResult
from gms_rt.evaluate.comparison import bland_altman, compare_evaluations, wilcoxon

stats = pytest.importorskip("scipy.stats")


def case(name: str, dice: float, area: int = 100, error: str = "") -> CaseResult:
    iou = dice / (2 - dice)
    return CaseResult(name, 10, 10, dice, iou, 10 * (1 - dice), dice, iou, 5.0, 100, area, 0.1, error)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=60))
def test_wilcoxon_is_scipys(values: list[int]) -> None:
    differences = np.array(values, np.float64)
    mine = wilcoxon(differences)
    kept = differences[differences != 0]
    if not len(kept):
        assert (mine.p, mine.pairs) == (1.0, 0)
        return
    method = "exact" if mine.method == "exact" else "approx"
    theirs = stats.wilcoxon(kept, correction=False, method=method)
    assert mine.statistic == pytest.approx(theirs.statistic)
    assert mine.p == pytest.approx(theirs.pvalue, abs=1e-9)


def test_a_clear_gain_is_seen_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.6, 0.9, 60)
    first = [case(str(i), d) for i, d in enumerate(base)]
    better = compare_evaluations(first, [case(str(i), d) for i, d in enumerate(base + rng.uniform(0.01, 0.05, 60))])
    assert better["dice"]["interval95"][0] > 0
    assert better["dice"]["wilcoxon_p"] < 1e-6
    same = compare_evaluations(first, [case(str(i), d) for i, d in enumerate(base + rng.normal(0, 0.01, 60))])
    assert same["dice"]["wilcoxon_p"] > 0.01
    assert same["dice"]["difference"] == pytest.approx(same["dice"]["second"] - same["dice"]["first"], abs=2e-6)


def test_pairs_are_joined_by_name_and_failures_left_out() -> None:
    first = [case("a", 0.5), case("b", 0.6), case("c", 0.7, error="broken")]
    found = compare_evaluations(first, [case("b", 0.7), case("a", 0.9), case("d", 1.0)])
    assert (found["pairs"], found["only_in_first"], found["only_in_second"]) == (2, 1, 1)
    assert found["dice"]["difference"] == pytest.approx(0.25)
    with pytest.raises(UsageError, match="share no case"):
        compare_evaluations(first, [case("z", 1.0)])


def test_misses_have_no_distance_to_compare() -> None:
    lost = CaseResult("a", 10, 10, 0.0, 0.0, math.inf, 0.0, 0.0, math.inf, 100, 0)
    found = compare_evaluations([case("a", 0.5), case("b", 0.5)], [lost, case("b", 0.6)])
    assert found["hd95"]["pairs"] == 1
    assert found["dice"]["pairs"] == 2


def test_bland_altman() -> None:
    first, second = np.array([100.0, 200, 300]), np.array([110.0, 190, 315])
    found = bland_altman(first, second)
    spread = 1.96 * np.std([10, -10, 15], ddof=1)
    assert found["bias"] == pytest.approx(5)
    assert found["low"] == pytest.approx(5 - spread, abs=1e-3)
    assert found["high"] == pytest.approx(5 + spread, abs=1e-3)
