"""Which DICOM files are slices of which series: by identity and orientation, in the order of positions."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from support.dicom_files import dataset, save, series

from gms_rt.errors import InputError
from gms_rt.scan.reader import fetch, fetch_series
from gms_rt.scan.slices import series_from_files

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
PIXELS = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_slices_come_in_the_order_of_positions(tmp_path: Path) -> None:
    paths = series(tmp_path, PIXELS)
    (found,) = series_from_files(files(tmp_path))
    assert found.paths == tuple(paths)
    assert list(found.paths) == sorted(paths, reverse=True)
    assert (found.spacing, found.notes, found.modality) == (2.5, (), "CT")
    assert found.name.startswith("series-3-")
    frames = list(fetch_series(found.paths).open().frames)
    assert [frame.number for frame in frames] == [1, 2, 3, 4, 5]
    for frame, path in zip(frames, paths, strict=True):
        alone = next(fetch(path).open().frames)
        assert np.array_equal(frame.image, alone.image)
        assert frame.origin == alone.origin
    assert [frames[1].origin[f"position_{axis}"] for axis in "xyz"] == [0, 0, 2.5]
    assert frames[1].origin["sop_uid"] == pydicom.dcmread(paths[1]).SOPInstanceUID
    assert frames[1].origin["instance"] == 4


def test_an_oblique_stack_is_sorted_along_its_normal(tmp_path: Path) -> None:
    turn = (0.0, 0.6, -0.8, 1.0, 0.0, 0.0)
    paths = series(tmp_path, PIXELS, turn=turn, first=-3)
    (found,) = series_from_files(files(tmp_path))
    assert found.paths == tuple(paths)
    assert found.spacing == pytest.approx(2.5)


def test_the_name_does_not_depend_on_which_slices_are_there(tmp_path: Path) -> None:
    paths = series(tmp_path, PIXELS)
    (whole,) = series_from_files(paths)
    (part,) = series_from_files(paths[3:0:-1])
    assert part.name == whole.name
    assert part.paths == whole.paths[1:4]


def test_several_series_orientations_and_localizers_stay_apart(tmp_path: Path) -> None:
    uid = generate_uid()
    axial = series(tmp_path, PIXELS, SeriesInstanceUID=uid, names="a{}")
    coronal = series(tmp_path, PIXELS[:3], SeriesInstanceUID=uid, turn=(1, 0, 0, 0, 0, -1), names="b{}")
    small = series(tmp_path, PIXELS[:2, :4], SeriesInstanceUID=uid, names="c{}")
    other = series(tmp_path / "deep", PIXELS[:4], names="d{}")
    series(tmp_path, PIXELS[:3], SeriesInstanceUID=uid, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], names="e{}")
    series(tmp_path, PIXELS[:1], names="f{}")
    found = series_from_files(files(tmp_path))
    assert {one.paths for one in found} == set(map(tuple, (axial, coronal, small, other)))
    assert len({one.name for one in found}) == 4


def test_what_has_no_place_or_many_frames_is_no_slice(tmp_path: Path) -> None:
    uid = generate_uid()
    for index in range(3):
        save(dataset(PIXELS[0], "US", SeriesInstanceUID=uid), tmp_path / f"us{index}.dcm")
        save(dataset(PIXELS, "USMF", frames=5, SeriesInstanceUID=uid), tmp_path / f"loop{index}.dcm")
    (tmp_path / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x12" * 90)
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "nowhere")
    hostile = dataset(PIXELS[0], "CT", SeriesInstanceUID=uid)
    hostile.ImagePositionPatient, hostile.ImageOrientationPatient = [0, 0, 0], [0, 0, 0, 0, 0, 0]
    save(hostile, tmp_path / "flat.dcm")
    assert series_from_files([*tmp_path.iterdir()]) == []


@pytest.mark.parametrize(("missing", "note"), [
    ([2], "slices are missing: 1 after slice 2"),
    ([1, 3], "slices are missing: 1 after slice 1, 1 after slice 2"),
])  # fmt: skip
def test_gaps_are_told(missing: list[int], note: str, tmp_path: Path) -> None:
    paths = series(tmp_path, np.zeros((8, 4, 4), np.uint8))
    for index in missing:
        paths[index].unlink()
    (found,) = series_from_files(files(tmp_path))
    assert (found.spacing, found.notes) == (None, (note,))


def test_uneven_steps_and_doubles_are_told(tmp_path: Path) -> None:
    uids = {name: generate_uid() for name in UIDS}
    series(tmp_path / "a", PIXELS, **uids)
    series(tmp_path / "b", PIXELS[:2], first=11.7, **uids)
    (found,) = series_from_files(files(tmp_path))
    assert found.spacing is None
    assert found.notes == ("the distance between slices differs: 1.7 to 2.5 mm",)
    series(tmp_path / "c", PIXELS[:1], first=2.5, **uids)
    (found,) = series_from_files(files(tmp_path))
    assert found.notes == ("slices at the position of the one before: 1 (first: slice 3)",)


def test_positions_that_a_device_rounded_are_even(tmp_path: Path) -> None:
    paths = series(tmp_path, np.zeros((9, 4, 4), np.uint8), step=1.25)
    for path in paths:
        header = pydicom.dcmread(path)
        header.ImagePositionPatient = [round(float(v), 1) for v in header.ImagePositionPatient]
        header.save_as(path)
    (found,) = series_from_files(paths)
    assert (found.spacing, found.notes) == (1.25, ())


def test_copies_of_a_slice_are_left_out_and_told(tmp_path: Path) -> None:
    paths = series(tmp_path, PIXELS)
    copy = Path(shutil.copy(paths[2], tmp_path / "copy.dcm"))
    (found,) = series_from_files([*paths, copy])
    assert len(found.paths) == 5
    assert len(found.copies) == 1
    assert found.spacing == 2.5
    assert found.notes == ("left out as copies of other files: 1",)


def test_a_copy_that_was_cut_off_does_not_hide_the_whole_file(tmp_path: Path) -> None:
    paths = series(tmp_path, PIXELS)
    cut = tmp_path / "A-comes-first.dcm"
    cut.write_bytes(paths[2].read_bytes()[:-20])
    (found,) = series_from_files(files(tmp_path))
    assert found.paths == tuple(paths)
    assert found.copies == (cut,)


def test_phases_at_one_place_are_stacks_of_their_own(tmp_path: Path) -> None:
    uids = {name: generate_uid() for name in UIDS}
    early = series(tmp_path, PIXELS, AcquisitionNumber=1, names="a{}", **uids)
    late = series(tmp_path, PIXELS, AcquisitionNumber=2, names="b{}", **uids)
    found = series_from_files(files(tmp_path))
    assert [one.paths for one in found] == [tuple(early), tuple(late)]
    assert all(one.spacing == 2.5 for one in found)
    told = "stack {} of 2 at one place, told apart by AcquisitionNumber"
    assert [one.notes for one in found] == [(told.format(1),), (told.format(2),)]


@pytest.mark.parametrize(
    ("name", "values"),
    [("TriggerTime", (0.0, 412.5)), ("DiffusionBValue", (0.0, 800.0)), ("ContentTime", ("101500.25", "101507"))],
)
def test_stacks_at_one_place_are_told_apart_by_what_differs(name: str, values: Any, tmp_path: Path) -> None:
    uids = {uid: generate_uid() for uid in UIDS}
    stacks = [series(tmp_path, PIXELS, names=f"{at}-{{}}", **{name: value}, **uids) for at, value in enumerate(values)]
    found = series_from_files(files(tmp_path))
    assert [one.paths for one in found] == [tuple(stack) for stack in stacks]
    assert {note.rpartition(" ")[2] for one in found for note in one.notes} == {name}


def test_what_each_slice_has_for_itself_does_not_take_a_series_apart(tmp_path: Path) -> None:
    paths = series(tmp_path, PIXELS)
    again = Path(shutil.copy(paths[2], tmp_path / "again.dcm"))
    for number, path in enumerate([*paths, again], 1):
        header = pydicom.dcmread(path)
        header.AcquisitionNumber, header.SOPInstanceUID = number, generate_uid()
        header.save_as(path)
    (found,) = series_from_files([*paths, again])
    assert len(found.paths) == 6
    assert found.notes == ("slices at the position of the one before: 1 (first: slice 4)",)


@pytest.mark.parametrize("changed", ["StudyInstanceUID", "PatientID"])
def test_two_studies_and_two_patients_never_mix(changed: str, tmp_path: Path) -> None:
    uids = dict.fromkeys(UIDS, "1.2.3")  # as some programs write that take names out of images
    one = series(tmp_path, PIXELS, names="a{}", **uids)
    two = series(tmp_path, PIXELS[:3], first=1.0, names="b{}", **(uids | {changed: "1.2.4"}))
    found = series_from_files(files(tmp_path))
    assert [stack.paths for stack in found] == [tuple(one), tuple(two)]
    assert len({stack.name for stack in found}) == 2


@pytest.mark.parametrize(
    "changes", [{"FrameOfReferenceUID": "1.2.9"}, {"ImagePositionPatient": [0, 5]}, {"ImageOrientationPatient": None}]
)
def test_an_image_of_the_series_that_is_no_slice_is_told(changes: dict[str, Any], tmp_path: Path) -> None:
    paths = series(tmp_path, PIXELS)
    header = pydicom.dcmread(paths[-1])  # without it no gap shows
    for name, value in changes.items():
        setattr(header, name, value)
    header.save_as(paths[-1])
    localizer = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": header.SeriesInstanceUID}
    series(tmp_path, PIXELS[:1], names="localizer{}", **localizer)
    (found,) = series_from_files(files(tmp_path))
    assert found.paths == tuple(paths[:4])
    assert found.notes == ("other images of the series that do not fit into this stack, or have no position: 1",)


def test_a_slice_that_cannot_be_read_does_not_end_the_series(tmp_path: Path) -> None:
    paths = series(tmp_path, PIXELS)
    (found,) = series_from_files(paths)
    before = fetch_series(found.paths).digest
    paths[1].unlink()
    fetched = fetch_series(found.paths)
    assert fetched.digest != before
    frames = fetched.open().frames
    assert next(frames).number == 1
    with pytest.raises(InputError, match="No such file"):
        next(frames)
    assert [frame.number for frame in frames] == [3, 4, 5]


def test_a_series_can_be_looked_at_with_what_is_remembered(tmp_path: Path) -> None:
    paths = series(tmp_path, PIXELS)
    (found,) = series_from_files(paths)
    assert series_from_files(paths, look=lambda path: None) == []
    seen: list[tuple[int, int]] = []
    assert series_from_files(paths, lambda phase, done, total: seen.append((done, total))) == [found]
    assert seen == [(n, 5) for n in range(1, 6)]
    assert dataclasses.asdict(found)["uid"] == found.uid
