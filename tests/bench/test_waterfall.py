"""The way of a file to its mask, step by step."""

from __future__ import annotations

import numpy as np
from support.bench_runner import SIDE, ThresholdRunner, engine_folder, opener

from gms_rt.bench.waterfall import waterfall


def test_the_waterfall_adds_up_and_knows_the_engine(tmp_path):
    folder = engine_folder(tmp_path / "e")
    image = np.load(folder / "golden.npz")["images"][0]
    with opener(e=ThresholdRunner())(folder) as engine:
        fall = waterfall(engine, "e", None, image, repeats=3)
    assert [s.name for s in fall.stages if s.inside_engine] == ["engine"]
    assert fall.stages[0].name == "read file"
    assert fall.stages[-1].name == "write file, synced"
    assert fall.source_size == (3 * SIDE, 3 * SIDE)
    assert all(s.milliseconds >= 0 for s in fall.stages)
