"""The throughput-latency curve: which points are measured, and why some are not."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from support.bench_runner import ThresholdRunner, engine_folder, native_missing, opener
from support.precision_graphs import scenes, tiny_graph

from gms_rt.bench.sweep import SweepOptions, default_lanes, sweep
from gms_rt.cli.main import run
from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.errors import UsageError
from gms_rt.precision.images import ImageSet

native = pytest.mark.skipif(bool(native_missing()), reason=native_missing() or "-")
QUICK = ["--seconds", "0.3", "--rounds", "3", "--warmup", "0.05"]


def test_the_sweep_opens_once_for_each_number_of_streams(tmp_path):
    folder = engine_folder(tmp_path / "e")
    asked = []

    def open_engine(path, **options):
        asked.append((options["lanes"], options["mode"], options["threads"]))
        return opener()(path)

    images = np.zeros((1, 8, 8, 3), np.uint8)
    quick = SweepOptions(lanes=(1, 2), seconds=0.02, warmup=0, threads=3)
    points, why = sweep([folder], images, quick, opener=open_engine)
    assert asked == [(1, "latency", 3), (2, "throughput", 3)]
    assert why.startswith("No batch curve for e: its graph was exported for a batch of 1")
    assert all(p.throughput > 0 and p.median > 0 for p in points)
    assert default_lanes()[0] == 1


@native
def test_batches_are_swept_where_the_graph_leaves_them_open(tmp_path, capsys):
    images = ImageSet(scenes(2, seed=5), "scenes")
    for name, batch in (("open", "batch"), ("fixed", 1)):
        graph = tiny_graph(tmp_path, batch=batch)
        build_engine(BuildRequest(graph, tmp_path / name, "fp32", targets=("cpu",)))
    quick = SweepOptions(lanes=(1,), batches=(2, 3), seconds=0.05, warmup=0, threads=1)
    points, why = sweep([tmp_path / "open", tmp_path / "fixed"], images.images, quick)
    assert [(p.engine, p.batch, p.lanes) for p in points] == [
        ("open", 1, 1), ("open", 2, 1), ("open", 3, 1), ("fixed", 1, 1)
    ]  # fmt: skip
    assert "No batch curve for fixed: its graph was exported for a batch of 1" in why
    assert "open" not in why.partition(";")[0]
    with load(tmp_path / "open") as one, load(tmp_path / "open", batch=3) as three:
        assert (one.runner.info.batch, three.runner.info.batch) == (1, 3)
        assert np.abs(one.runner.infer(images.images).astype(int) - three.runner.infer(images.images)).max() <= 1
    with pytest.raises(UsageError, match="asked, this engine's is fixed at 1"):
        load(tmp_path / "fixed", batch=2)
    # All renderings show both kinds of points.
    out = tmp_path / "r"
    order = ["bench", "--engine", str(tmp_path / "open"), "--out", str(out), "--threads", "1", *QUICK]
    assert run([*order, "--no-certify"]) == 0
    value = json.loads((out / "report.json").read_text())["bench"]
    assert {p["batch"] for p in value["sweep"]} == {1, 2, 4, 8}
    assert value["sweep_why"] == ""
    rows = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    assert {row["batch"] for row in rows if row["kind"] == "sweep"} == {"1", "2", "4", "8"}
    assert all(float(row["images_per_second"]) > 0 for row in rows if row["kind"] == "sweep")
    assert "| open | 8 | 1 |" in (out / "report.md").read_text()
    assert "batch 8, 1 stream" in (out / "report.html").read_text()
    assert "dashed" in (out / "report.html").read_text()


def test_a_batch_that_would_take_too_long_is_left_out_and_named(tmp_path, monkeypatch):
    graph = tiny_graph(tmp_path, batch="batch")
    folder = engine_folder(tmp_path / "slow")
    (folder / "model.onnx").write_bytes(graph.read_bytes())
    monkeypatch.setattr("gms_rt.bench.sweep._POINT_SECONDS", 0.01)
    slow = opener(slow=ThresholdRunner(delay=0.002))
    points, why = sweep(
        [folder], np.zeros((1, 8, 8, 3), np.uint8), SweepOptions(lanes=(1,), seconds=0.02, warmup=0), opener=slow
    )
    assert len(points) == 1
    assert "slow: batch 2 and more would take longer" in why
