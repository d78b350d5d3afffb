"""`gms-rt scale` as a person and a machine meet it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from support.scale_runs import archive, mean_engine

from gms_rt.cli.main import run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in", "--workers", "-1"], "cannot be negative"),
        (["in", "--address", "auto"], "belongs to --backend ray"),
        (["none"], "none: no such file or folder"),
        (["in", "--threshold", "2"], "--threshold: threshold 2.0 is not between 0 and 1"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path,
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    archive(Path("in"), 2)
    assert run(["scale", "infer", *arguments, "--engine", "engine", "--out", "out"]) == 2
    assert words in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="the ray extra is installed")
def test_without_ray_the_extra_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive(tmp_path / "in", 2)
    line = ["scale", "infer", str(tmp_path / "in"), "--engine", "e", "--out", str(tmp_path / "out"), "--backend", "ray"]
    assert run(line) == 2
    assert "pip install 'gms-rt[ray]'" in capsys.readouterr().err


def test_events_for_machines_then_a_screen_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mean_engine(Path("engine"))
    archive(Path("in"), 3)
    line = ["scale", "infer", "in", "--engine", "engine", "--out", "out", "--workers", "1"]
    assert run([*line, "--json"]) == 5
    events = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    kinds = [event.get("event") for event in events]
    assert (kinds[0], set(kinds[1:-2]), kinds[-2:]) == ("start", {"chunk"}, ["end", None])
    assert events[0]["sources"] == events[-3]["done"] == events[-3]["total"] == 5
    assert (events[-2]["failed"], events[-2]["cases"]) == (1, 7)
    assert events[-2]["scale"]["workers"] == 1
    assert events[-1]["error"]["exit_code"] == 5

    assert run([*line, "--continue"]) == 5  # what failed is tried again
    screen = capsys.readouterr().out
    assert "sources: 5, 4 of them done before" in screen
    assert "1 workers (processes)" not in screen
    assert "1 worker (processes), " in screen
    assert "Not for clinical use." in screen
    assert len(screen.splitlines()) < 30

    assert run(["scale", "infer", "in", "--engine", "engine", "--out", "in"]) == 2
    assert "is the folder that is read" in capsys.readouterr().err
