"""A DICOM series is one case: its order, its names, its files, its volume, and going on with it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from PIL import Image
from support.dicom_files import dataset, save, series
from support.infer_engine import BrightnessRunner, brightness_engine

from gms_rt.engine.loaded import Engine
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases, with_series
from gms_rt.infer.summary import Summary


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return brightness_engine(tmp_path / "engine")


def stack(count: int = 5) -> Any:
    """A cone: each slice has a disc of its own size."""
    slices = np.full((count, 40, 48), 20, np.uint8)
    for index, image in enumerate(slices):
        cv2.circle(image, (20, 18), 4 + 2 * index, 230, -1)
    return slices


def segment(engine: Engine, out: Path, *inputs: Path, resume: bool = False, **options: Any) -> Summary:
    with OutFolder(out) as folder:
        found = with_series(find_sources([str(i) for i in inputs]))
        return run_cases(found, InferJob(engine, folder, InferOptions(**options), workers=2), resume=resume)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def files(out: Path) -> set[str]:
    hidden = {path for path in out.rglob("*") if path.name.startswith(".")}
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path not in hidden}


TABLES = {"cases.csv", "series.csv", "summary.json", "run.json"}


def test_a_series_gives_one_segmentation_in_the_order_of_positions(engine: Engine, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    slices, scans, out = stack(), tmp_path / "scans", tmp_path / "out"
    paths = series(scans / "patient", slices)
    assert segment(engine, out, scans).failed == 0
    (row,) = table(out / "series.csv")
    name = row["case"]
    assert name.startswith("patient/series-3-")
    assert files(out) == TABLES | {f"dicom/{name}.dcm"}
    seg = highdicom.seg.segread(out / f"dicom/{name}.dcm")
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in paths]
    back = seg.get_pixels_by_source_instance(uids)[..., 0]
    assert np.array_equal(back, np.stack([engine(image) for image in slices]) != 0)
    geometry = seg.get_volume_geometry()
    assert geometry is not None
    assert geometry.spacing_between_slices == pytest.approx(2.5)
    frames = seg.PerFrameFunctionalGroupsSequence
    places = [float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in frames]
    assert sorted(places) == [0, 2.5, 5, 7.5, 10]


def test_the_tables_have_the_slices_and_the_volume(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scans, out = tmp_path / "scans", tmp_path / "out"
    paths = series(scans, stack())
    segment(engine, out, scans)
    rows = table(out / "cases.csv")
    (row,) = table(out / "series.csv")
    headers = [pydicom.dcmread(path) for path in paths]
    assert [r["case"] for r in rows] == [f"{row['case']}.frame-{n:05}" for n in range(1, 6)]
    assert [r["source"] for r in rows] == [path.name for path in paths]
    assert [r["instance"] for r in rows] == ["5", "4", "3", "2", "1"]
    assert [r["sop_uid"] for r in rows] == [header.SOPInstanceUID for header in headers]
    assert {r["series_uid"] for r in (*rows, row)} == {headers[0].SeriesInstanceUID}
    assert [[float(r[f"position_{axis}"]) for axis in "xyz"] for r in rows] == [[0, 0, 2.5 * n] for n in range(5)]
    assert {r["spacing"] for r in (*rows, row)} == {"0.5 0.8"}
    assert {r["modality"] for r in (*rows, row)} == {"CT"}
    assert {r["seg"] for r in (*rows, row)} == {f"dicom/{row['case']}.dcm"}
    areas = [int(r["area_px"]) for r in rows]
    assert areas == [np.count_nonzero(engine(image)) for image in stack()]
    assert [float(r["area_mm2"]) for r in rows] == pytest.approx([area * 0.4 for area in areas])
    assert [float(r["volume_mm3"]) for r in rows] == pytest.approx([area * 0.4 * 2.5 for area in areas])
    assert float(row["volume_mm3"]) == pytest.approx(sum(areas) * 0.4 * 2.5)
    assert (row["slices"], row["failed"], row["slice_spacing"], row["status"]) == ("5", "0", "2.5", "ok")
    assert row["note"] == ""
    assert json.loads((out / "run.json").read_text())["series"] == 1


@pytest.mark.parametrize("options", [{"slices": True}, {"dicom_seg": False}])
def test_slices_are_written_on_request_and_where_there_is_no_segmentation(
    options: dict[str, Any], engine: Engine, tmp_path: Path
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    slices = stack(3)
    series(scans, slices)
    segment(engine, out, scans, **options)
    rows = table(out / "cases.csv")
    for image, row in zip(slices, rows, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / f"masks/{row['case']}.png")), engine(image))
        assert (out / f"overlays/{row['case']}.jpg").is_file()
        assert (out / f"contours/{row['case']}.json").is_file()


def test_without_series_each_file_is_a_case_and_the_masks_are_the_same(engine: Engine, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    series(scans, stack(3))
    segment(engine, tmp_path / "slices", scans, slices=True)
    with OutFolder(tmp_path / "single") as folder:
        run_cases(find_sources([str(scans)]), InferJob(engine, folder, InferOptions(), workers=2))
    single = table(tmp_path / "single/cases.csv")
    assert [row["case"] for row in single] == ["IM0001", "IM0002", "IM0003"]
    assert not (tmp_path / "single/series.csv").exists()
    for row in table(tmp_path / "slices/cases.csv"):
        alone = tmp_path / "single/masks" / row["source"].replace(".dcm", ".png")
        assert (tmp_path / f"slices/masks/{row['case']}.png").read_bytes() == alone.read_bytes()


def test_series_files_and_pictures_mixed_over_folders(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scans, out = tmp_path / "scans", tmp_path / "out"
    one = series(scans / "a", stack(4), names="s{}")
    two = series(scans / "a", stack(3), SeriesNumber=4, names="t{}")
    (scans / "b").mkdir(parents=True)
    one[2].rename(scans / "b/s.dcm")
    Image.fromarray(stack(1)[0]).save(scans / "b/p.png")
    save(dataset(np.stack([stack(1)[0]] * 3), "USMF", frames=3), scans / "b/loop.dcm")
    save(dataset(stack(1)[0], "US"), scans / "b/us.dcm")
    assert segment(engine, out, scans).failed == 0
    stacks = {row["case"]: row for row in table(out / "series.csv")}
    spread, together = sorted(stacks, key=lambda case: case.startswith("a/"))
    assert (stacks[spread]["slices"], spread.startswith("series-3-")) == ("4", True)
    assert (stacks[together]["slices"], together.startswith("a/series-4-")) == (str(len(two)), True)
    masks = {name for name in files(out) if name.startswith("masks/")}
    assert masks == {"masks/b/p.png", "masks/b/us.png", *(f"masks/b/loop.frame-{n:05}.png" for n in (1, 2, 3))}
    given = with_series(find_sources([str(path) for path in (one[3], one[0], one[1])]))
    assert [source.name.startswith("series-3-") for source in given.sources] == [True]
    assert given.sources[0].paths == (one[0], one[1], one[3])


def test_gaps_and_failed_slices_leave_the_volume_out_and_say_why(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scans = tmp_path / "scans"
    paths = series(scans, stack(6))
    paths[2].unlink()
    segment(engine, tmp_path / "gap", scans)
    (row,) = table(tmp_path / "gap/series.csv")
    assert (row["volume_mm3"], row["seg"]) == ("", f"dicom/{row['case']}.dcm")
    assert row["note"] == "slices are missing: 1 after slice 2; no volume: there is no one distance between slices"
    found = with_series(find_sources([str(scans)]))
    paths[3].write_bytes(paths[3].read_bytes()[:-900])  # after its header was read
    with OutFolder(tmp_path / "bad") as folder:
        summary = run_cases(found, InferJob(engine, folder, InferOptions(), workers=2))
    assert summary.failed == 1
    rows = table(tmp_path / "bad/cases.csv")
    assert [r["status"] for r in rows] == ["ok", "ok", "failed", "ok", "ok"]
    assert rows[2]["source"] == paths[3].name
    (row,) = table(tmp_path / "bad/series.csv")
    assert (row["status"], row["failed"]) == ("failed", "1")
    assert row["seg"] == "no DICOM SEG: not every frame has a mask"
    assert "no volume: 1 of 5 slices failed" in row["note"]
    # The masks that were made are not lost with the object that could not be.
    masks = {f"masks/{r['case']}.png" for r in rows if r["status"] == "ok"}
    assert {name for name in files(tmp_path / "bad") if name.startswith(("masks", "dicom"))} == masks


def test_continue_goes_on_with_a_series_and_redoes_one_that_grew(engine: Engine, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    paths = series(scans, stack(5), first=1)
    late = paths[0].rename(tmp_path / paths[0].name)
    segment(engine, out, scans, slices=True)
    before = (out / "cases.csv").read_bytes(), (out / "series.csv").read_bytes()
    runner = engine.runner
    assert isinstance(runner, BrightnessRunner)
    runner.images = 0
    assert segment(engine, out, scans, resume=True, slices=True).reused == 1
    assert (runner.images, (out / "cases.csv").read_bytes(), (out / "series.csv").read_bytes()) == (0, *before)
    renamed = paths[1].rename(paths[1].with_name("another-name"))
    assert segment(engine, out, scans, resume=True, slices=True).reused == 1
    assert [row["source"] for row in table(out / "cases.csv")] == [renamed.name, *(path.name for path in paths[2:])]
    late.rename(paths[0])
    assert segment(engine, out, scans, resume=True, slices=True).reused == 0
    assert runner.images == 5
    rows = table(out / "cases.csv")
    for image, row in zip(stack(5), rows, strict=True):
        assert np.array_equal(np.asarray(Image.open(out / f"masks/{row['case']}.png")), engine(image))


def test_a_case_that_became_a_slice_leaves_nothing_behind(engine: Engine, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    paths = series(scans, stack(3))
    away = [path.rename(tmp_path / path.name) for path in paths[:2]]
    segment(engine, out, scans, slices=True)
    assert (out / "masks/IM0001.png").is_file()
    for path, place in zip(away, paths[:2], strict=True):
        path.rename(place)
    segment(engine, out, scans, resume=True, slices=True)
    assert not (out / "masks/IM0001.png").exists()
    assert len(table(out / "cases.csv")) == len(list((out / "masks").iterdir())) == 3


def test_a_series_of_which_one_slice_is_left_leaves_nothing_behind(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scans, out = tmp_path / "scans", tmp_path / "out"
    paths = series(scans, stack(3))
    Image.fromarray(stack(1)[0]).save(scans / "p.png")
    segment(engine, out, scans)
    for path in paths[:2]:
        path.unlink()
    segment(engine, out, scans, resume=True)
    assert [path.name for path in (out / "dicom").iterdir()] == [paths[2].name]
    assert (out / "masks/p.png").is_file()


def test_slices_on_their_own_take_the_place_of_their_series(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scans, out = tmp_path / "scans", tmp_path / "out"
    paths = series(scans, stack(3))
    segment(engine, out, scans)
    with OutFolder(out) as folder:  # as with --no-series --continue
        run_cases(find_sources([str(scans)]), InferJob(engine, folder, InferOptions(), workers=2), resume=True)
    assert sorted(path.name for path in (out / "dicom").iterdir()) == sorted(path.name for path in paths)


def test_every_result_knows_a_mask_of_the_first_of_several_classes(engine: Engine, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    nibabel = pytest.importorskip("nibabel")
    classes = [{"name": "Lesion"}, {"name": "Cyst"}, {"name": "Duct"}]
    engine = Engine(engine.folder, dataclasses.replace(engine.manifest, classes=classes), engine.runner)
    scans, out = tmp_path / "scans", tmp_path / "out"
    paths = series(scans, stack(3))
    options: dict[str, Any] = {"slices": True, "nifti": True, "dicom_report": True}
    assert segment(engine, out, scans, **options).failed == 0
    rows = table(out / "cases.csv")
    case = rows[0]["case"].removesuffix(".frame-00001")
    seg = highdicom.seg.segread(out / f"dicom/{case}.dcm")
    stored = seg.get_pixels_by_source_instance([pydicom.dcmread(path).SOPInstanceUID for path in paths])
    voxels = np.asanyarray(nibabel.load(out / f"nifti/{case}_dseg.nii.gz").dataobj)
    for index, (image, row) in enumerate(zip(stack(3), rows, strict=True)):
        mask = engine(image) != 0
        assert np.array_equal(np.asarray(Image.open(out / f"masks/{row['case']}.png")) != 0, mask)
        assert np.array_equal(stored[index, ..., 0] != 0, mask)
        assert not stored[index, ..., 1:].any()
        assert np.array_equal(voxels[..., index].T, mask.astype(int))
        features = json.loads((out / f"contours/{row['case']}.json").read_text())["features"]
        assert {feature["properties"]["classification"]["name"] for feature in features} == {"Lesion"}


def test_names_that_are_not_text_stand_in_the_tables_as_they_can(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scans, out = tmp_path / "scans", tmp_path / "out"
    name = os.fsdecode(b"caf\xe9")
    series(scans / name, stack(3))
    save(dataset(stack(1)[0], "US"), scans / f"{name}.dcm")
    assert segment(engine, out, scans).failed == 0
    assert (out / f"dicom/{name}.dcm").is_file()
    (row,) = table(out / "series.csv")
    assert row["seg"] == f"dicom/{row['case']}.dcm"
    assert {row["seg"] for row in table(out / "cases.csv")} == {row["seg"], "dicom/caf\\xe9.dcm"}


def test_a_place_that_the_file_system_refuses_fails_the_slices_not_the_run(engine: Engine, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    series(scans / "a", stack(3))
    Image.fromarray(stack(1)[0]).save(scans / "p.png")
    for kind in ("dicom", "masks"):  # files where folders are needed
        (out / kind).mkdir(parents=True)
        (out / kind / "a").write_text("in the way")
    assert segment(engine, out, scans).failed == 3
    rows = table(out / "cases.csv")
    assert [row["status"] for row in rows] == ["failed"] * 3 + ["ok"]
    assert "cannot be written" in rows[0]["error"]
    assert [(row["status"], row["failed"]) for row in table(out / "series.csv")] == [("failed", "3")]
    assert (out / "masks/p.png").is_file()


def test_each_slice_is_told_as_soon_as_it_is_written(engine: Engine, tmp_path: Path) -> None:
    series(tmp_path / "scans", stack(4))
    counts = []
    with OutFolder(tmp_path / "out") as folder:
        job = InferJob(engine, folder, InferOptions(), workers=1, on_frame=lambda case, count: counts.append(count))
        run_cases(with_series(find_sources([str(tmp_path / "scans")])), job)
    assert counts == [1, 2, 3, 4]
