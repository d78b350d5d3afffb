"""The verbs `bench` and `parity` on a real engine, through the C library."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
from support.bench_runner import (
    SIDE,
    ThresholdRunner,
    engine_folder,
    fused_graph,
    native_engine,
    native_missing,
    opener,
    replaced,
)
from support.precision_graphs import scenes, tiny_graph

from gms_rt.bench.compare import compare
from gms_rt.bench.latency import measure
from gms_rt.bench.results import Ceiling, Roofline
from gms_rt.bench.sweep import default_lanes, sweep
from gms_rt.bench.waterfall import waterfall
from gms_rt.cli.main import run
from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.graph.count import work_from_file
from gms_rt.precision.images import ImageSet

native = pytest.mark.skipif(bool(native_missing()), reason=native_missing() or "-")
QUICK = ["--seconds", "0.3", "--rounds", "3", "--warmup", "0.05"]


@native
def test_bench_writes_a_whole_report(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    good, wrong = native_engine(tmp_path / "good"), native_engine(tmp_path / "wrong", weight=0.75)
    out = tmp_path / "report"
    arguments = ["bench", "--engine", str(good), "--engine", str(wrong), "--against", "onnxruntime", "--out", str(out)]
    assert run([*arguments, *QUICK]) == 0
    screen = capsys.readouterr().out
    assert "FAIL" in screen
    assert "too short" in screen
    value = json.loads((out / "report.json").read_text())
    assert [m["name"] for m in value["bench"]["measured"]] == ["good", "wrong", "onnxruntime"]
    assert {p["engine"]: p["verdict"] for p in value["parity"]} == {"good": "pass", "wrong": "fail"}
    first, _, peer = value["bench"]["measured"]
    assert first["cold"]["load_ms"] > 0
    assert first["cold"]["host_bytes"] > first["cold"]["interpreter_bytes"] > 0
    # 8 filters of 27 and 1 of 8 at each pixel, two operations each.
    assert first["flop"] == pytest.approx(2 * SIDE * SIDE * (8 * 27 + 8))
    assert peer["reference_dice"] > 0.99
    assert peer["truth_dice"] > 0.9
    assert value["bench"]["sweep"]
    assert len(value["bench"]["waterfalls"]) == 2
    assert {r["engine"] for r in value["bench"]["roofline"]["rows"]} == {"good", "wrong"}
    assert [c["name"] for c in value["bench"]["roofline"]["ceilings"]] == ["product, f32", "copy"]
    assert (good / "parity.json").is_file()
    assert any("gms-rt bench" in c["line"] for c in value["commands"])
    page = (out / "report.html").read_text()
    assert "Worst cases: wrong" in page
    # The command that the report gives to reproduce it is a command.
    assert run(["bench", "compare", str(out / "report.json"), str(out)]) == 0


@native
def test_bare_bench_takes_the_newest_engine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    native_engine(tmp_path / "engines" / "only")
    assert run(["bench", "--no-sweep", "--json", *QUICK]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["format"] == "gms-rt-report"
    (folder,) = (tmp_path / "reports").iterdir()
    assert folder.name.startswith("only-")
    assert sorted(p.name for p in folder.iterdir()) == ["report.csv", "report.html", "report.json", "report.md"]


@native
def test_certificates_are_made_anew_unless_forbidden(tmp_path, capsys):
    folder = native_engine(tmp_path / "e")
    order = ["bench", "--engine", str(folder), "--no-sweep", *QUICK, "--out"]
    assert run([*order, str(tmp_path / "r.md"), "--no-certify"]) == 0
    assert "not certified" in capsys.readouterr().out
    assert "not certified" in (tmp_path / "r.md").read_text()
    assert not (folder / "parity.json").exists()
    assert run(["parity", str(folder)]) == 0
    before = json.loads((folder / "parity.json").read_text())["engine"]["manifest_sha256"]
    replaced(folder, created="2026-03-03T00:00:00+00:00")
    assert run([*order, str(tmp_path / "r.json")]) == 0
    assert json.loads((folder / "parity.json").read_text())["engine"]["manifest_sha256"] != before
    assert json.loads((tmp_path / "r.json").read_text())["parity"][0]["verdict"] == "pass"


@native
def test_parity_certifies_verifies_and_fails_with_its_exit_code(tmp_path, capsys):
    good, wrong = native_engine(tmp_path / "good"), native_engine(tmp_path / "wrong", weight=0.75)
    assert run(["parity", str(good)]) == 0
    assert "PASS" in capsys.readouterr().out
    assert run(["parity", "verify", str(good / "parity.json")]) == 0
    assert run(["parity", str(wrong), "--json"]) == 3
    assert json.loads((wrong / "parity.json").read_text())["verdict"] == "fail"
    forged = json.loads((good / "parity.json").read_text())
    forged["cases"][0]["dice"] = 0.5
    (good / "parity.json").write_text(json.dumps(forged))
    capsys.readouterr()
    assert run(["parity", "verify", str(good / "parity.json")]) == 3
    assert "does NOT hold" in capsys.readouterr().out


@native
def test_parity_on_data_needs_and_takes_a_reference(tmp_path, capsys):
    import cv2

    pytest.importorskip("onnxruntime")
    folder = native_engine(tmp_path / "e")
    fused_graph(tmp_path / "original.onnx")
    images = np.load(folder / "golden.npz")["images"]
    (tmp_path / "scans").mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / "scans" / f"s{i}.png"), image)
    assert run(["parity", str(folder), "--data", str(tmp_path / "scans")]) == 2
    assert "--reference" in capsys.readouterr().err
    order = ["parity", str(folder), "--data", str(tmp_path / "scans"), "--reference", str(tmp_path / "original.onnx")]
    assert run(order) == 0
    certificate = json.loads((folder / "parity-scans.json").read_text())
    assert "ONNX Runtime" in certificate["reference"]["what"]
    assert len(certificate["cases"]) == len(images)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "--engine", "absent"], "not an engine folder"),
        (["bench", "--out", "x.pdf"], ""),
        (["bench", "--seconds", "0"], "--seconds"),
        (["parity", "absent"], "absent"),
        (["parity", "verify", "absent.json"], "cannot be read"),
        (["bench", "compare", "a.json", "b.json"], "cannot be read"),
        (["parity"], "there is no engine"),
    ],
)
def test_mistakes_end_in_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert words in error
    assert len(error.splitlines()) == 1


def _two(tmp_path, old_ms: float, new_ms: float, **options):
    folder = engine_folder(tmp_path / "e")
    results = []
    for delay in (old_ms, new_ms):
        runner = ThresholdRunner(delay=delay / 1e3, **options)
        results.append(measure([folder], seconds=0.25, warmup=0, rounds=5, cold=False, opener=opener(e=runner)))
    return results


def test_compare_finds_a_slowed_engine_and_lets_an_equal_one_pass(tmp_path):
    old, new = _two(tmp_path, 1.0, 1.3)
    assert [c.verdict for c in compare(old, new).changes] == ["regression"]
    assert [c.verdict for c in compare(new, old).changes] == ["improvement"]
    assert [c.verdict for c in compare(old, old).changes] == ["same"]


def test_compare_does_not_cry_wolf_over_noise(tmp_path):
    old, _ = _two(tmp_path, 1.0, 1.0)
    (m,) = old.measured
    noisy = dataclasses.replace(old, measured=(dataclasses.replace(m, rounds=(0.9, 1.0, 1.1, 1.4, 1.5)),))
    steady = dataclasses.replace(old, measured=(dataclasses.replace(m, rounds=(1.0,) * 5),))
    (change,) = compare(steady, noisy).changes
    assert change.ratio == pytest.approx(1.1)
    assert change.verdict == "unclear"
    assert not compare(steady, noisy).regressions


def test_compare_refuses_what_cannot_be_compared(tmp_path):
    old, _ = _two(tmp_path, 1.0, 1.0)
    with pytest.raises(UsageError, match="one device"):
        compare(old, dataclasses.replace(old, device="another"))
    (m,) = old.measured
    with pytest.raises(UsageError, match="in common"):
        compare(old, dataclasses.replace(old, measured=(dataclasses.replace(m, name="other"),)))
    other = dataclasses.replace(old, measured=(dataclasses.replace(m, threads=9),))
    assert compare(old, other).changes[0].verdict == "unclear"
    few = dataclasses.replace(old, measured=(dataclasses.replace(m, rounds=(9.0,)),))
    assert compare(old, few).changes[0].verdict == "unclear"


def test_compare_says_when_the_machine_itself_changed(tmp_path):
    old, _ = _two(tmp_path, 1.0, 1.0)
    ceilings = [Roofline((Ceiling("copy", value, "GB/s", "x"),), ()) for value in (20.0, 10.0)]
    before, after = (dataclasses.replace(old, roofline=c) for c in ceilings)
    assert any("machine itself" in d for d in compare(before, after).doubts)


def test_work_is_counted_by_hand(tmp_path):
    work = work_from_file(fused_graph(tmp_path / "g.onnx", side=16))
    assert work.flop == 2 * 16 * 16 * (8 * 27 + 8)
    assert work.parameters == 8 * 27 + 8
    assert work.int8_share == 0
    # In and out of both convolutions, and their weights, at four bytes.
    assert work.bytes == 4 * (16 * 16 * (3 + 8) + 16 * 16 * (8 + 1) + 8 * 27 + 8)
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(ArtifactError):
        work_from_file(tmp_path / "bad.onnx")


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


def test_the_sweep_opens_once_for_each_number_of_streams(tmp_path):
    folder = engine_folder(tmp_path / "e")
    asked = []

    def open_engine(path, **options):
        asked.append((options["lanes"], options["mode"], options["threads"]))
        return opener()(path)

    images = np.zeros((1, 8, 8, 3), np.uint8)
    quick = {"seconds": 0.02, "warmup": 0, "threads": 3, "opener": open_engine}
    points, why = sweep([folder], images, lanes=[1, 2], **quick)
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
    points, why = sweep([tmp_path / "open", tmp_path / "fixed"], images.images, lanes=[1], batches=(2, 3),
                        seconds=0.05, warmup=0, threads=1)  # fmt: skip
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
    points, why = sweep([folder], np.zeros((1, 8, 8, 3), np.uint8), lanes=[1], seconds=0.02, warmup=0, opener=slow)
    assert len(points) == 1
    assert "slow: batch 2 and more would take longer" in why


@native
def test_a_changed_model_is_not_timed(tmp_path, capsys):
    folder = native_engine(tmp_path / "e")
    fused_graph(folder / "model.onnx", weight=0.5)
    assert run(["bench", "--engine", str(folder), "--out", str(tmp_path / "r"), *QUICK]) == 1
    assert "hash differs" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
