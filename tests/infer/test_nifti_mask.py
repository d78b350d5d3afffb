"""NIfTI results lie over their scans, voxel by voxel, as nibabel (and dcm2niix) read both."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from support.dicom_files import dataset, save
from support.infer_engine import brightness_engine

from gms_rt.classes import SegmentClass
from gms_rt.errors import InputError
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases, with_series
from gms_rt.infer.nifti_mask import write_nifti, write_probability_nifti
from gms_rt.infer.result import Maker, SourceResult
from gms_rt.scan.dicom import read_header
from gms_rt.scan.reader import fetch

nibabel = pytest.importorskip("nibabel")
CYST = (SegmentClass("Cyst"),)


def result_of(
    labels: Any, paths: Sequence[Path], *, probabilities: Any = None, headers: Sequence[Any] = ()
) -> SourceResult:
    maker = Maker("engine", "0" * 64, "1.0")
    return SourceResult(paths, "1" * 64, labels, [], maker, "key", probabilities, CYST, headers)


def frames_of(voxels: Any) -> Any:
    """Voxels (columns, rows, slices, times) in the order in which the reader gives frames."""
    whole = voxels.reshape(*voxels.shape, *(1,) * (4 - voxels.ndim))
    return np.stack([whole[:, :, z, t].T for t in range(whole.shape[3]) for z in range(whole.shape[2])])


def oblique(angle: float, scale: tuple[float, float, float], *, flip: bool = False) -> Any:
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(scale)
    affine[:3, 3] = (-12.5, 30, 7)
    if flip:
        affine[:, 0] *= -1
    return affine


AFFINES = {
    "plain": np.diag([0.5, 0.25, 2, 1]),
    "rotated": np.array([[0, -1.0, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]]),
    "flipped": np.diag([-0.5, 0.25, 2, 1]),
    "oblique": oblique(0.4, (0.5, 0.75, 2.0)),
    "oblique and flipped": oblique(-0.7, (0.5, 0.75, 2.0), flip=True),
}
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def stored(seed: int, shape: tuple[int, ...], dtype: Any) -> Any:
    values = np.random.default_rng(seed).integers(0, 200, shape)
    if dtype is RGB:
        colour = np.zeros(shape, RGB)
        colour["R"], colour["G"], colour["B"] = values, values, values // 2
        return colour
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, RGB], ids=str)
@pytest.mark.parametrize("name", list(AFFINES))
def test_the_mask_lies_over_the_volume(tmp_path: Path, name: str, dtype: Any) -> None:
    affine = AFFINES[name]
    source = nibabel.Nifti1Image(stored(1, (7, 5, 3), dtype), affine)
    source.header.set_xyzt_units("mm", "sec")
    source.header.set_qform(affine, code="aligned")
    source.header.set_sform(affine, code="mni")
    nibabel.save(source, tmp_path / "v.nii.gz")
    voxels = np.random.default_rng(2).integers(0, 2, (7, 5, 3)).astype(np.uint8)
    write_nifti(tmp_path / "m_dseg.nii.gz", result_of(frames_of(voxels), [tmp_path / "v.nii.gz"]))
    before, after = nibabel.load(tmp_path / "v.nii.gz"), nibabel.load(tmp_path / "m_dseg.nii.gz")
    assert np.array_equal(np.asanyarray(after.dataobj), voxels)
    assert after.get_data_dtype() == np.uint8
    assert np.array_equal(after.affine, before.affine)
    for form in ("get_sform", "get_qform"):
        (one, code), (other, other_code) = (getattr(i.header, form)(coded=True) for i in (before, after))
        assert code == other_code and np.array_equal(one, other)
    assert after.header.get_zooms() == before.header.get_zooms()
    assert after.header.get_xyzt_units() == before.header.get_xyzt_units()
    assert nibabel.aff2axcodes(after.affine) == nibabel.aff2axcodes(before.affine)
    assert after.header.get_intent()[::2] == ("label", "Cyst")
    assert after.header["descrip"].item() == b"gms-rt, not for clinical use"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, RGB], ids=str)
def test_a_run_over_any_kind_of_values_writes_what_its_pictures_show(tmp_path: Path, dtype: Any) -> None:
    values = stored(9, (37, 21, 3, 2), dtype)
    if dtype is not RGB and np.dtype(dtype).kind == "f":
        values[3, 4] = np.nan
    (tmp_path / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(values, AFFINES["oblique"]), tmp_path / "scans/v.nii.gz")
    with OutFolder(tmp_path / "out") as held:
        job = InferJob(brightness_engine(tmp_path / "engine"), held, InferOptions(threshold=0.3), workers=2)
        assert run_cases(find_sources([str(tmp_path / "scans")]), job).failed == 0
    after = nibabel.load(tmp_path / "out/nifti/v_dseg.nii.gz")
    assert after.shape == values.shape and np.allclose(after.affine, AFFINES["oblique"])
    mask = np.asanyarray(after.dataobj)
    assert mask.any() and not mask.all()
    for number, frame in enumerate(frames_of(mask), 1):
        picture = cv2.imread(str(tmp_path / f"out/masks/v.frame-{number:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(frame * 255, picture)


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3), (7, 5, 1, 4), (7, 5, 3, 4), (1, 5, 3), (7, 1, 2, 3)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_every_voxel_of_every_time_is_the_sources(tmp_path: Path, shape: tuple[int, ...], ending: str) -> None:
    """What the reader shows as frame n and what is written for frame n are the same voxels."""
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    source = nibabel.Nifti1Image(values, AFFINES["oblique"])
    if len(shape) == 4:
        source.header.set_zooms((*source.header.get_zooms()[:3], 2.5))
    path = tmp_path / f"v{ending}"
    nibabel.save(source, path)
    limit = int(np.median(values))
    seen = [frame.image for frame in fetch(path).open().frames]
    brightness = nibabel.load(path).get_fdata()
    write_nifti(tmp_path / "m.nii.gz", result_of((frames_of(brightness) > limit).astype(np.uint8), [path]))
    after = nibabel.load(tmp_path / "m.nii.gz")
    assert after.shape == shape
    assert np.array_equal(np.asanyarray(after.dataobj) == 1, brightness > limit)
    assert after.header.get_zooms() == source.header.get_zooms()
    # Frames of the reader, in its own order: darker than the darkest that is in is nothing that is in.
    for image, frame in zip(seen, frames_of(np.asanyarray(after.dataobj)), strict=True):
        assert image.shape == frame.shape
        assert not frame.any() or frame.all() or image[frame == 0].max() <= image[frame == 1].min()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_probabilities_are_0_to_1(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("p")
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)))
    levels = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    source = nibabel.Nifti1Image(levels.astype(np.float32) * 3 + 1, np.eye(4))
    source.header.set_slope_inter(2.0, 5.0)
    nibabel.save(source, folder / "v.nii")
    result = result_of(frames_of(levels) // 128, [folder / "v.nii"], probabilities=frames_of(levels))
    write_probability_nifti(folder / "p.nii.gz", result)
    after = nibabel.load(folder / "p.nii.gz")
    assert after.shape == nibabel.load(folder / "v.nii").shape
    assert np.allclose(after.get_fdata().reshape(shape), levels / 255, atol=1e-6)
    assert np.array_equal(np.rint(after.get_fdata().reshape(shape) * 255), levels)
    write_nifti(folder / "m.nii.gz", result)
    assert set(np.unique(nibabel.load(folder / "m.nii.gz").get_fdata())) <= {0, 1}


def test_headers_of_the_second_kind_stay_so(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti2Image(np.zeros((4, 3, 2), np.int16), AFFINES["flipped"]), tmp_path / "v.nii.gz")
    write_nifti(tmp_path / "m.nii.gz", result_of(np.ones((2, 3, 4), np.uint8), [tmp_path / "v.nii.gz"]))
    after = nibabel.load(tmp_path / "m.nii.gz")
    assert isinstance(after, nibabel.Nifti2Image)
    assert np.array_equal(after.affine, AFFINES["flipped"])


def test_a_patients_words_are_left_out_and_bytes_depend_on_the_volume_only(tmp_path: Path) -> None:
    source = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.eye(4))
    source.header["descrip"], source.header["db_name"] = b"Jane Doe 1950", b"Jane Doe"
    source.header["aux_file"] = b"jane_doe.txt"
    source.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe" * 50))
    nibabel.save(source, tmp_path / "v.nii")
    result = result_of(np.ones((2, 3, 4), np.uint8), [tmp_path / "v.nii"])
    write_nifti(tmp_path / "one.nii.gz", result)
    write_nifti(tmp_path / "another.nii.gz", result)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "another.nii.gz").read_bytes()
    after = nibabel.load(tmp_path / "one.nii.gz")
    assert not after.header.extensions and b"Jane" not in after.to_bytes()
    assert after.dataobj.offset == 352


def test_a_scan_that_changed_meanwhile_is_told(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(InputError, match="has the shape"):
        write_nifti(tmp_path / "m.nii.gz", result_of(np.ones((3, 3, 4), np.uint8), [tmp_path / "v.nii"]))
    with pytest.raises(InputError, match="were not kept"):
        write_probability_nifti(tmp_path / "m.nii.gz", result_of(np.ones((2, 3, 4), np.uint8), [tmp_path / "v.nii"]))
    assert not (tmp_path / "m.nii.gz").exists()


ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([-0.48, 0.64, 0.6])  # an oblique orientation
NORMAL = np.cross(ROW, COLUMN)


def series(folder: Path, volume: Any, places: Sequence[float], **tags: Any) -> list[Path]:
    """Slices of a volume (slices, rows, columns) at these places along their normal."""
    paths = []
    shared = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.5"}
    for number, (plane, place) in enumerate(zip(volume, places, strict=True), 1):
        position = np.array([-20.0, 15.5, 40.0]) + place * NORMAL
        made = dataset(
            plane, "CT", InstanceNumber=number, PixelSpacing=[0.75, 0.5], SliceThickness=2.0, SeriesNumber=1,
            ImagePositionPatient=[float(v) for v in position], ImageOrientationPatient=[*map(float, [*ROW, *COLUMN])],
            RescaleSlope=1, RescaleIntercept=0, StudyDate="20260101", StudyTime="120000", PatientBirthDate="",
            SeriesDate="20260101", SeriesTime="120000", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
            **(shared | tags),
        )  # fmt: skip
        paths.append(save(made, folder / f"{number}.dcm"))
    return paths


def over(paths: Sequence[Path], labels: Any, out: Path) -> Any:
    write_nifti(out, result_of(labels, paths, headers=[read_header(path) for path in paths]))
    return nibabel.load(out)


def test_a_series_lies_where_its_positions_say(tmp_path: Path) -> None:
    labels = np.random.default_rng(4).integers(0, 2, (4, 5, 7)).astype(np.uint8)
    paths = series(tmp_path / "dicom", labels.astype(np.int16), [0, 2.5, 5, 7.5])
    image = over(paths, labels, tmp_path / "m.nii.gz")
    assert image.shape == (7, 5, 4)
    assert image.header.get_zooms() == pytest.approx((0.5, 0.75, 2.5))
    assert image.header.get_xyzt_units() == ("mm", "unknown")
    assert image.header.get_sform(coded=True)[1] == image.header.get_qform(coded=True)[1] == 1
    assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    # The equation of PS3.3 C.7.6.2.1.1, with x and y to the other side.
    column, row, frame = 6, 2, 3
    place = np.array([-20.0, 15.5, 40.0]) + frame * 2.5 * NORMAL + ROW * 0.5 * column + COLUMN * 0.75 * row
    assert (image.affine @ [column, row, frame, 1])[:3] == pytest.approx(place * [-1, -1, 1], abs=1e-4)
    assert np.array_equal(np.asanyarray(image.dataobj)[column, row, frame], labels[frame, row, column])


def test_a_series_lies_where_dcm2niix_puts_it(tmp_path: Path) -> None:
    program = shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    labels = np.random.default_rng(5).integers(1, 3000, (4, 16, 18)).astype(np.int16)
    paths = series(tmp_path / "dicom", labels, [0, 2.5, 5, 7.5], Manufacturer="Siemens")
    (tmp_path / "out").mkdir()
    command = [program, "-z", "y", "-b", "n", "-f", "theirs", "-o", str(tmp_path / "out"), str(tmp_path / "dicom")]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = (tmp_path / "out").glob("*.nii.gz")
    theirs = nibabel.load(file)
    mask = (labels % 2).astype(np.uint8)
    ours = over(paths, mask, tmp_path / "m.nii.gz")
    # Each voxel of ours, through the patient, is a voxel of theirs.
    index = np.stack(np.meshgrid(*map(np.arange, ours.shape), indexing="ij"), -1).reshape(-1, 3)
    there = nibabel.affines.apply_affine(np.linalg.inv(theirs.affine) @ ours.affine, index)
    assert np.abs(there - np.rint(there)).max() < 1e-3
    values = np.asanyarray(theirs.dataobj)[tuple(np.rint(there).astype(int).T)]
    assert np.array_equal(values % 2, np.asanyarray(ours.dataobj)[tuple(index.T)])


@pytest.mark.parametrize(
    ("places", "tags", "words"),
    [
        ([0, 2.5, 7.5], {}, "not evenly spaced"),
        ([0, 0, 0], {}, "several slices in one place"),
        ([0, 0, 2.5], {}, "several slices in one place"),
    ],
)
def test_what_one_affine_cannot_hold_is_refused(
    tmp_path: Path, places: list[float], tags: dict[str, Any], words: str
) -> None:
    labels = np.ones((3, 4, 5), np.uint8)
    with pytest.raises(InputError, match=words):
        over(series(tmp_path / "dicom", labels, places, **tags), labels, tmp_path / "m.nii.gz")
    assert not (tmp_path / "m.nii.gz").exists()


def test_positions_that_a_device_rounded_fit_into_one_affine(tmp_path: Path) -> None:
    labels = np.ones((4, 4, 5), np.uint8)
    image = over(series(tmp_path / "dicom", labels, [0, 1.2, 2.5, 3.7]), labels, tmp_path / "m.nii.gz")
    assert image.header.get_zooms()[2] == pytest.approx(3.7 / 3)


def test_slices_of_two_orientations_are_refused(tmp_path: Path) -> None:
    labels = np.ones((2, 4, 5), np.uint8)
    paths = series(tmp_path / "dicom", labels, [0, 1])
    turned = read_header(paths[1])
    turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    with pytest.raises(InputError, match="different orientations"):
        write_nifti(tmp_path / "m.nii.gz", result_of(labels, paths, headers=[read_header(paths[0]), turned]))


def enhanced(places: Sequence[float], labels: Any, **tags: Any) -> Any:
    """An enhanced MR with frames at these places along the normal, stored in this order."""
    made = dataset(labels, "EMR", frames=len(places), FrameOfReferenceUID="1.2.5", **tags)
    measures, turned, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.75, 0.5], 2.0
    turned.ImageOrientationPatient = [*map(float, [*ROW, *COLUMN])]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turned]
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], []
    for place in places:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [float(v) for v in np.array([-20.0, 15.5, 40.0]) + place * NORMAL]
        group.PlanePositionSequence = [position]
        made.PerFrameFunctionalGroupsSequence.append(group)
    return made


@pytest.mark.parametrize(
    ("places", "shape"),
    [
        ([0, 2.5, 5], (7, 5, 3)),
        ([5, 0, 2.5], (7, 5, 3)),  # as stored, which need not be as they lie
        ([0, 2.5, 5, 0, 2.5, 5], (7, 5, 3, 2)),
        ([5, 5, 2.5, 2.5, 0, 0], (7, 5, 3, 2)),
    ],
)
def test_frames_of_an_enhanced_file_lie_where_their_positions_say(
    places: list[float], shape: tuple[int, ...], tmp_path: Path
) -> None:
    labels = np.random.default_rng(10).integers(0, 2, (len(places), 5, 7)).astype(np.uint8)
    image = over([save(enhanced(places, labels), tmp_path / "e.dcm")], labels, tmp_path / "m.nii.gz")
    assert image.shape == shape
    voxels = np.asanyarray(image.dataobj).reshape(7, 5, 3, -1)
    times = dict.fromkeys(places, 0)
    for frame, place in enumerate(places):
        point = np.array([-20.0, 15.5, 40.0]) + place * NORMAL + 4 * 0.5 * ROW + 3 * 0.75 * COLUMN
        index = np.linalg.inv(image.affine) @ [*(point * [-1, -1, 1]), 1]
        assert index[:2] == pytest.approx([4, 3], abs=1e-3)
        assert np.array_equal(voxels[:, :, round(index[2]), times[place]], labels[frame].T)
        times[place] += 1


def test_an_enhanced_file_without_one_affine_says_why(tmp_path: Path) -> None:
    labels = np.ones((3, 5, 7), np.uint8)
    uneven = enhanced([0, 0, 5], labels)
    partly, side, scaled = (enhanced([0, 2.5, 5], labels) for _ in range(3))
    del partly.PerFrameFunctionalGroupsSequence[2]
    side.PerFrameFunctionalGroupsSequence[1] = enhanced([0], labels[0]).PerFrameFunctionalGroupsSequence[0]
    side.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = [
        float(v) for v in np.array([-20.0, 15.5, 40.0]) + 9 * ROW
    ]
    del side.PerFrameFunctionalGroupsSequence[2]
    side.NumberOfFrames = 2
    measures = Dataset()
    measures.PixelSpacing = [1.0, 1.0]
    scaled.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence = [measures]
    for header, count, words in (
        (uneven, 3, "more frames at some positions than at others"),
        (partly, 3, "1 of 3 frames without a position"),
        (side, 2, "side by side"),
        (scaled, 3, "different spacing"),
    ):
        with pytest.raises(InputError, match=words):
            write_nifti(tmp_path / "m.nii.gz", result_of(labels[:count], [tmp_path / "e.dcm"], headers=[header]))


@pytest.mark.parametrize("turn", [[2, 0, 0, 0, 2, 0], [1, 0, 0, 0.8, 0.6, 0]])
def test_directions_that_are_none_are_refused(turn: list[float], tmp_path: Path) -> None:
    labels = np.ones((2, 4, 5), np.uint8)
    paths = series(tmp_path / "dicom", labels, [0, 1])
    headers = [read_header(path) for path in paths]
    for header in headers:
        header.ImageOrientationPatient = turn
    with pytest.raises(InputError, match="length 1 and at right angles"):
        write_nifti(tmp_path / "m.nii.gz", result_of(labels, paths, headers=headers))


def test_one_slice_is_as_thick_as_its_header_says(tmp_path: Path) -> None:
    labels = np.ones((1, 4, 5), np.uint8)
    image = over(series(tmp_path / "dicom", labels, [3.0]), labels, tmp_path / "m.nii.gz")
    assert image.shape == (5, 4, 1)
    assert image.header.get_zooms() == pytest.approx((0.5, 0.75, 2.0))


def test_a_film_without_a_place_has_times_and_says_that_it_has_no_place(tmp_path: Path) -> None:
    labels = np.random.default_rng(6).integers(0, 2, (3, 4, 5)).astype(np.uint8)
    made = dataset(labels, "USMF", frames=3, FrameTime=40.0)
    image = over([save(made, tmp_path / "us.dcm")], labels, tmp_path / "m.nii.gz")
    assert image.shape == (5, 4, 1, 3)
    assert np.array_equal(np.asanyarray(image.dataobj)[:, :, 0, 2], labels[2].T)
    assert image.header.get_sform(coded=True)[1] == image.header.get_qform(coded=True)[1] == 0
    assert image.header.get_zooms()[3] == pytest.approx(0.04)


def test_positions_that_are_not_numbers_are_an_input_error(tmp_path: Path) -> None:
    labels = np.ones((1, 4, 5), np.uint8)
    paths = series(tmp_path / "dicom", labels, [0.0])
    header = read_header(paths[0])
    header.ImagePositionPatient = [float("nan"), 0, 0]
    write_nifti(tmp_path / "m.nii.gz", result_of(labels, paths, headers=[header]))
    assert nibabel.load(tmp_path / "m.nii.gz").header.get_sform(coded=True)[1] == 0


def test_a_run_writes_a_series_as_one_volume_on_request(tmp_path: Path) -> None:
    volume = np.random.default_rng(8).integers(0, 2, (3, 5, 7)).astype(np.int16) * 1000
    series(tmp_path / "scans", volume, [0, 2.5, 5])
    with OutFolder(tmp_path / "out") as held:
        options = InferOptions(nifti=True, probabilities=True, dicom_seg=False, slices=True, overlays=False)
        found = with_series(find_sources([str(tmp_path / "scans")]))
        job = InferJob(brightness_engine(tmp_path / "engine"), held, options, workers=2)
        assert run_cases(found, job).failed == 0
    (mask_file,) = (tmp_path / "out/nifti").glob("*_dseg.nii.gz")
    (probability_file,) = (tmp_path / "out/nifti").glob("*_probseg.nii.gz")
    mask, probability = np.asanyarray(nibabel.load(mask_file).dataobj), nibabel.load(probability_file).get_fdata()
    for folder, values in (("masks", mask * 255), ("probabilities", np.rint(probability * 255))):
        pictures = sorted((tmp_path / "out" / folder).rglob("*.png"))
        assert len(pictures) == 3
        for index, path in enumerate(pictures):
            assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), values[:, :, index].T)
    assert mask.any() and not mask.all()
    for table in ("cases.csv", "series.csv"):
        rows = list(csv.DictReader((tmp_path / "out" / table).read_text().splitlines()))
        assert {row["class"] for row in rows} == {"Segmented region"}
    assert nibabel.load(mask_file).header.get_zooms() == pytest.approx((0.5, 0.75, 2.5))


def test_a_series_that_is_not_even_keeps_its_masks_and_says_why(tmp_path: Path) -> None:
    series(tmp_path / "scans", np.full((3, 5, 7), 1000, np.int16), [0, 2.5, 7.5])
    with OutFolder(tmp_path / "out") as held:
        options = InferOptions(nifti=True, layout="bids", dicom_seg=False, overlays=False)
        found = with_series(find_sources([str(tmp_path / "scans")]))
        job = InferJob(brightness_engine(tmp_path / "engine"), held, options, workers=2)
        assert run_cases(found, job).failed == 0
    assert "no NIfTI mask: has slices that are not evenly spaced" in (tmp_path / "out/cases.csv").read_text()
    assert len(list((tmp_path / "out/masks").rglob("*.png"))) == 3
    assert not list((tmp_path / "out").glob("sub-*/**/*dseg*"))
