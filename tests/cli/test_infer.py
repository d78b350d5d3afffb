"""`gms-rt infer` as a person and a machine meet it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.dicom_files import series
from support.infer_engine import brightness_engine, program

from gms_rt.cli import infer as verb
from gms_rt.cli.main import run
from gms_rt.engine.build import BuiltEngine
from gms_rt.engine.request import BuildRequest
from gms_rt.interrupts import INTERRUPTS


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with three scans in `scans/`, and an engine."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for name in "abc":
        image = np.full((40, 50), 15, np.uint8)
        image[5:20, 5:20] = 220
        Image.fromarray(image).save(tmp_path / f"scans/{name}.png")
    monkeypatch.setattr(verb, "load", lambda path, **_: brightness_engine(Path(path or "engines/bright")))
    brightness_engine(tmp_path / "engines/bright")
    return tmp_path


def test_a_folder_alone_is_enough(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["infer", "scans"]) == 0
    screen = capsys.readouterr().out
    lines = screen.splitlines()
    assert lines[0].startswith("engine: engines/bright")
    assert lines[1] == "results: gms-rt-out/scans"
    assert "3 segmented" in screen
    assert "Not for clinical use." in screen
    assert len(lines) < 40
    assert sorted(p.name for p in Path("gms-rt-out/scans/masks").iterdir()) == ["a.png", "b.png", "c.png"]


def test_the_current_folder_keeps_its_name_and_former_results_are_not_input(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place / "scans")
    brightness_engine(Path("engines/bright"))
    assert run(["infer", "."]) == 0
    assert run(["infer", ".", "--continue"]) == 0
    assert "3 sources done before" in capsys.readouterr().out
    assert len(list(Path("gms-rt-out/scans/masks").rglob("*"))) == 3


def test_events_for_machines(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("scans/bad.png").write_bytes(b"")
    assert run(["infer", "scans", "--json", "--refer-below", "0.5"]) == 5
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("event") for line in lines] == ["start", "case", "case", "case", "case", "end", None]
    assert lines[0]["sources"] == 4
    assert {line["case"]: line["status"] for line in lines[1:5]} == {"a": "ok", "b": "ok", "bad": "failed", "c": "ok"}
    assert lines[5]["failed"] == 1
    assert lines[6]["error"]["exit_code"] == 5


def test_quiet_says_where_and_nothing_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["infer", "scans", "--quiet", "--out", "there"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "there\n"
    assert captured.err == ""


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "nothing to segment"),
    (["nowhere"], "no such file"),
    (["engines"], "has no scans (1 other file"),
    (["scans", "--threshold", "2"], "--threshold"),
    (["scans", "--tile", "5"], "--tile"),
    (["scans", "--device", "tpu"], "unknown device"),
    (["scans", "--workers", "-1"], "cannot be negative"),
    (["scans", "--watch", "scans"], "no other inputs"),
    (["--watch", "nowhere"], "is not a folder"),
    (["scans", "--layout", "bids", "--deidentify"], "cannot be used with --layout bids"),
    (["--watch", "scans", "--deidentify"], "cannot be used with --watch"),
    (["scans", "--reduced-jpeg", "--overlay"], "leaves overlays no pixels to show"),
    (["scans", "--reduced-jpeg", "--tile", "64"], "leaves tiles no pixels"),
    (["scans", "--nonsense"], "--nonsense"),
    (["scans", "--out", "scans"], "is the folder that is read"),
    (["scans/", "scans/a.png", "--out", "./engines/../scans"], "is the folder that is read"),
    (["--watch", "scans", "--out", "scans"], "is the folder that is read"),
])  # fmt: skip
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["infer", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_a_result_never_replaces_a_scan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old").mkdir()
    Path("scans").rename("old/masks")
    before = {path: path.read_bytes() for path in Path("old").rglob("*.png")}
    assert run(["infer", "old/masks", "--out", "old"]) == 2
    assert "old/masks/a.png: lies where the results of --out old go" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("old").rglob("*.png")} == before


def test_reduced_jpeg_writes_no_overlays(place: Path) -> None:
    assert run(["infer", "scans", "--reduced-jpeg"]) == 0
    assert len(list(Path("gms-rt-out/scans/masks").iterdir())) == 3
    assert not Path("gms-rt-out/scans/overlays").exists()


def test_results_in_a_folder_of_the_scans_or_above_them_are_not_refused(place: Path) -> None:
    assert run(["infer", "scans", "--out", "scans/results"]) == 0
    assert run(["infer", "scans", "--out", "."]) == 0
    assert len(list(Path("scans/results/masks").iterdir())) == len(list(Path("masks").iterdir())) == 3


def test_bad_cases_give_exit_code_5_and_their_reasons(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("scans/bad.png").write_bytes(b"")
    assert run(["infer", "scans"]) == 5
    captured = capsys.readouterr()
    assert "bad.png: is empty (0 bytes)" in captured.out
    assert "1 of 4 cases failed" in captured.err


def test_a_second_run_into_the_same_folder_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gms_rt.infer import OutFolder

    with OutFolder(Path("gms-rt-out/scans")):
        assert run(["infer", "scans"]) == 2
    assert "another run is writing" in capsys.readouterr().err


def test_dicom_seg_without_highdicom(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from support.dicom_files import dataset, save

    for name in ("one", "two"):
        save(dataset(np.full((20, 20), 200, np.uint8)), Path(f"scans/{name}.dcm"))
    monkeypatch.setattr(verb, "seg_available", lambda: False)
    assert run(["infer", "scans", "--dicom-seg"]) == 2
    assert "pip install 'gms-rt[dicom-seg]'" in capsys.readouterr().err
    assert run(["infer", "scans"]) == 0
    assert capsys.readouterr().err.count("DICOM SEG is not written: pip install 'gms-rt[dicom-seg]'") == 1
    assert run(["infer", "scans", "--no-dicom-seg"]) == 0
    assert "DICOM SEG" not in capsys.readouterr().err
    assert not Path("gms-rt-out/scans/dicom").exists()


def test_results_without_patient_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("highdicom")
    from support.dicom_files import dataset, save

    save(dataset(np.full((20, 20), 200, np.uint8)), Path("scans/ward/person.dcm"))
    flags = ["--deidentify", "--dicom-report", "--dicom-fractional"]
    assert run(["infer", "scans/ward", *flags]) == 0
    screen = capsys.readouterr()
    assert "person" not in screen.out + screen.err
    assert "ward" not in screen.out + screen.err
    out = Path("gms-rt-out/deidentified")
    names = sorted(str(p.relative_to(out).parent) for p in out.rglob("source-*"))
    assert names == ["contours", "dicom", "dicom-fractional", "dicom-report", "masks"]
    assert run(["infer", "scans/ward", *flags, "--overlay"]) == 0
    assert "burned into them" in capsys.readouterr().err
    assert len(list((out / "overlays").iterdir())) == 1
    assert run(["infer", "scans/ward", *flags, "--overlay-video"]) == 0
    assert "burned into them" in capsys.readouterr().err


def test_a_report_alone_does_not_take_the_place_of_masks(place: Path) -> None:
    pytest.importorskip("highdicom")
    from support.dicom_files import series

    series(Path("ct"), np.full((3, 20, 20), 200, np.uint8))
    assert run(["infer", "ct", "--no-dicom-seg", "--dicom-report"]) == 0
    assert len(list(Path("gms-rt-out/ct/masks").iterdir())) == 3
    assert len(list(Path("gms-rt-out/ct/dicom-report").iterdir())) == 1


def test_without_an_engine_the_demos_is_built(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[BuildRequest] = []

    def build_engine(request: BuildRequest) -> BuiltEngine:
        asked.append(request)
        engine = brightness_engine(request.folder)
        return BuiltEngine(engine.folder, engine.manifest, unchanged=False)

    monkeypatch.setattr("gms_rt.engine.build.build_engine", build_engine)
    monkeypatch.setattr(verb, "ENGINES", Path("none"))
    assert run(["infer", "scans"]) == 0
    captured = capsys.readouterr()
    assert [(r.source, r.folder, r.precision) for r in asked] == [(None, Path("none/demo-fp16"), "fp16")]
    assert "for demonstration only" in captured.err
    assert captured.out.startswith("engine: none/demo-fp16")


def started(*arguments: str) -> subprocess.Popen[bytes]:
    return program(Path("engines/bright"), 0.02, *arguments)


@pytest.mark.parametrize("number", INTERRUPTS)
def test_interrupting_says_how_to_go_on(place: Path, number: signal.Signals) -> None:
    for index in range(200):
        Image.fromarray(np.full((20, 20), index % 256, np.uint8)).save(f"scans/{index:03}.png")
    process = started("infer", "scans")
    masks = Path("gms-rt-out/scans/masks")
    end = time.monotonic() + 60
    while sum(not path.name.startswith(".") for path in masks.glob("*")) <= 5 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"add --continue" in error
    assert (out := Path("gms-rt-out/scans")).is_dir() and not list(out.rglob(".part-*"))
    assert b"Traceback" not in error
    again = started("infer", "scans", "--continue")
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert b"sources done before" in out


@pytest.mark.parametrize("number", INTERRUPTS)
def test_watch_ends_cleanly_on_a_signal(place: Path, number: signal.Signals) -> None:
    process = started("infer", "--watch", "scans", "--settle", "0.2")
    table = Path("gms-rt-out/scans/cases.csv")
    end = time.monotonic() + 60
    while not (table.exists() and len(table.read_text().splitlines()) == 4) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, b"")
    assert b"3 segmented" in out


def test_a_second_request_ends_watch_at_once(place: Path) -> None:
    """What is in flight would take the better part of a minute."""
    for index in range(100):
        Image.fromarray(np.full((20, 20), index % 256, np.uint8)).save(f"scans/{index:03}.png")
    process = program(Path("engines/bright"), 0.5, "infer", "--watch", "scans", "--settle", "0.2")
    record, masks = Path("gms-rt-out/scans/run.json"), Path("gms-rt-out/scans/masks")
    end = time.monotonic() + 60
    while not list(masks.glob("*.png")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, b"Traceback" in error) == (130, False)
    assert json.loads(record.read_text())["status"] == "interrupted"
    assert not list(record.parent.rglob(".part-*"))


def test_a_series_is_one_source_unless_asked_otherwise(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    series(place / "ct", np.full((3, 20, 20), 200, np.uint8))
    assert run(["infer", "ct", "--slices"]) == 0
    captured = capsys.readouterr()
    assert "sources: 1 below" in captured.out
    assert ", 1 of them series of 3 slices" in captured.out
    assert "3 segmented" in captured.out
    masks = [path.name for path in Path("gms-rt-out/ct/masks").iterdir()]
    assert all(name.startswith("series-3-") for name in masks)
    assert len(masks) == 3
    assert run(["infer", "ct", "--no-series"]) == 0
    assert sorted(path.name for path in Path("gms-rt-out/ct/masks").iterdir()) == [f"IM000{n}.png" for n in (1, 2, 3)]
    assert not Path("gms-rt-out/ct/series.csv").exists()


def test_two_folders_of_one_name_do_not_share_their_results(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other").mkdir()
    Path("scans").rename("other/scans")
    shutil.copytree("other", "more")
    assert run(["infer", "other/scans"]) == 0
    assert run(["infer", "more/scans"]) == 2
    assert "holds the results of" in capsys.readouterr().err
    assert len(list(Path("gms-rt-out/scans/masks").iterdir())) == 3
    Path("more/scans/a.png").unlink()
    assert run(["infer", "more/scans", "--replace"]) == 0
    assert len(list(Path("gms-rt-out/scans/masks").iterdir())) == 2
