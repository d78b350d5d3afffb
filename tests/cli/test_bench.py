"""The verbs `bench` and `parity` on a real engine, through the C library."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.bench_runner import (
    SIDE,
    fused_graph,
    native_engine,
    native_missing,
    replaced,
)

from gms_rt.cli.main import run
from gms_rt.errors import ArtifactError
from gms_rt.graph.count import work_from_file

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


@native
def test_a_changed_model_is_not_timed(tmp_path, capsys):
    folder = native_engine(tmp_path / "e")
    fused_graph(folder / "model.onnx", weight=0.5)
    assert run(["bench", "--engine", str(folder), "--out", str(tmp_path / "r"), *QUICK]) == 1
    assert "hash differs" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
