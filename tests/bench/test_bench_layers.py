"""Which engines of a bench are profiled: those that do not take long, all, or none; and what a failure costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from support.bench_runner import ThresholdRunner, engine_folder, golden_images, opener

from gms_rt.bench import layers
from gms_rt.bench.latency import TimingOptions, measure
from gms_rt.bench.layers import LayerOptions, layers_of_engines
from gms_rt.bench.results import Measured
from gms_rt.engine.layer_profile import EngineProfile, LayerProfile
from gms_rt.errors import DeviceError

PROFILE = EngineProfile(
    "built as this", "f32", "cpu", "FP32", 1.0, {"lmm": 1.0},
    (LayerProfile("lmm/a", "lmm", "Convolution", "u8", 1.0, 0.5, 0.25, ("lmm/a",)),), ("lmm/a",), 0.9, "a clock",
)  # fmt: skip


@pytest.fixture
def measured(tmp_path: Path) -> list[Measured]:
    """A quick engine, a slow one, and a peer."""
    folders = [engine_folder(tmp_path / name) for name in ("quick", "slow")]
    runners = {"quick": ThresholdRunner(delay=0.001), "slow": ThresholdRunner(delay=0.3)}
    found = measure(folders, TimingOptions(seconds=0.1, warmup=0, rounds=2, cold=False), opener=opener(**runners))
    rows = list(found.measured)
    return [*rows, dataclasses.replace(rows[0], name="peer", kind="peer")]


def names(measured: list[Measured], wanted: bool | None) -> tuple[list[str], str]:
    found, why = layers_of_engines(measured, golden_images()[0], LayerOptions(wanted), lambda _: None)
    return [each.engine for each in found], why


def test_by_default_what_takes_long_is_left_out_and_said(measured, monkeypatch):
    asked = []
    monkeypatch.setattr(
        layers, "profile_engine", lambda folder, how: asked.append((folder.name, how.device)) or PROFILE
    )
    found, why = names(measured, None)
    assert found == ["quick"] and why == "slow: an inference takes 300 ms; --layers profiles it all the same"
    assert names(measured, True) == (["quick", "slow"], "")
    assert names(measured, False) == ([], "not asked for")
    assert asked == [("quick", "cpu"), ("quick", "cpu"), ("slow", "cpu")]


def test_an_engine_that_cannot_be_profiled_keeps_its_place(measured, monkeypatch):
    def refuse(folder, how):
        raise DeviceError("has no CPU graph", where=folder)

    monkeypatch.setattr(layers, "profile_engine", refuse)
    assert names(measured, None)[1].startswith("quick: has no CPU graph; slow: an inference takes")
