"""Two benches of one engine: what is slower beyond noise is found, noise is not."""

from __future__ import annotations

import dataclasses

import pytest
from support.bench_runner import ThresholdRunner, engine_folder, opener

from gms_rt.bench.compare import compare_benches
from gms_rt.bench.latency import TimingOptions, measure
from gms_rt.bench.results import Ceiling, Roofline
from gms_rt.errors import UsageError


def _benches(tmp_path, *medians: float):
    """Benches of one engine that differ in the medians of their five rounds, in milliseconds."""
    quick = TimingOptions(seconds=0.1, warmup=0, rounds=5, cold=False)
    found = measure([engine_folder(tmp_path / "e")], quick, opener=opener(e=ThresholdRunner(delay=0.001)))
    (m,) = found.measured
    for middle in medians:
        rounds = tuple(middle * noise for noise in (0.99, 1.0, 1.0, 1.005, 1.01))
        yield dataclasses.replace(found, measured=(dataclasses.replace(m, rounds=rounds),))


def test_compare_finds_a_slowed_engine_and_lets_an_equal_one_pass(tmp_path):
    old, new = _benches(tmp_path, 1.0, 1.3)
    assert [c.verdict for c in compare_benches(old, new).changes] == ["regression"]
    assert [c.verdict for c in compare_benches(new, old).changes] == ["improvement"]
    assert [c.verdict for c in compare_benches(old, old).changes] == ["same"]


def test_compare_does_not_cry_wolf_over_noise(tmp_path):
    (old,) = _benches(tmp_path, 1.0)
    (m,) = old.measured
    noisy = dataclasses.replace(old, measured=(dataclasses.replace(m, rounds=(0.9, 1.0, 1.1, 1.4, 1.5)),))
    steady = dataclasses.replace(old, measured=(dataclasses.replace(m, rounds=(1.0,) * 5),))
    (change,) = compare_benches(steady, noisy).changes
    assert change.ratio == pytest.approx(1.1)
    assert change.verdict == "unclear"
    assert not compare_benches(steady, noisy).regressions


def test_compare_refuses_what_cannot_be_compared(tmp_path):
    (old,) = _benches(tmp_path, 1.0)
    with pytest.raises(UsageError, match="one device"):
        compare_benches(old, dataclasses.replace(old, device="another"))
    (m,) = old.measured
    with pytest.raises(UsageError, match="in common"):
        compare_benches(old, dataclasses.replace(old, measured=(dataclasses.replace(m, name="other"),)))
    other = dataclasses.replace(old, measured=(dataclasses.replace(m, threads=9),))
    assert compare_benches(old, other).changes[0].verdict == "unclear"
    few = dataclasses.replace(old, measured=(dataclasses.replace(m, rounds=(9.0,)),))
    assert compare_benches(old, few).changes[0].verdict == "unclear"


def test_compare_says_when_the_machine_itself_changed(tmp_path):
    (old,) = _benches(tmp_path, 1.0)
    ceilings = [Roofline((Ceiling("copy", value, "GB/s", "x"),), ()) for value in (20.0, 10.0)]
    before, after = (dataclasses.replace(old, roofline=c) for c in ceilings)
    assert any("machine itself" in d for d in compare_benches(before, after).doubts)
