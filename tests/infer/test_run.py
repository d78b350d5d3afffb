"""Whole runs: every kind of input, outputs at source size, order, memory, resume, faults of single cases."""

from __future__ import annotations

import errno
import importlib
import json
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.dicom_files import dataset, save
from support.infer_engine import BrightnessRunner, brightness_engine
from support.infer_runs import blob, pictures, pipeline_threads, rows_of

from gms_rt.artifacts import write_bytes
from gms_rt.engine.loaded import Engine
from gms_rt.errors import GmsError, InputError, NativeError, NoImageError, UsageError
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer import pipeline as stages
from gms_rt.infer.outputs import ENDINGS
from gms_rt.infer.pipeline import Pipeline
from gms_rt.infer.result import SourceResult
from gms_rt.infer.sources import Source
from gms_rt.infer.summary import Summary
from gms_rt.infer.writers import SourceWriter
from gms_rt.scan.video import VideoWriter, read_video
from gms_rt.spreadsheet import text_from_cell

RNG = np.random.default_rng(11)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return brightness_engine(tmp_path / "engine")


def segment(engine: Engine, out: Path, *inputs: Path, resume: bool = False, **options: Any) -> Summary:
    with OutFolder(out) as folder:
        found = find_sources([str(i) for i in inputs])
        return run_cases(found, InferJob(engine, folder, InferOptions(**options), workers=2), resume=resume)


def tree(out: Path, *kinds: str) -> dict[str, bytes]:
    files = (path for kind in kinds for path in (out / kind).rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_masks_equal_the_engines_own_at_source_size(engine: Engine, tmp_path: Path) -> None:
    scans = pictures(tmp_path / "scans")
    segment(engine, tmp_path / "out", scans)
    for path in scans.iterdir():
        mask = np.asarray(Image.open(tmp_path / "out/masks" / path.name))
        image = np.asarray(Image.open(path))
        assert mask.shape == image.shape
        assert np.array_equal(mask, engine(image))
        assert set(np.unique(mask)) == {0, 255}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("lanes", [1, 3])
def test_order_and_results_do_not_depend_on_batches_and_threads(batch: int, lanes: int, tmp_path: Path) -> None:
    scans = pictures(tmp_path / "scans", 30)
    segment(brightness_engine(tmp_path / "engine"), tmp_path / "plain", scans)
    several = brightness_engine(tmp_path / "engine", batch=batch, lanes=lanes)
    segment(several, tmp_path / "several", scans)
    kinds = ("masks", "overlays", "contours")
    assert tree(tmp_path / "plain", *kinds) == tree(tmp_path / "several", *kinds)
    assert [row["case"] for row in rows_of(tmp_path / "several")] == [f"{i:03}" for i in range(30)]


def test_every_kind_of_input_in_one_run(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    nibabel = pytest.importorskip("nibabel")
    scans = pictures(tmp_path / "scans", 2)
    grey = blob(48, 64)
    Image.fromarray(grey).save(scans / "000.bmp")
    pages = [Image.fromarray(blob(40, 50, s)) for s in (180, 240)]
    pages[0].save(scans / "stack.tif", save_all=True, append_images=pages[1:])
    save(dataset(grey, PixelSpacing=[0.5, 0.2]), scans / "study/one.dcm")
    save(dataset(np.stack([grey] * 3), "USMF", frames=3), scans / "study/loop")
    nibabel.save(nibabel.Nifti1Image(np.dstack([grey.T.astype(np.int16)] * 2), np.eye(4)), scans / "v.nii.gz")
    writer = VideoWriter(scans / "clip.mp4", 64, 48, 10)
    for number in range(1, 5):
        writer.put(number, np.dstack([grey] * 3))
    writer.close()
    out = tmp_path / "out"
    summary = segment(engine, out, scans, overlay_video=True, probabilities=True)
    assert summary.failed == 0
    rows = {row["case"]: row for row in rows_of(out)}
    assert set(rows) == {
        "000.bmp", "000.png", "001", "stack.frame-00001", "stack.frame-00002", "study/one",
        *(f"study/loop.frame-{n:05}" for n in (1, 2, 3)), *(f"v.frame-{n:05}" for n in (1, 2)),
        *(f"clip.frame-{n:05}" for n in (1, 2, 3, 4)),
    }  # fmt: skip
    for case, row in rows.items():
        mask = np.asarray(Image.open(out / "masks" / f"{case}.png"))
        assert mask.shape == (int(row["height"]), int(row["width"]))
        assert np.count_nonzero(mask) == int(row["area_px"]) > 0
        assert (out / "overlays" / f"{case}.jpg").is_file()
        assert np.asarray(Image.open(out / "probabilities" / f"{case}.png")).shape == mask.shape
        assert json.loads((out / "contours" / f"{case}.json").read_text())["features"]
    assert float(rows["study/one"]["area_mm2"]) == pytest.approx(int(rows["study/one"]["area_px"]) * 0.1)
    assert rows["stack.frame-00001"]["area_mm2"] == ""
    assert sorted(p.name for p in (out / "dicom").rglob("*.dcm")) == ["loop.dcm", "one.dcm"]
    shown = list(read_video(out / "videos/clip.mp4").frames)
    assert [frame.time for frame in shown] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-4)
    assert (out / "frames/clip.csv").read_text().splitlines()[:3] == ["frame,time_s", "1,0.000000", "2,0.100000"]
    assert [p.name for p in (out / "frames").iterdir()] == ["clip.csv"]
    assert {p.stem for p in (out / "videos").rglob("*.mp4")} == {"clip", "stack", "loop", "v"}
    import highdicom
    import pydicom

    seg = highdicom.seg.segread(out / "dicom/study/loop.dcm")
    uid = pydicom.dcmread(scans / "study/loop").SOPInstanceUID
    masks = [np.asarray(Image.open(out / f"masks/study/loop.frame-{n:05}.png")) for n in (1, 2, 3)]
    assert np.array_equal(seg.get_pixels_by_source_frame(uid, [1, 2, 3])[..., 0], np.stack(masks) != 0)


def test_run_and_summary_say_what_was_done(engine: Engine, tmp_path: Path) -> None:
    scans = pictures(tmp_path / "scans", 3)
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(scans / "nothing.png")
    summary = segment(engine, tmp_path / "out", scans, refer_below=0.97)
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert run["status"] == "done"
    assert "Not for clinical use." in run["notes"]
    assert any("EXIF" in note for note in run["notes"])
    assert len(run["engine"]["manifest_sha256"]) == 64
    assert run["options"]["refer_below"] == 0.97
    assert run["versions"]["gms-rt"]
    value = json.loads((tmp_path / "out/summary.json").read_text())
    assert value["note"] == "Not for clinical use."
    assert (value["cases"], value["empty_masks"], value["failed"]) == (4, 1, 0)
    assert "not how probable" in value["confidence"]
    rows = {row["case"]: row for row in rows_of(tmp_path / "out")}
    assert rows["nothing"]["status"] == "empty"
    low = [case for case, row in rows.items() if float(row["confidence"]) < 0.97]
    assert low
    assert [case for case, row in rows.items() if row["refer"] == "yes"] == low
    assert [item["case"] for item in value["referred_cases"]] == sorted(low, key=lambda c: float(rows[c]["confidence"]))
    confidences = [item["confidence"] for item in value["least_confident"]]
    assert confidences == sorted(float(row["confidence"]) for row in rows.values())[:5]
    screen = summary.screen("out")
    assert "4 segmented, 1 of them empty" in screen
    assert len(screen.splitlines()) < 40
    assert set(value["stages"]) == {"decode", "infer", "write", "sync", "limit"}
    assert re.search(r"in \d+\.\d s \(\d+\.\d images/s\)", screen)
    assert re.search(
        r"^bottleneck: (reading scans|the engine|writing files|waiting for the disk) \(\d+ % busy\)$",
        screen,
        re.MULTILINE,
    )


def test_cleaning_and_threshold_reach_the_mask(engine: Engine, tmp_path: Path) -> None:
    image = np.full((64, 64), 20, np.uint8)
    image[5:30, 5:30] = 250
    image[12:16, 12:16] = 20
    image[50:53, 50:53] = 150
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.fromarray(image).save(folder / "x.png")

    def area(name: str, **options: Any) -> int:
        segment(engine, tmp_path / name, folder, **options)
        return int(rows_of(tmp_path / name)[0]["area_px"])

    assert area("plain") == 25 * 25 - 16 + 9
    assert area("filled", fill_holes=True) == 25 * 25 + 9
    assert area("largest", largest=True) == 25 * 25 - 16
    assert area("small", min_area=10) == 25 * 25 - 16
    assert area("strict", threshold=0.8) == 25 * 25 - 16
    assert area("tiled", tile=64) == 25 * 25 - 16 + 9


def bad_cases(folder: Path) -> dict[str, str]:
    """Files that are no good, and a word of why."""
    good = folder / "good.png"
    Image.fromarray(blob(50, 50)).save(good)
    (folder / "zero.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(good.read_bytes()[:60])
    (folder / "text.jpg").write_text("this is no picture")
    head = bytearray(good.read_bytes())
    head[16:24] = (100_000).to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(head)
    flat = np.ones((9, 9), np.float32)
    flat[:] = np.nan
    Image.fromarray(flat).save(folder / "nan.tif")
    (folder / "empty.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return {
        "zero": "0 bytes", "cut": "truncated", "text": "not a PNG", "bomb": "megapixels", "nan": "NaN",
        "empty": "DICOM", "gone": "No such file", "unreadable": "denied",
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_a_reader_that_raises_in_its_own_way_costs_its_file_only(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "scans", 3)
    found = find_sources([str(folder)])
    real = stages.fetch

    def fetch(path: Path) -> Any:
        if path.name == "001.png":
            raise NotImplementedError("a letter that nobody knows")
        return real(path)

    monkeypatch.setattr(stages, "fetch", fetch)
    with OutFolder(tmp_path / "out") as out:
        summary = run_cases(found, InferJob(engine, out, InferOptions(), workers=2))
    assert (summary.failed, summary.cases) == (1, 3)
    (failed,) = [row for row in rows_of(tmp_path / "out") if row["status"] == "failed"]
    assert failed["error"] == "cannot be read (NotImplementedError: a letter that nobody knows)"


def test_a_bad_case_is_a_line_with_the_reason_and_the_rest_is_written(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "scans", 3)
    reasons = bad_cases(folder)
    for name in ("gone.png", "unreadable.png"):
        Image.fromarray(blob(30, 30)).save(folder / name)
    found = find_sources([str(folder)])
    (folder / "gone.png").unlink()
    opened = Path.open

    def refusing(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "unreadable.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refusing)
    with OutFolder(tmp_path / "out") as out:
        summary = run_cases(found, InferJob(engine, out, InferOptions(), workers=2))
    rows = {row["case"]: row for row in rows_of(tmp_path / "out")}
    assert summary.failed == len(reasons)
    for case, word in reasons.items():
        assert rows[case]["status"] == "failed"
        assert word in rows[case]["error"], rows[case]
    assert [case for case, row in rows.items() if row["status"] == "ok"] == ["000", "001", "002", "good"]
    assert sorted(p.stem for p in (tmp_path / "out/masks").iterdir()) == ["000", "001", "002", "good"]
    named = {item["source"] for item in json.loads((tmp_path / "out/summary.json").read_text())["failed_cases"]}
    assert "zero.png" in named


def test_frames_before_the_damage_are_kept(engine: Engine, tmp_path: Path) -> None:
    made = dataset(np.stack([blob(40, 40)] * 4), "USMF", frames=4)
    made.NumberOfFrames = 6
    path = save(made, tmp_path / "loop.dcm")
    segment(engine, tmp_path / "out", path)
    rows = rows_of(tmp_path / "out")
    assert rows[-1]["status"] == "failed"
    assert rows[-1]["error"]
    assert not (tmp_path / "out/dicom").exists()


def test_a_file_without_an_image_is_skipped_and_no_failure(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = importlib.import_module("gms_rt.infer.pipeline").fetch

    def fetching(path: Path) -> Any:
        if path.name == "001.png":
            raise NoImageError("has no image (a report)")
        return fetch(path)

    monkeypatch.setattr("gms_rt.infer.pipeline.fetch", fetching)
    summary = segment(engine, tmp_path / "out", pictures(tmp_path / "scans", 3))
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["ok", "skipped", "ok"]
    assert rows_of(tmp_path / "out")[1]["error"] == "has no image (a report)"
    value = json.loads((tmp_path / "out/summary.json").read_text())
    assert (value["segmented"], value["failed"], value["skipped"]) == (2, 0, 1)
    assert value["reasons"] == {"failed": {}, "skipped": {"has no image": 1}}
    assert "2 segmented, 1 skipped" in summary.screen("out")


def test_dicom_objects_without_a_picture_are_skipped(engine: Engine, tmp_path: Path) -> None:
    scans = pictures(tmp_path / "scans", 1)
    for modality, storage in (("SR", "1.2.840.10008.5.1.4.1.1.88.33"), ("RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3")):
        made = dataset(blob(20, 20), "CT", Modality=modality, SOPClassUID=storage)
        del made.PixelData, made.Rows, made.Columns, made.PhotometricInterpretation
        save(made, scans / f"{modality}.dcm")
    assert segment(engine, tmp_path / "out", scans).failed == 0
    rows = {row["case"]: row for row in rows_of(tmp_path / "out")}
    assert {case: row["status"] for case, row in rows.items()} == {"000": "ok", "SR": "skipped", "RTSTRUCT": "skipped"}
    assert json.loads((tmp_path / "out/summary.json").read_text())["skipped"] == 2


def test_equal_reasons_are_counted_together(engine: Engine, tmp_path: Path) -> None:
    scans = pictures(tmp_path / "scans", 1)
    for number in range(7):
        (scans / f"bad{number}.png").write_bytes(b"")
    summary = segment(engine, tmp_path / "out", scans)
    value = json.loads((tmp_path / "out/summary.json").read_text())
    assert value["reasons"]["failed"] == {"is empty": 7}
    assert "why failed:\n     7  is empty" in summary.screen("out")


def test_what_is_written_for_a_whole_source_gets_all_its_masks(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []

    def write(path: Path, result: SourceResult) -> None:
        results.append(result)
        if result.paths[0].name == "bad.tif":
            raise InputError("holds nothing of interest")
        write_bytes(path, b"whole")

    writer = SourceWriter("wholes", ".bin", "whole", lambda options, fetched: True, write, "seg", probabilities=True)
    monkeypatch.setattr("gms_rt.infer.case.SOURCE_WRITERS", (writer,))
    monkeypatch.setitem(ENDINGS, "wholes", ".bin")
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("bad.tif", "good.tif"):
        pages = [Image.fromarray(blob(40, 50, shade)) for shade in (180, 240)]
        pages[0].save(scans / name, save_all=True, append_images=pages[1:])
    assert segment(engine, tmp_path / "out", scans).failed == 0
    rows = rows_of(tmp_path / "out")
    reason = "no whole: holds nothing of interest"
    assert [row["seg"] for row in rows] == [reason] * 2 + ["wholes/good.bin"] * 2
    assert [path.name for path in (tmp_path / "out/wholes").iterdir()] == ["good.bin"]
    for result in results:
        masks = [np.asarray(Image.open(tmp_path / "out/masks" / f"{row['case']}.png")) for row in result.rows]
        assert np.array_equal(result.labels, np.stack(masks) // 255)
        assert result.probabilities is not None
        assert np.array_equal(result.probabilities >= 128, result.labels == 1)
        assert (len(result.digest), len(result.maker.fingerprint), result.maker.name) == (64, 64, "brightness")


def test_strange_names_are_kept(engine: Engine, tmp_path: Path) -> None:
    names = ["zwei Wörter.png", "診断 画像.png", "=1+2.png", "@x.png", "line\nbreak.png", "quote\"s,comma.png",
             "-dash.png", "n" * 246 + ".png", os.fsdecode(b"caf\xe9.png")]  # fmt: skip
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in names:
        Image.fromarray(blob(20, 20)).save(folder / name)
    summary = segment(engine, tmp_path / "out", folder)
    assert summary.failed == 0
    assert sorted(p.name for p in (tmp_path / "out/masks").iterdir()) == sorted(names)
    sources = {text_from_cell(row["source"]) for row in rows_of(tmp_path / "out")}
    assert sources == {*names[:-1], "caf\\xe9.png"}
    json.loads((tmp_path / "out/summary.json").read_text())


def test_continue_skips_what_is_finished_and_redoes_what_changed(engine: Engine, tmp_path: Path) -> None:
    scans, out = pictures(tmp_path / "scans", 6), tmp_path / "out"
    segment(engine, out, scans)
    before, table = tree(out, "masks", "contours"), (out / "cases.csv").read_bytes()
    runner = engine.runner
    assert isinstance(runner, BrightnessRunner)
    runner.images = 0
    summary = segment(engine, out, scans, resume=True)
    assert (runner.images, summary.reused) == (0, 6)
    assert (out / "cases.csv").read_bytes() == table
    (out / "masks/001.png").unlink()
    (out / "masks/002.png").write_bytes(b"short")
    Image.fromarray(blob(90, 90)).save(scans / "003.png")
    summary = segment(engine, out, scans, resume=True)
    assert (runner.images, summary.reused) == (3, 3)
    after = tree(out, "masks", "contours")
    assert {name for name in after if after[name] != before[name]} == {"masks/003.png", "contours/003.json"}
    runner.images = 0
    segment(engine, out, scans, resume=True, threshold=0.6)
    assert runner.images == 6


def test_continue_with_another_engine_redoes_all_and_failed_cases_are_tried_again(
    engine: Engine, tmp_path: Path
) -> None:
    scans, out = pictures(tmp_path / "scans", 3), tmp_path / "out"
    (scans / "bad.png").write_bytes(b"")
    segment(engine, out, scans)
    other = brightness_engine(tmp_path / "other")
    (other.folder / "engine.json").write_text((other.folder / "engine.json").read_text() + "\n")
    assert segment(other, out, scans, resume=True).reused == 0
    Image.fromarray(blob(30, 30)).save(scans / "bad.png")
    summary = segment(other, out, scans, resume=True)
    assert (summary.reused, summary.failed) == (3, 0)


def test_a_new_run_leaves_nothing_of_the_old_one(engine: Engine, tmp_path: Path) -> None:
    scans, out = pictures(tmp_path / "scans", 4), tmp_path / "out"
    segment(engine, out, scans)
    (out / "masks/mine.png").write_bytes(b"not of a run")
    (scans / "000.png").unlink()
    segment(engine, out, scans)
    assert sorted(p.name for p in (out / "masks").iterdir()) == ["001.png", "002.png", "003.png", "mine.png"]


def test_a_torn_or_hostile_journal_is_survived(engine: Engine, tmp_path: Path) -> None:
    scans, out = pictures(tmp_path / "scans", 3), tmp_path / "out"
    outside = tmp_path / "precious.txt"
    outside.write_text("keep me")
    segment(engine, out, scans)
    journal = out / ".gms-rt-journal.jsonl"
    with journal.open("a") as stream:
        stream.write(json.dumps(["k", "s", "d", [], {"../precious.txt": 7, str(outside): 7}]) + "\n" + '["torn')
    assert segment(engine, out, scans, resume=True).reused == 3
    assert outside.read_text() == "keep me"
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_one_run_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with OutFolder(tmp_path / "out"), pytest.raises(UsageError, match="another run"), OutFolder(tmp_path / "out"):
        raise AssertionError("two runs hold one folder")
    with OutFolder(tmp_path / "out"):
        assert (tmp_path / "out/.gms-rt.lock").is_file()


def test_leftovers_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    (tmp_path / "out/masks/a").mkdir(parents=True)
    (tmp_path / "out/masks/a/.part-x.png").write_bytes(b"half")
    (tmp_path / "out/.part-cases.csv").write_bytes(b"half")
    with OutFolder(tmp_path / "out"):
        assert not list((tmp_path / "out").rglob(".part-*"))


def test_a_full_disk_stops_the_run_cleanly(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, out = pictures(tmp_path / "scans", 20), tmp_path / "out"
    real, calls, journal = os.write, [], out / ".gms-rt-journal.jsonl"

    def filling(handle: int, data: Any) -> int:
        if Path(f"/proc/self/fd/{handle}").readlink().parent.name in ("masks", "overlays", "contours"):
            calls.append(handle)
            if len(calls) > 12:
                while not journal.stat().st_size:  # what was written before is in its place
                    time.sleep(0.01)
                real(handle, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", filling)
    with pytest.raises(GmsError, match="no space left") as caught:
        segment(engine, out, scans)
    assert caught.value.exit_code == 1
    assert pipeline_threads() == []
    assert not list(out.rglob(".part-*"))
    assert json.loads((out / "run.json").read_text())["status"] == "failed"
    monkeypatch.undo()
    assert all(np.asarray(Image.open(p)).size for p in (out / "masks").iterdir())
    summary = segment(engine, out, scans, resume=True)
    assert summary.reused > 0
    assert summary.failed == 0


def test_an_engine_that_fails_ends_the_run(tmp_path: Path) -> None:
    engine = brightness_engine(tmp_path / "engine")

    def failing(images: Any) -> Any:
        raise NativeError("the device is gone")

    engine.runner.infer = failing  # type: ignore[method-assign]
    with pytest.raises(NativeError, match="device is gone"):
        segment(engine, tmp_path / "out", pictures(tmp_path / "scans", 9))
    assert pipeline_threads() == []


def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    engine = brightness_engine(tmp_path / "engine", seconds=0.002)
    scans, out = pictures(tmp_path / "scans", 40), tmp_path / "out"

    def interrupt(case: Any, rows: Any) -> None:
        if case.index == 9:
            raise KeyboardInterrupt

    with OutFolder(out) as folder, pytest.raises(KeyboardInterrupt):
        run_cases(find_sources([str(scans)]), InferJob(engine, folder, InferOptions(), on_case=interrupt))
    assert pipeline_threads() == []
    done = [row["case"] for row in rows_of(out)]  # with those that were done together with the tenth
    assert 10 <= len(done) <= 40 and done == [f"{i:03}" for i in range(len(done))]
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert segment(engine, out, scans, resume=True).reused >= 10


def pipeline(engine: Engine, out: OutFolder, **limits: int) -> Pipeline:
    settings = InferJob(engine, out, InferOptions()).settings
    return Pipeline(settings, workers=2, find=lambda *_: None, done=lambda cases: None, **limits)


def test_sources_are_begun_a_bounded_number_ahead_of_the_finished_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "_AHEAD", 64)
    sources, begun, finished, most = find_sources([str(pictures(tmp_path / "scans", 150))]).sources, 0, 0, 0

    def counting() -> Iterator[Source]:
        nonlocal begun, most
        for source in sources:
            begun += 1
            most = max(most, begun - finished)
            yield source

    engine = brightness_engine(tmp_path / "engine", seconds=0.001)
    with OutFolder(tmp_path / "out") as out:
        for cases in pipeline(engine, out).run(counting()):
            # They count from here on; what is begun before is at most the room that they had and that they leave.
            assert begun - finished <= 64 + len(cases)
            finished += len(cases)
    assert finished == 150
    assert 1 < most <= 2 * 64


def test_frames_beyond_the_budget_wait_for_the_one_before_and_still_pass(tmp_path: Path) -> None:
    engine = brightness_engine(tmp_path / "engine")
    compute, written = engine.runner.infer, []

    def watching(images: Any) -> Any:
        written.append(len(list((tmp_path / "out/masks").glob("*.png"))))
        return compute(images)

    engine.runner.infer = watching  # type: ignore[method-assign]
    sources = find_sources([str(pictures(tmp_path / "scans", 8))]).sources
    with OutFolder(tmp_path / "out") as out:
        assert sum(map(len, pipeline(engine, out, budget=1000).run(sources))) == 8
    assert written == list(range(8))


def test_reduced_jpeg_keeps_size_and_nearly_all_of_the_mask(engine: Engine, tmp_path: Path) -> None:
    scan = tmp_path / "scans" / "large.jpg"
    scan.parent.mkdir()
    Image.fromarray(blob(900, 1201)).save(scan, quality=92)
    wanted = {"overlays": False, "probabilities": True}
    segment(engine, tmp_path / "whole", scan, **wanted)
    segment(engine, tmp_path / "reduced", scan, reduced_jpeg=True, **wanted)
    whole, reduced = (np.asarray(Image.open(tmp_path / out / "masks/large.png")) > 0 for out in ("whole", "reduced"))
    assert whole.shape == reduced.shape == (900, 1201)
    assert 0 < np.count_nonzero(whole != reduced) < 0.01 * np.count_nonzero(whole)
    (row,) = rows_of(tmp_path / "reduced")
    assert (row["height"], row["width"], row["window"]) == ("900", "1201", "8 bit as stored, decoded at 1/4")
    assert np.asarray(Image.open(tmp_path / "reduced/probabilities/large.png")).shape == whole.shape


def test_reduced_jpeg_is_another_result_and_no_overlay(engine: Engine) -> None:
    assert InferOptions(overlays=False).key("e") != InferOptions(overlays=False, reduced_jpeg=True).key("e")
    with pytest.raises(UsageError, match="leaves overlays no pixels to show"):
        InferOptions(reduced_jpeg=True)
    with pytest.raises(UsageError, match="leaves tiles no pixels"):
        InferOptions(reduced_jpeg=True, overlays=False, tile=64)
