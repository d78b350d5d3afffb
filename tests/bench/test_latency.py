"""Latency figures follow trtexec's definitions, turns are fair, and what makes a figure doubtful is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.bench_runner import SIDE, ThresholdRunner, engine_folder, opener

from gms_rt.bench.latency import TimingOptions, measure
from gms_rt.bench.percentiles import curve_from_samples, latency_from_samples, trtexec_percentile
from gms_rt.bench.subjects import labels
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import read_manifest
from gms_rt.errors import UsageError


def test_percentiles_follow_the_index_rule():
    ascending = np.arange(1.0, 1001.0)
    for p, expected in ((0, 1.0), (50, 500.0), (90, 900.0), (95, 950.0), (100, 1000.0)):
        # index max(N - 1 - int((1 - p / 100) * N), 0); the value at index i is i + 1
        assert trtexec_percentile(ascending, p) == expected
    assert trtexec_percentile(np.array([7.0]), 99) == 7.0
    assert trtexec_percentile(np.arange(10.0), 90) == 8.0


def test_the_median_averages_the_middle_two():
    assert latency_from_samples([1.0, 2.0, 4.0, 9.0]).median == 3.0
    assert latency_from_samples([1.0, 2.0, 9.0]).median == 2.0


def test_the_coefficient_of_variation_is_in_percent():
    assert latency_from_samples([9.0, 11.0]).cov == pytest.approx(10.0)


def test_no_or_impossible_samples_are_refused():
    for samples in ([], [1.0, float("nan")], [-1.0]):
        with pytest.raises(UsageError):
            latency_from_samples(samples)


def test_the_curve_runs_from_minimum_to_maximum():
    curve = curve_from_samples([5.0, 1.0, 3.0])
    assert (curve[0], curve[50], curve[-1], len(curve)) == (1.0, 3.0, 5.0, 101)


class _Noting(ThresholdRunner):
    """Writes its name down at each round."""

    def __init__(self, name: str, book: list[str], **options: float) -> None:
        super().__init__(**options)
        self.name, self.book = name, book

    def _bench(self, images, seconds, iterations, warmup):
        self.book.append(self.name)
        return super()._bench(images, seconds, iterations, warmup)


def test_rounds_take_turns_and_the_order_rotates(tmp_path):
    book: list[str] = []
    folders = [engine_folder(tmp_path / name) for name in "abc"]
    runners = {name: _Noting(name, book, delay=0.001) for name in "abc"}
    result = measure(folders, TimingOptions(seconds=0.06, warmup=0, rounds=3, cold=False), opener=opener(**runners))
    rounds = ["".join(book[i : i + 3]) for i in range(0, 9, 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 3
    assert len({each[0] for each in rounds}) == 3
    assert [len(m.rounds) for m in result.measured] == [3, 3, 3]


def test_figures_add_up(tmp_path):
    folder = engine_folder(tmp_path / "a")
    runner = ThresholdRunner(delay=0.002)
    result = measure([folder], TimingOptions(seconds=0.2, warmup=0.01, rounds=4, cold=False), opener=opener(a=runner))
    (m,) = result.measured
    assert m.total.min == pytest.approx(2.0)
    assert m.total.min <= m.total.median <= m.total.p90 <= m.total.p95 <= m.total.p99 <= m.total.max
    assert m.throughput == pytest.approx(m.total.count / m.seconds)
    assert m.seconds >= 0.2
    assert m.low <= np.median(m.rounds) <= m.high
    assert m.total == m.compute


def test_a_slowed_engine_shows(tmp_path):
    folders = [engine_folder(tmp_path / name) for name in ("fast", "slow")]
    runners = {"fast": ThresholdRunner(delay=0.001), "slow": ThresholdRunner(delay=0.003)}
    result = measure(folders, TimingOptions(seconds=0.3, warmup=0, rounds=3, cold=False), opener=opener(**runners))
    fast, slow = result.measured
    assert slow.total.min / fast.total.min == pytest.approx(3)
    assert slow.total.median / fast.total.median == pytest.approx(3)


def test_a_short_run_is_marked(tmp_path):
    folder = engine_folder(tmp_path / "a")
    result = measure(
        [folder], TimingOptions(seconds=0.05, rounds=2, cold=False), opener=opener(a=ThresholdRunner(delay=0.001))
    )
    assert any("too short" in w for w in result.measured[0].warnings)


def test_an_unsteady_engine_is_marked(tmp_path):
    folder = engine_folder(tmp_path / "a")
    runner = ThresholdRunner(delay=0.001, hiccup=5)
    result = measure([folder], TimingOptions(seconds=0.2, rounds=2, cold=False), opener=opener(a=runner))
    assert result.measured[0].total.cov > 50
    assert any("CoV" in w for w in result.measured[0].warnings)


def test_wrong_orders_are_refused_before_anything_is_opened(tmp_path):
    folder = engine_folder(tmp_path / "a")
    for wrong in ({"seconds": 0.0}, {"rounds": 0}, {"warmup": -1.0}, {"seconds": float("nan")}):
        with pytest.raises(UsageError):
            measure([folder], TimingOptions(cold=False, **wrong), opener=opener())
    with pytest.raises(UsageError):
        measure([], TimingOptions(cold=False))
    with pytest.raises(UsageError, match="twice"):
        labels(["a/b", "a/b"])


def test_engines_are_closed_even_when_one_fails(tmp_path):
    folders = [engine_folder(tmp_path / name) for name in "ab"]

    class Failing(ThresholdRunner):
        def _bench(self, images, seconds, iterations, warmup):
            raise UsageError("broken on purpose")

    runners = {"a": ThresholdRunner(), "b": Failing()}
    with pytest.raises(UsageError, match="on purpose"):
        measure(folders, TimingOptions(seconds=0.1, cold=False), opener=opener(**runners))
    for runner in runners.values():
        with pytest.raises(UsageError, match="closed"):
            runner.infer(np.zeros((1, SIDE, SIDE, 3), np.uint8))


def test_results_are_plain_frozen_data(tmp_path):
    folder = engine_folder(tmp_path / "a")
    result = measure(
        [folder], TimingOptions(seconds=0.05, rounds=1, cold=False), opener=opener(a=ThresholdRunner(delay=0.001))
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.device = "another"


def test_a_plan_that_was_not_taken_is_told_of_in_the_report(tmp_path):
    folder = engine_folder(tmp_path / "a")

    def open_without_plan(path, **_):
        return Engine(path, read_manifest(path), ThresholdRunner(), notice="plan x was not built on this machine")

    result = measure([folder], TimingOptions(seconds=0.05, rounds=1, cold=False), opener=open_without_plan)
    assert result.warnings[0] == "plan x was not built on this machine"
