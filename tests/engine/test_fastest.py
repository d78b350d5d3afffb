"""`--precision auto`: every type is tried, the fastest that holds the gate stays, and the table says what was tried."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from support.precision_graphs import scenes
from support.small_builds import CALIBRATION, GATE, built

from gms_rt.artifacts import sha256_file
from gms_rt.cli.main import run
from gms_rt.engine import fastest
from gms_rt.engine.fastest import build_fastest
from gms_rt.engine.manifest import Plan, read_manifest, verify_files, write_manifest
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.errors import GateError, UsageError
from gms_rt.parity.after_build import certify_built
from gms_rt.precision.gate import Gate


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Times as if each type were faster than the one above it; which were timed."""
    asked: list[set[str]] = []

    def times(folders: dict[str, Path]) -> dict[str, float]:
        asked.append(set(folders))
        return {name: {"int8": 1.0, "bf16": 2.0, "fp16": 3.0, "fp32": 4.0}[name] for name in folders}

    monkeypatch.setattr(fastest, "_milliseconds", times)
    return asked


def request(graph: Path, out: Path, gate: Gate) -> BuildRequest:
    return BuildRequest(graph, out, "fp32", ("cpu",), calibration=CALIBRATION, gate_images=GATE, gate=gate)


def test_the_fastest_type_that_holds_the_gate_is_built(graph, tmp_path, timed):
    out = tmp_path / "engines/e"
    made, table = build_fastest(request(graph, out, Gate(0.5, 0.5)))
    chosen = next(each for each in table if each.chosen)
    assert chosen.milliseconds == min(each.milliseconds for each in table if each.milliseconds is not None)
    assert timed == [{each.precision for each in table if not each.why}]
    manifest = read_manifest(out)
    assert (manifest.precision, manifest.name, made.folder) == (chosen.precision, "e", out)
    assert manifest == made.manifest and f"--precision {chosen.precision}" in manifest.rebuild
    verify_files(out, manifest)
    assert any(note.startswith("the fastest of the types that hold the gate here: int8") for note in manifest.notes)
    assert [path.name for path in out.parent.iterdir()] == ["e"], "nothing else stays"
    assert certify_built(made)["verdict"] == "pass"
    with load(out) as engine:
        assert engine.manifest.precision == chosen.precision


def test_a_type_that_misses_the_gate_is_told_of_and_not_taken(graph, tmp_path, timed, monkeypatch):
    build = fastest.build_engine

    def narrow(one, progress):
        if one.precision in ("int8", "bf16"):
            raise GateError("the accuracy gate is not met; block, damage, decision: many")
        return build(one, progress)

    monkeypatch.setattr(fastest, "build_engine", narrow)
    _, table = build_fastest(request(graph, tmp_path / "e", Gate(0.5, 0.5)))
    rows = {each.precision: each for each in table}
    assert rows["int8"].why == "the accuracy gate is not met" and rows["int8"].milliseconds is None
    assert rows["fp16"].chosen and "int8" not in timed[0]


def test_a_type_without_a_verdict_is_not_taken(graph, tmp_path, timed):
    _, table = build_fastest(BuildRequest(graph, tmp_path / "e", "fp32", ("cpu",), gate_limit=2))
    rows = {each.precision: each for each in table}
    assert "INT8 is calibrated on images like those it will see" in rows["int8"].why
    assert rows["bf16"].why and "bf16" not in timed[0], "no picture judged it, or this CPU has none"
    assert rows["fp16"].why.startswith("judged on drawn pictures only") and timed == [{"fp32"}]
    assert rows["fp32"].why == ""


def test_the_bundled_model_is_judged_on_the_pictures_that_it_is_for(tmp_path, timed):
    _, table = build_fastest(BuildRequest(None, tmp_path / "e", "fp32", ("cpu",), calibration_limit=2, gate_limit=2))
    rows = {each.precision: each for each in table}
    assert rows["fp16"].why == rows["int8"].why == "" and {"int8", "fp16", "fp32"} <= timed[0]


def test_the_command_prints_the_table_and_an_interrupted_build_goes_on(graph, tmp_path, timed, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = scenes(8)
    (tmp_path / "scans").mkdir()
    import cv2

    for number, image in enumerate(images):
        assert cv2.imwrite(f"scans/{number}.png", image)
    words = ["build", str(graph), "--precision", "auto", "--target", "cpu", "--calib", "scans", "--gate-min", "0.5"]
    words += ["--gate-mean", "0.5", "--out", "e"]
    settle = fastest.settled_engine
    monkeypatch.setattr(fastest, "settled_engine", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert run(words) == 130
    assert (tmp_path / ".auto-e/fp16/engine.json").is_file()
    monkeypatch.setattr(fastest, "settled_engine", settle)
    capsys.readouterr()
    assert run([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert {row["precision"] for row in value["tried"]} == {"int8", "bf16", "fp16", "fp32"}
    assert value["unchanged"] is False, "the engine is new, whatever was finished before the interruption"
    assert sum(row["chosen"] for row in value["tried"]) == 1 and not (tmp_path / ".auto-e").exists()
    assert run(words) == 0
    said = capsys.readouterr().out
    assert ("mean Dice  lowest" in said and "* int8" in said) or "* bf16" in said or "* fp16" in said
    assert run([*words, "--recipe", "e"]) == 2
    assert "a recipe is for one precision" in capsys.readouterr().err


def test_what_stops_every_type_is_said_as_it_is(graph, tmp_path, timed, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["build", str(graph), "--precision", "auto", "--target", "cpu", "--calib", "absent"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gms-rt: absent: does not exist") and "no type" not in said

    def missed(one, progress):
        if one.precision == "fp32":
            raise UsageError("this fp32 build compares no masks, so nothing can be promised")
        raise GateError(f"{one.precision} misses")

    monkeypatch.setattr(fastest, "build_engine", missed)
    with pytest.raises(GateError, match=r"no type could be built: int8 not \(int8 misses\); .*fp32 not \(this fp32"):
        build_fastest(request(graph, tmp_path / "e", Gate()))


def test_what_is_not_an_engine_is_not_replaced(graph, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="exists and is not an engine"):
        build_fastest(request(graph, tmp_path / "mine", Gate()))


def test_engines_are_timed_in_turn_on_this_device(graph, tmp_path):
    made, table = build_fastest(BuildRequest(graph, tmp_path / "e", "fp32", ("cpu",), gate_limit=2))
    assert all(each.milliseconds > 0 for each in table if not each.why)
    assert np.argmin([each.milliseconds or np.inf for each in table]) == [each.chosen for each in table].index(True)
    assert made.manifest.gate is not None or made.manifest.precision == "fp32"


def test_plans_for_other_devices_stay_where_the_recipe_is_the_same(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    made = {name: built(graph, tmp_path / f"work-{name}", name) for name in ("fp16", "fp32")}
    fp16 = request(graph, out, Gate(0.5, 0.5))
    first = fastest.settled_engine(made["fp16"], fp16, "first", {"table.json": {"rows": []}})
    assert "table.json" in first.manifest.files and "first" in first.manifest.notes
    (out / "tensorrt-rtx-sm89.plan").write_bytes(b"plan")
    plan = Plan("tensorrt-rtx", "tensorrt-rtx-sm89.plan", sha256_file(out / "tensorrt-rtx-sm89.plan"), 4, 89, "1", 1.0)
    counts = first.manifest.census | {plan.file: {"fp16": 3}}
    write_manifest(out, dataclasses.replace(first.manifest, plans=[plan], census=counts))
    again = fastest.settled_engine(made["fp16"], fp16, "again").manifest
    assert (again.plans, again.census[plan.file]) == ([plan], {"fp16": 3}) and again == read_manifest(out)
    assert again.targets == ["cpu", "tensorrt-rtx"]
    verify_files(out, again)
    other = fastest.settled_engine(made["fp32"], fp16, "other").manifest
    assert other.plans == [] and not (out / plan.file).exists()
    assert f"{plan.file} of the engine that stood here were of another recipe (fp16) and are gone" in other.notes
