"""`benchmarks/precision.py` from end to end on a small graph: cells are kept, limits and absent systems are results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from support.precision_graphs import scenes, tiny_graph
from support.trees import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import precision


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny_graph(tmp_path)
    for name, count, seed in (("calib", 12, 3), ("unseen", 3, 4)):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(scenes(count, seed=seed)):
            assert cv2.imwrite(str(tmp_path / name / f"{number}.png"), picture)
    return tmp_path


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "benchmarks/precision.py", "--graph", place / "tiny.onnx", "--no-setup"]
    command += ["--calib", place / "calib", "--unseen", place / "unseen", "--work", place / "w", "--out", place / "o"]
    clean = os.environ | {"GMS_RT_CACHE": str(place / "cache")}
    return subprocess.run([*command, "--rounds", "2", "--seconds", "1", *words], capture_output=True, text=True,
                          env=clean, timeout=300)  # fmt: skip


@pytest.mark.slow
def test_one_command_builds_judges_times_and_goes_on_where_it_stopped(place: Path) -> None:
    done = run(place, "--systems", "gms-rt")
    assert done.returncode == 0, done.stderr
    found = json.loads((place / "o/tiny.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["fp32, in OpenVINO"]["ratio"] == 1 and "gms-rt, i8+f32" in rows
    ours = rows["gms-rt, i8+f32"]
    assert 0 < ours["lowest"] <= ours["percentile_5"] <= ours["mean"] <= 1 and ours["ratio"] > 0
    assert found["pictures"] == {"calibration": 2, "validation": 10, "unseen": 3}
    page = (place / "o/README.md").read_text()
    assert f"| gms-rt, i8+f32 | {ours['mean']:.4f} | {ours['percentile_5']:.4f}" in page
    cell = place / "w/tiny/gms-rt.json"
    before = cell.stat().st_mtime_ns
    done = run(place, "--systems", "gms-rt", "--cells-only")
    assert done.returncode == 0 and cell.stat().st_mtime_ns == before, "it is not built again"
    done = run(place, "--systems", "gms-rt", "--again", "gms-rt", "--cells-only")
    assert done.returncode == 0 and cell.stat().st_mtime_ns > before


def test_a_process_that_takes_too_long_is_ended_and_says_so(tmp_path: Path) -> None:
    found = precision.child([sys.executable, "-c", "while True: pass"], tmp_path, 0.01)
    assert found["failed"] == "not finished in 0.01 minutes of processor time" and found["late"]
    assert found["cpu_seconds"] >= 0.5
    failed = precision.child([sys.executable, "-c", "print('one'); raise SystemExit('the reason')"], tmp_path, 1)
    assert failed["failed"] == "the reason" and not failed["late"]


def test_what_is_written_down_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    found = precision.child(
        [sys.executable, "-c", f"raise SystemExit('no {tmp_path}/m.onnx in lmm/conv')"], tmp_path, 1
    )
    assert found["failed"] == "no m.onnx in lmm/conv"
    assert precision.reason(OSError(f"{tmp_path}/m.onnx: gone")) == "m.onnx: gone"


def test_a_system_that_is_not_there_is_a_line_with_the_reason(place: Path) -> None:
    done = run(place, "--systems", "nncf quantize", "--cells-only")
    assert done.returncode == 0, done.stderr
    row = json.loads((place / "o/tiny.json").read_text())["rows"][1]
    try:
        import nncf  # noqa: F401
    except ImportError:
        assert "No module named 'nncf'" in row["failed"] and row["name"] == "nncf quantize"
    else:
        assert row["name"] == "nncf quantize, in OpenVINO" and row["lowest"] >= 0


@pytest.mark.parametrize(("busy", "words"), [(2.0, "machine idle"), (60.0, "on a busy machine"), (None, "busy")])
def test_a_latency_of_a_busy_machine_is_marked(busy: float | None, words: str) -> None:
    timing = {"rounds": 3, "others_percent": busy, "when": "2026-01-01T00:00:00+00:00"}
    rows = [{"name": "a|b", "failed": "no | bars", "cpu_seconds": 3.2}, {"name": "c", "ratio": 0.5, "median_ms": 2.0}]
    counts = {"calibration": 1, "validation": 2, "unseen": 3}
    found = {"model": "sdvae", "about": "random", "pictures": counts, "timing": timing, "rows": rows}
    lines = precision.table(found)
    assert any(words in line for line in lines)
    assert lines[-3].count("|") - lines[-3].count("a|b") == 8 and "no / bars" in lines[-3]
    assert lines[-2] == "| c |  |  |  | 0.50 | 2.0 |  |"


def test_a_model_needs_its_pictures() -> None:
    done = subprocess.run([sys.executable, ROOT / "benchmarks/precision.py", "--graph", "g.onnx"], capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 2 and "--graph needs --calib and --unseen" in done.stderr
