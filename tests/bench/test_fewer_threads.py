"""A small engine that loses by waiting for many threads says so; others do not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.bench_runner import SIDE, ThresholdRunner, engine_folder

from gms_rt.arrays import U8
from gms_rt.bench import fewer_threads
from gms_rt.bench.fewer_threads import with_thread_hints
from gms_rt.bench.latency import TimingOptions, measure
from gms_rt.bench.results import Measured
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import read_manifest

IMAGES: U8 = np.zeros((1, SIDE, SIDE, 3), np.uint8)


class Machine:
    """Eight cores, on which an engine takes so many seconds with each number of threads."""

    def __init__(self, delays: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.delays, self.opened = delays, list[int]()
        monkeypatch.setattr(fewer_threads, "probe", lambda: SimpleNamespace(cpu=SimpleNamespace(cores=8)))

    def open(self, folder: Path, *, threads: int = 0, **_: object) -> Engine:
        self.opened.append(threads)
        runner = ThresholdRunner(delay=self.delays[threads])
        runner.info = dataclasses.replace(runner.info, threads=threads or 8)
        return Engine(folder, read_manifest(folder), runner)

    def measured(self, folder: Path) -> tuple[Measured, ...]:
        found = measure([folder], TimingOptions(seconds=0.2, cold=False), opener=self.open).measured
        self.opened.clear()
        return found


def test_the_fastest_number_of_threads_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({0: 0.002, 1: 0.0015, 4: 0.001}, monkeypatch)
    found = with_thread_hints(
        machine.measured(engine_folder(tmp_path / "small")), IMAGES, TimingOptions(), opener=machine.open
    )
    hint = "faster on fewer threads: 1.00 ms with 4 threads, 2.00 ms as timed here; for one image at a time give"
    assert found[0].warnings[-1] == f"{hint} --threads 4"
    assert sorted(machine.opened) == [0, 1, 4]


@pytest.mark.parametrize(
    ("delays", "options"),
    [
        ({0: 0.002, 1: 0.003, 4: 0.00195}, TimingOptions()),  # not clearly faster
        ({0: 0.002, 1: 0.001, 4: 0.001}, TimingOptions(threads=8)),  # a number was asked for
        ({0: 0.050, 1: 0.001, 4: 0.001}, TimingOptions()),  # large enough for all cores
    ],
)
def test_others_say_nothing(
    delays: dict[int, float], options: TimingOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(delays, monkeypatch)
    measured = machine.measured(engine_folder(tmp_path / "engine"))
    assert with_thread_hints(measured, IMAGES, options, opener=machine.open) == measured
