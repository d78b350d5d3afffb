"""DICOM SEG out: read back with pydicom and highdicom, it refers to its source and holds the same masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from support.dicom_files import dataset, save

from gms_rt.errors import InputError, MissingExtraError
from gms_rt.infer.dicom_seg import Algorithm, write_seg
from gms_rt.scan.dicom import read_header

highdicom = pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")

WHO = Algorithm("demo-fp16", "ab" * 32, "0.1.0")
PLACED = {
    "FrameOfReferenceUID": generate_uid(),
    "ImagePositionPatient": [-10, 20, 33.5],
    "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
    "PixelSpacing": [0.5, 0.7],
    "SliceThickness": 2,
}


def masks_of(frames: int) -> Any:
    masks = np.zeros((frames, 30, 44), np.uint8)
    for index in range(frames):
        if index != 1:  # one frame in which nothing was found
            masks[index, 3 + index : 20, 5:17] = 255
    return masks


def written(made: Any, masks: Any, folder: Path) -> tuple[Any, Any]:
    header = read_header(save(made, folder / "scan.dcm"))
    before = header.to_json()
    write_seg(folder / "seg.dcm", header, masks, WHO)
    assert header.to_json() == before
    return pydicom.dcmread(folder / "seg.dcm"), highdicom.seg.segread(folder / "seg.dcm")


def pixels(shape: tuple[int, ...], dtype: str = "uint8") -> Any:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


@pytest.mark.parametrize(("kind", "shape", "tags"), [
    ("CT", (30, 44), PLACED),
    ("US", (30, 44), {}),
    ("US", (30, 44, 3), {"FrameOfReferenceUID": generate_uid()}),
    ("SC", (30, 44, 3), {}),
])  # fmt: skip
def test_a_single_frame_comes_back(kind: str, shape: tuple[int, ...], tags: dict[str, Any], tmp_path: Path) -> None:
    made = dataset(pixels(shape), kind, **tags)
    masks = masks_of(1)
    plain, seg = written(made, masks, tmp_path)
    assert np.array_equal(plain.pixel_array.reshape(masks.shape), masks != 0)
    back = seg.get_pixels_by_source_instance([made.SOPInstanceUID])
    assert np.array_equal(back[..., 0], masks != 0)
    assert plain.StudyInstanceUID == made.StudyInstanceUID
    assert plain.PatientID == made.PatientID
    assert plain.SeriesInstanceUID != made.SeriesInstanceUID


def test_geometry_is_the_sources(tmp_path: Path) -> None:
    made = dataset(pixels((30, 44)), "CT", **PLACED)
    plain, seg = written(made, masks_of(1), tmp_path)
    assert plain.FrameOfReferenceUID == PLACED["FrameOfReferenceUID"]
    shared, frame = plain.SharedFunctionalGroupsSequence[0], plain.PerFrameFunctionalGroupsSequence[0]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == PLACED["ImageOrientationPatient"]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == PLACED["PixelSpacing"]
    assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == PLACED["ImagePositionPatient"]
    assert seg.get_volume_geometry() is not None


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("frame_of_reference", [False, True])
def test_ultrasound_of_many_frames_refers_frame_by_frame(
    colour: bool, frame_of_reference: bool, tmp_path: Path
) -> None:
    tags = {"FrameOfReferenceUID": generate_uid()} if frame_of_reference else {}
    made = dataset(pixels((5, 30, 44) + ((3,) if colour else ())), "USMF", frames=5, **tags)
    masks = masks_of(5)
    plain, seg = written(made, masks, tmp_path)
    assert np.array_equal(plain.pixel_array, masks != 0)
    back = seg.get_pixels_by_source_frame(made.SOPInstanceUID, [1, 2, 3, 4, 5])
    assert np.array_equal(back[..., 0], masks != 0)
    one = seg.get_pixels_by_source_frame(made.SOPInstanceUID, [4])
    assert np.array_equal(one[0, ..., 0], masks[3] != 0)
    references = [
        group.DerivationImageSequence[0].SourceImageSequence[0] for group in plain.PerFrameFunctionalGroupsSequence
    ]
    assert [item.ReferencedFrameNumber for item in references] == [1, 2, 3, 4, 5]
    assert {item.ReferencedSOPClassUID for item in references} == {made.SOPClassUID}
    assert plain.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPClassUID == made.SOPClassUID
    indices = [list(g.FrameContentSequence[0].DimensionIndexValues) for g in plain.PerFrameFunctionalGroupsSequence]
    assert indices == [[1, n] for n in range(1, 6)]
    assert len(plain.DimensionIndexSequence) == 2


def test_who_made_it_is_in_the_object(tmp_path: Path) -> None:
    plain, _ = written(dataset(pixels((30, 44))), masks_of(1), tmp_path)
    segment = plain.SegmentSequence[0]
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert algorithm.AlgorithmName == "demo-fp16"
    assert algorithm.AlgorithmVersion == "0.1.0+abababababab"
    assert WHO.fingerprint in str(algorithm.AlgorithmParameters)
    assert plain.ContentDescription == "Not for clinical use"


def test_identity_follows_from_scan_and_engine(tmp_path: Path) -> None:
    made = dataset(pixels((30, 44)))
    first, _ = written(made, masks_of(1), tmp_path)
    second, _ = written(made, masks_of(1), tmp_path)
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    other = Algorithm("demo-int8", "cd" * 32, "0.1.0")
    write_seg(tmp_path / "other.dcm", read_header(tmp_path / "scan.dcm"), masks_of(1), other)
    assert pydicom.dcmread(tmp_path / "other.dcm").SOPInstanceUID != first.SOPInstanceUID


def test_an_empty_mask_is_a_result_and_missing_patient_tags_are_empty(tmp_path: Path) -> None:
    made = dataset(pixels((30, 44)))
    del made.PatientName, made.PatientID
    plain, _ = written(made, np.zeros((1, 30, 44), np.uint8), tmp_path)
    assert int(plain.NumberOfFrames) == 1
    assert not plain.pixel_array.any()
    assert plain.PatientID == ""


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    header = read_header(save(dataset(pixels((30, 44))), tmp_path / "scan.dcm"))
    with pytest.raises(InputError, match="do not fit"):
        write_seg(tmp_path / "seg.dcm", header, np.zeros((1, 9, 9), np.uint8), WHO)
    del header.StudyInstanceUID
    with pytest.raises(InputError, match="no DICOM SEG can be made"):
        write_seg(tmp_path / "seg.dcm", header, masks_of(1), WHO)
    assert [p.name for p in tmp_path.iterdir()] == ["scan.dcm"]


def test_without_highdicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_header(save(dataset(pixels((30, 44))), tmp_path / "scan.dcm"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gms-rt\[dicom-seg\]'"):
        write_seg(tmp_path / "seg.dcm", header, masks_of(1), WHO)
