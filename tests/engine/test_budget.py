"""A latency budget: which row is taken, what is said where none can be, and the engine that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper
from support.precision_graphs import scenes, tiny_model

from gms_rt.artifacts import sha256_file, sha256_json
from gms_rt.cli.main import run
from gms_rt.engine import within_budget
from gms_rt.engine.budget import BudgetRow, chosen_rows, milliseconds_from_text, nothing_within, why_chosen
from gms_rt.engine.budget_truth import truth_record, why_too_far
from gms_rt.engine.manifest import read_manifest, verify_files
from gms_rt.engine.select import load
from gms_rt.engine.students import students_of
from gms_rt.engine.within_budget import smaller_sizes
from gms_rt.errors import DeviceError, GateError, UsageError

NOT_HERE = DeviceError("this CPU has no BF16")
MISSED = "the accuracy gate is not met: Dice to FP32 mean 0.9700 (gate 0.99), minimum 0.9100 (gate 0.95)"


def row(name: str, ms: float, mean: float = 1.0, threads: int = 2, **more: Any) -> BudgetRow:
    gate = {"mean": mean, "minimum": mean - 0.01, "promise": None}
    values = {"kind": "run", "precision": name, "bytes": 100, "p99": ms * 1.1, "runs": 50, "gate": gate, **more}
    return BudgetRow(name, milliseconds=ms, threads=threads, **values)


@pytest.mark.parametrize("text", ["30", "ms", "-3ms", "0ms", "3 m", "1e3ms", "nan ms"])
def test_a_budget_needs_a_time_with_a_unit(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time; write 30ms"):
        milliseconds_from_text(text)


def test_the_closest_to_fp32_that_is_fast_enough_is_taken_with_the_fewest_threads() -> None:
    rows = [row("int8", 10, 0.995), row("int8", 14, 0.995, 1), row("bf16", 18, 0.998), row("fp32", 40)]
    rows += [row("fp16", 12, 0.9999, why=MISSED)]
    taken = {}
    for budget in (9, 12, 15, 20, 50):
        best = [r for r in chosen_rows(rows, budget) if r.chosen]
        taken[budget] = (best[0].precision, best[0].threads) if best else None
    assert taken == {9: None, 12: ("int8", 2), 15: ("int8", 1), 20: ("bf16", 2), 50: ("fp32", 2)}
    assert not any(r.pareto for r in chosen_rows(rows, 9) if r.why), "what does not hold is not on the front"
    # bf16 with more threads and no faster is beaten by itself with one.
    beaten = chosen_rows([row("bf16", 18, 0.998, 1), row("bf16", 18, 0.998, 2)], 20)
    assert [r.pareto for r in beaten] == [True, False]


def test_the_run_as_trained_comes_before_other_sizes_and_students() -> None:
    truth = {"mean": 0.99, "low": 0.98, "high": 1.0}
    small = row("fp32 at 32x32", 3, kind="size", precision="fp32", truth=truth)
    pupil = row("student s, int8", 1, kind="student", precision="int8", truth=truth | {"mean": 0.95})
    rows = chosen_rows([row("int8", 9, 0.993), small, pupil], 10)
    assert [r.name for r in rows if r.chosen] == ["int8"]
    assert [r.name for r in chosen_rows([row("int8", 9), small, pupil], 5) if r.chosen] == ["fp32 at 32x32"]


def test_why_it_was_taken_names_the_tail_and_the_threads() -> None:
    rows = chosen_rows([row("int8", 9.5, 0.993, 1), row("bf16", 9.8, 0.99, 1)], 10)
    said = why_chosen(rows, 10)
    assert said.startswith("int8, 1 thread: the closest of 2 that hold the gate within 10 ms (median 9.5 ms)")
    assert "99th percentile is 10.45 ms" in said and said.endswith("run it with --threads 1")
    assert "the only one that holds the gate within 10 ms" in why_chosen(chosen_rows(rows[:1], 10), 10)


def test_where_nothing_fits_both_sides_are_named() -> None:
    error = nothing_within([row("int8", 9, 0.97, why=MISSED), row("bf16", 21.3, 0.998), row("fp32", 40)], 12)
    assert error.exit_code == 3, "what is fast enough misses the gate"
    assert "the fastest that holds the gate is bf16, 2 threads with 21.3 ms" in error.what
    assert f"int8, 2 threads takes 9 ms, but {MISSED}" in error.what
    assert error.fix is not None and "--budget 23ms would do" in error.fix and "lower gate" in error.fix
    error = nothing_within([row("int8", 9.0, 0.995), row("fp32", 40)], 5)
    assert error.exit_code == 4, "this device is too slow"
    assert error.fix is not None and "--budget 9.5ms" in error.fix
    error = nothing_within([row("int8", 9.0, 0.9, why=MISSED), row("fp32", 40)], 5)
    assert error.exit_code == 4 and "nothing is fast enough: int8, 2 threads takes 9 ms" in error.what


def test_another_size_must_keep_the_dice_to_the_truth() -> None:
    fp32 = np.full(40, 0.9)
    near = truth_record(fp32 - 0.001, fp32)
    assert (near["mean"], near["loss"], near["images"]) == (0.899, 0.001, 40)
    assert why_too_far(near, 0.01, "") == ""
    spread = np.where(np.arange(40) % 2, 0.2, -0.19)
    assert "below FP32's at the trained size" in why_too_far(truth_record(fp32 - spread, fp32), 0.01, ""), "not certain"
    assert why_too_far(None, 0.01, "the run has no validation pictures") == (
        "it is not judged: the run has no validation pictures"
    )


def small_run(folder: Path, sizes: tuple[int, ...] = (64, 48, 32)) -> Path:
    """A run whose graphs were exported before, so that nothing needs torch."""
    folder.mkdir(parents=True)
    (folder / "lmm.safetensors").write_bytes(folder.name.encode())
    (folder / "tokenizer.json").write_text(json.dumps({"stride": 16}))
    (folder / "config.toml").write_text("[training]\nsize = 64\n")
    for size in sizes:
        model = tiny_model(size=size)
        source = json.dumps({"sha256": sha256_file(folder / "lmm.safetensors")})
        helper.set_model_props(model, {"gms_rt.name": "tiny", "gms_rt.source": source})
        onnx.save(model, folder / f"fused-{size}x{size}.onnx")
    return folder


def student(folder: Path, teacher: str) -> Path:
    """A folder that says whose student it is."""
    folder.mkdir(parents=True)
    told = f'[run]\nformat = "gms-rt-student"\nversion = 1\n[student]\nsize = 64\n[teacher]\nsha256 = "{teacher}"\n'
    (folder / "config.toml").write_text(told)
    return folder


def test_the_students_of_a_run_are_those_that_it_taught(tmp_path: Path) -> None:
    place = small_run(tmp_path / "runs/a", ())
    own = sha256_json([sha256_file(place / "lmm.safetensors"), {"stride": 16}])
    wanted = [student(tmp_path / f"runs/{name}", own) for name in ("b", "a/edge", "sweep/small")]
    taught_by_two = student(tmp_path / "runs/f", "1" * 64)
    with (taught_by_two / "config.toml").open("a") as told:
        told.write(f'each = ["{"2" * 64}", "{own}"]\n')
    wanted.append(taught_by_two)
    student(tmp_path / "runs/c", "0" * 64)
    small_run(tmp_path / "runs/d", ())
    (tmp_path / "runs/e").mkdir()
    (tmp_path / "runs/e/config.toml").write_text("is not [toml")
    assert sorted(students_of(place)) == sorted(wanted)
    # A tokenizer that has moved is the same tokenizer.
    (place / "tokenizer.json").write_text(json.dumps({"stride": 16, "source": "/elsewhere/taef2", "revision": None}))
    assert sorted(students_of(place)) == sorted(wanted)
    assert students_of(tmp_path / "runs/b") == [], "a student has none"


def test_smaller_sizes_are_on_the_tokenizers_grid(tmp_path: Path) -> None:
    place = small_run(tmp_path / "run", ())
    assert smaller_sizes(place) == [(48, 48), (32, 32)]
    (place / "tokenizer.json").write_text(json.dumps({"stride": 32}))
    assert smaller_sizes(place) == [(32, 32)], "48 is not on a grid of 32"
    (place / "tokenizer.json").write_text("[]")
    assert smaller_sizes(place) == []


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds by engine folder; with one thread it takes twice as long."""
    known = {"int8": 10.0, "bf16": 20.0, "fp16": 30.0, "fp32": 40.0}

    def measured(folders: dict[int, Path]) -> dict[tuple[int, int], Any]:
        found = {}
        for number, folder in folders.items():
            precision = folder.name.removesuffix("-ungated").rpartition("-")[2]
            value = known[precision] / (4 if "at-" in folder.name else 1)
            found |= {(number, 1): np.full(50, value * 2), (number, 2): np.full(50, value)}
        return found

    monkeypatch.setattr(within_budget, "measured_latencies", measured)
    return known


def pictures(folder: Path, count: int = 9) -> Path:
    for number, image in enumerate(scenes(count)):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / f"images/{number}.png"), image)
        mask = (cv2.GaussianBlur(image[:, :, 0], (9, 9), 0) < 120).astype(np.uint8) * 255
        assert cv2.imwrite(str(folder / f"masks/{number}.png"), mask)
    return folder


def words(source: Path, budget: str, out: str = "engines/e") -> list[str]:
    gate = ["--gate-mean", "0.5", "--gate-min", "0.5"]
    return ["build", str(source), "--budget", budget, "--target", "cpu", "--calib", "data/images", *gate, "--out", out]


def test_a_run_within_a_budget(tmp_path: Path, times, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    place = small_run(tmp_path / "runs/a")
    pictures(tmp_path / "data")
    split = {"train": ["0"], "validation": [str(n) for n in range(1, 9)], "test": []}
    (place / "split.json").write_text(json.dumps(split))
    (place / "config.toml").write_text(f'[training]\nsize = 64\n[data]\nfolder = "{tmp_path / "data"}"\n')
    assert run([*words(place, "50ms"), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    rows = value["budget"]["rows"]
    assert {r["name"] for r in rows if r["kind"] == "run"} == {"int8", "bf16", "fp16", "fp32"}
    sizes = [r for r in rows if r["kind"] == "size"]
    assert {(r["height"], r["width"]) for r in sizes} == {(48, 48), (32, 32)} and all(r["truth"] for r in sizes)
    best = next(r for r in rows if r["chosen"])
    # On so small a graph another type may give the very masks of FP32.
    assert best["kind"] == "run" and best["milliseconds"] <= 50
    assert best["precision"] == "fp32" or best["gate"]["mean"] == 1
    out = tmp_path / "engines/e"
    manifest = read_manifest(out)
    verify_files(out, manifest)
    assert json.loads((out / "budget.json").read_text()) == value["budget"] and "budget.json" in manifest.files
    assert any(note.startswith(f"chosen for a budget: {best['precision']}, ") for note in manifest.notes)
    assert f"--precision {best['precision']}" in manifest.rebuild and f"--out {Path('engines/e')}" in manifest.rebuild
    assert [path.name for path in out.parent.iterdir()] == ["e"], "nothing else stays"
    with load(out) as engine:
        assert engine.manifest.precision == best["precision"]


def test_nothing_within_a_budget_says_what_would_do_and_goes_on_there(tmp_path: Path, times, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = small_run(tmp_path / "runs/a")
    pictures(tmp_path / "data")
    assert run(words(place, "4ms")) == 3
    said = capsys.readouterr()
    assert "not judged" in said.out and "the run does not say what it was trained on" in said.out
    assert "at 32x32" in said.err and "would do" in said.err and not (tmp_path / "engines/e").exists()
    assert "another --budget goes on there" in said.out and (tmp_path / "engines/.budget-e/fp32/engine.json").is_file()
    assert run(words(place, "1ms")) == 4, "nothing is fast enough"
    before = (tmp_path / "engines/.budget-e/fp32/engine.json").stat().st_mtime_ns
    built = within_budget.build_engine

    def noted(request, progress):
        made = built(request, progress)
        assert made.unchanged, f"{request.out} was built before"
        return made

    monkeypatch.setattr(within_budget, "build_engine", noted)
    assert before and run(words(place, "11ms")) == 0
    assert read_manifest(tmp_path / "engines/e").precision == "int8"
    assert not (tmp_path / "engines/.budget-e").exists()


def test_what_misses_the_gate_is_timed_to_tell_how_far_it_is(tmp_path: Path, times, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    place = small_run(tmp_path / "runs/a", (64,))
    pictures(tmp_path / "data")
    build = within_budget.build_engine

    def narrow(request, progress):
        if request.precision == "bf16" or (request.precision == "int8" and request.gate.mean > 0):
            raise GateError(f"{MISSED}; block, damage, decision: many") if request.precision == "int8" else NOT_HERE
        return build(request, progress)

    monkeypatch.setattr(within_budget, "build_engine", narrow)
    assert run([*words(place / "fused-64x64.onnx", "15ms"), "--json"]) == 3
    said = capsys.readouterr()
    value = json.loads(said.out)
    assert value["engine"] is None and value["error"]["exit_code"] == 3
    assert f"gms-rt: {value['error']['message']}\n" in said.err
    rows = {(r["name"], r["threads"]): r for r in value["budget"]["rows"]}
    assert rows["int8", 2]["milliseconds"] == 10 and rows["int8", 2]["gate"]["mean"] > 0.5
    assert rows["int8", 2]["why"] == MISSED and rows["bf16", 0]["why"] == NOT_HERE.what
    assert f"int8, 2 threads takes 10 ms, but {MISSED}" in said.err
    assert "the fastest that holds the gate is fp16, 2 threads with 30 ms" in said.err


def test_a_budget_chooses_the_type(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["build", "--budget", "30ms", "--precision", "int8"]) == 2
    assert "leave --precision out" in capsys.readouterr().err
    assert run(["build", "--budget", "30"]) == 2
    assert "write 30ms" in capsys.readouterr().err


def test_latencies_are_measured_in_turn_with_several_threads(tmp_path: Path, graph: Path, monkeypatch) -> None:
    from gms_rt.engine.build import build_engine
    from gms_rt.engine.request import BuildRequest

    built = build_engine(BuildRequest(graph, tmp_path / "e", "fp32", ("cpu",)))
    monkeypatch.setattr(within_budget, "_SECONDS", 0.0)
    monkeypatch.setattr(within_budget, "thread_counts", lambda: [1, 2])
    found = within_budget.measured_latencies({7: built.folder})
    assert set(found) == {(7, 1), (7, 2)} and all(len(each) >= 5 and (each > 0).all() for each in found.values())
