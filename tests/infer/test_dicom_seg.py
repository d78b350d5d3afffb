"""DICOM SEG out: read back with pydicom and highdicom, judged by dciodvfy, it refers to its source frame by frame."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import generate_uid
from support.dicom_check import dicom_errors, needs_dciodvfy
from support.dicom_files import dataset, save
from support.dicom_results import (
    CYST,
    LESION,
    MAKER,
    PLACED,
    SHAPE,
    enhanced,
    header,
    labels_of,
    result_of,
    series,
)

from gms_rt.classes import Code
from gms_rt.errors import InputError, MissingExtraError
from gms_rt.infer.dicom_seg import write_probability_seg, write_seg
from gms_rt.infer.result import SourceResult
from gms_rt.scan.dicom import read_header

highdicom = pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")

UNPLACED = {"FrameOfReferenceUID": generate_uid()}
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
# Every way in which images come, by what their results can say about places.
SOURCES = {
    "CT slice": [header("CT", **PLACED)],
    "CT slice without thickness": [header("CT", **(PLACED | {"SliceThickness": None}))],
    "CT slice without a frame of reference": [header("CT", **{k: v for k, v in PLACED.items() if k[0] != "F"})],
    "ultrasound": [header("US")],
    "ultrasound in a frame of reference": [header("US", colour=True, **UNPLACED)],
    "ultrasound loop": [header("USMF", 5)],
    "ultrasound loop in a frame of reference": [header("USMF", 5, colour=True, **UNPLACED)],
    "capture": [header("SC", colour=True)],
    "capture said to have one frame": [header("SC", NumberOfFrames=1)],
    "loop of one frame": [header("USMF", NumberOfFrames=1)],
    "chest radiograph": [header("CR", PixelSpacing=[0.2, 0.2], PatientOrientation=["L", "F"])],
    "digital radiograph": [header("DX", ImagerPixelSpacing=[0.14, 0.14])],
    "mammogram without a spacing": [header("MG", PixelSpacing=[0, 0], **UNPLACED)],
    "angiogram": [header("XA", 4, ImagerPixelSpacing=[0.3, 0.3])],
    "endoscopy": [header("ENDO", colour=True)],
    "dermoscopy": [header("DERM", colour=True)],
    "retina, not placed": [header("OPT", 3, **UNPLACED)],
    "scintigram": [header("NM", 3, PixelSpacing=[2, 2], **UNPLACED)],
    "slide tiles": [header("SM", 4, colour=True, **UNPLACED)],
    "enhanced CT": [enhanced([0, 5, 10])],
    "enhanced MR out of order": [enhanced([10, 0, 5, 20], "EMR")],
    "enhanced CT over time": [enhanced([0, 5, 0, 5])],
    "CT series": series([0, 5, 10, 15]),
    "CT series with gaps": series([0, 5, 25, 30]),
    "CT series without thickness": series([0, 5, 10], SliceThickness=None),
    "CT series without a frame of reference": series([0, 5, 10], FrameOfReferenceUID=""),
    "MR series over time": series([0, 5, 0, 5], "MR"),
    "capture series": series([0, 1, 2], "SC", FrameOfReferenceUID="", PixelSpacing=[0.5, 0.5]),
    "Japanese": [header(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=JAPANESE)],
    "dates of 1990": [header(StudyDate="1990.02.13", StudyTime="07:27:30", PatientBirthDate="unknown")],
    "an invalid sex, age and number": [header(PatientSex="X", PatientAge="old", SeriesNumber=-3, InstanceNumber=0)],
}  # fmt: skip
PLACED_SOURCES = {"CT slice", "enhanced CT", "enhanced MR out of order", "enhanced CT over time", "CT series",
                  "CT series with gaps", "CT series without thickness", "MR series over time"}  # fmt: skip


def stored(seg: Any, headers: list[Any]) -> dict[tuple[int, int], Any]:
    """Pixels by segment and source frame (from 0), as the object's own references say."""
    instances = {h.SOPInstanceUID: index for index, h in enumerate(headers)}
    found = {}
    shared = seg.SharedFunctionalGroupsSequence[0]
    frames = seg.pixel_array.reshape(-1, *SHAPE)
    for pixels, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else shared
        segment = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        index = instances[reference.ReferencedSOPInstanceUID]
        assert reference.ReferencedSOPClassUID == headers[index].SOPClassUID
        found[segment, index if len(headers) > 1 else int(reference.get("ReferencedFrameNumber", 1)) - 1] = pixels
    return found


def written(result: SourceResult, folder: Path) -> Any:
    before = [h.to_json() for h in result.headers]
    write_seg(folder / "seg.dcm", result)
    assert [h.to_json() for h in result.headers] == before
    return highdicom.seg.segread(folder / "seg.dcm")


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_source_has_a_segmentation_with_the_same_pixels(name: str, classes: int, tmp_path: Path) -> None:
    headers = SOURCES[name]
    frames = len(headers) if len(headers) > 1 else int(headers[0].get("NumberOfFrames") or 1)
    labels = labels_of(frames, classes)
    seg = written(result_of(headers, labels, classes=(LESION, CYST)[:classes]), tmp_path)
    found = stored(seg, headers)
    assert set(found) == {(n, i) for n in range(1, classes + 1) for i in range(frames)}
    assert all(np.array_equal(pixels, labels[i] == n) for (n, i), pixels in found.items())
    first = seg.PerFrameFunctionalGroupsSequence[0]
    assert ("PlanePositionSequence" in first) == (name in PLACED_SOURCES)
    assert ("FrameOfReferenceUID" in seg) == (name in PLACED_SOURCES)
    listed = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {i.ReferencedSOPInstanceUID for i in listed} == {h.SOPInstanceUID for h in headers}


@pytest.mark.parametrize("name", SOURCES)
def test_every_segmentation_keeps_to_the_standard(name: str, tmp_path: Path) -> None:
    needs_dciodvfy()
    headers = SOURCES[name]
    frames = len(headers) if len(headers) > 1 else int(headers[0].get("NumberOfFrames") or 1)
    write_seg(tmp_path / "seg.dcm", result_of(headers, labels_of(frames, 2), classes=(LESION, CYST)))
    assert dicom_errors(tmp_path / "seg.dcm") == []
    levels = np.random.default_rng(0).integers(0, 256, (frames, *SHAPE)).astype(np.uint8)
    write_probability_seg(tmp_path / "probability.dcm", result_of(headers, probabilities=levels))
    assert dicom_errors(tmp_path / "probability.dcm") == []


@pytest.mark.parametrize("name", ["CT slice", "CT series with gaps", "ultrasound loop", "enhanced CT over time"])
def test_probabilities_are_a_fractional_segmentation(name: str, tmp_path: Path) -> None:
    headers = SOURCES[name]
    frames = len(headers) if len(headers) > 1 else int(headers[0].get("NumberOfFrames") or 1)
    levels = np.random.default_rng(0).integers(0, 256, (frames, *SHAPE)).astype(np.uint8)
    levels[0, 0] = np.arange(44)
    result = result_of(headers, classes=(LESION, CYST), probabilities=levels)
    write_probability_seg(tmp_path / "probability.dcm", result)
    seg = highdicom.seg.segread(tmp_path / "probability.dcm")
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert seg.MaximumFractionalValue == 255
    assert all(np.array_equal(pixels, levels[i]) for (_, i), pixels in stored(seg, headers).items())
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Lesion"]
    mask = written(result, tmp_path)
    assert mask.SOPInstanceUID != seg.SOPInstanceUID
    assert mask.SeriesInstanceUID != seg.SeriesInstanceUID
    assert mask.SegmentSequence[0].TrackingUID == seg.SegmentSequence[0].TrackingUID
    with pytest.raises(InputError, match="no probabilities"):
        write_probability_seg(tmp_path / "none.dcm", result_of(headers))


def test_geometry_is_the_sources(tmp_path: Path) -> None:
    seg = written(result_of(SOURCES["CT slice"]), tmp_path)
    assert seg.FrameOfReferenceUID == PLACED["FrameOfReferenceUID"]
    shared, frame = seg.SharedFunctionalGroupsSequence[0], seg.PerFrameFunctionalGroupsSequence[0]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == PLACED["ImageOrientationPatient"]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == PLACED["PixelSpacing"]
    assert list(frame.PlanePositionSequence[0].ImagePositionPatient) == PLACED["ImagePositionPatient"]
    assert seg.get_volume_geometry() is not None


@pytest.mark.parametrize(("name", "heights"), [
    ("CT series", [0, 5, 10, 15]),
    ("CT series with gaps", [0, 5, 25, 30]),
    ("enhanced MR out of order", [10, 0, 5, 20]),
    ("enhanced CT over time", [0, 5, 0, 5]),
])  # fmt: skip
def test_each_frame_is_where_its_source_is(name: str, heights: list[float], tmp_path: Path) -> None:
    headers = SOURCES[name]
    seg = written(result_of(headers), tmp_path)
    places = {h.SOPInstanceUID: z for h, z in zip(headers, heights, strict=False)}
    for group in seg.PerFrameFunctionalGroupsSequence:
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        number = reference.get("ReferencedFrameNumber")
        height = heights[number - 1] if number else places[reference.ReferencedSOPInstanceUID]
        assert list(group.PlanePositionSequence[0].ImagePositionPatient) == [-10, 20, height]
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert list(measures.PixelSpacing) == [0.5, 0.7]
    assert measures.SliceThickness == 2


def test_a_thickness_that_is_not_known_is_the_step_between_slices(tmp_path: Path) -> None:
    seg = written(result_of(SOURCES["CT series without thickness"]), tmp_path)
    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 5


@pytest.mark.parametrize("name", ["ultrasound loop", "ultrasound loop in a frame of reference", "angiogram"])
def test_loops_are_found_by_source_frame(name: str, tmp_path: Path) -> None:
    result = result_of(SOURCES[name])
    seg, count = written(result, tmp_path), len(result.labels)
    source = result.headers[0].SOPInstanceUID
    back = seg.get_pixels_by_source_frame(source, list(range(1, count + 1)))
    assert np.array_equal(back[..., 0], result.labels)
    assert np.array_equal(seg.get_pixels_by_source_frame(source, [4])[0, ..., 0], result.labels[3])
    indices = [list(g.FrameContentSequence[0].DimensionIndexValues) for g in seg.PerFrameFunctionalGroupsSequence]
    assert indices == [[1, n] for n in range(1, count + 1)]
    assert len(seg.DimensionIndexSequence) == 2


@pytest.mark.parametrize("name", ["CT series with gaps", "capture series", "CT series without a frame of reference"])
def test_series_are_found_by_source_instance(name: str, tmp_path: Path) -> None:
    result = result_of(SOURCES[name])
    seg = written(result, tmp_path)
    back = seg.get_pixels_by_source_instance([h.SOPInstanceUID for h in result.headers])
    assert np.array_equal(back[..., 0], result.labels)


def test_segments_carry_name_codes_colour_and_identity(tmp_path: Path) -> None:
    seg = written(result_of(SOURCES["CT slice"], labels_of(1, 2), classes=(LESION, CYST)), tmp_path)
    lesion, cyst = seg.SegmentSequence
    assert (lesion.SegmentLabel, cyst.SegmentLabel) == ("Lesion", "Cyst")
    assert lesion.SegmentedPropertyTypeCodeSequence[0].CodeValue == "4147007"
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    assert lesion.AnatomicRegionSequence[0].CodeValue == "76752008"
    assert "AnatomicRegionSequence" not in cyst
    colour = highdicom.color.CIELabColor.from_dicom_value(tuple(lesion.RecommendedDisplayCIELabValue))
    assert np.abs(np.subtract(colour.to_rgb(), (0, 200, 100))).max() <= 1
    assert lesion.TrackingUID != cyst.TrackingUID
    assert lesion.TrackingID != cyst.TrackingID
    assert "not for clinical use" in lesion.SegmentDescription
    assert lesion.SegmentDescription.startswith("Lesion, by ")


def test_modifiers_and_a_description_stand_in_their_segment(tmp_path: Path) -> None:
    left, cystic = Code("7771000", "SCT", "Left"), Code("367643001", "SCT", "Cyst")
    full = dataclasses.replace(LESION, description="Solid \u00e4" * 200, kind_modifier=cystic, anatomy_modifier=left)
    seg = written(result_of(SOURCES["CT slice"], labels_of(1, 2), classes=(full, CYST)), tmp_path)
    first, second = seg.SegmentSequence
    modifier = first.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (modifier.CodeValue, modifier.CodeMeaning) == ("367643001", "Cyst")
    side = first.AnatomicRegionSequence[0].AnatomicRegionModifierSequence[0]
    assert (side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning) == ("7771000", "SCT", "Left")
    assert first.SegmentDescription.startswith("Solid \u00e4Solid")
    assert len(first.SegmentDescription.encode()) in (1023, 1024) and "not for clinical use" in first.SegmentDescription
    assert "SegmentedPropertyTypeModifierCodeSequence" not in second.SegmentedPropertyTypeCodeSequence[0]
    needs_dciodvfy()
    assert dicom_errors(tmp_path / "seg.dcm") == []


def test_who_made_it_is_in_the_object(tmp_path: Path) -> None:
    seg = written(result_of(SOURCES["ultrasound"]), tmp_path)
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert algorithm.AlgorithmName == "demo-fp16"
    assert algorithm.AlgorithmVersion == "0.1.0+abababababab"
    assert "threshold=0.5" in algorithm.AlgorithmParameters
    assert seg.ContentDescription == "Research use only, not for clinical use"
    assert "not for clinical use" in seg.SeriesDescription
    assert all(seg.get(name) for name in ("ContentDate", "ContentTime", "SeriesDate", "SeriesTime"))
    ours = next(e for e in seg.ContributingEquipmentSequence if e.Manufacturer == "gms-rt")
    assert MAKER.fingerprint in ours.ContributionDescription
    assert str(MAKER.certificate) in ours.ContributionDescription
    assert "not for clinical use" in ours.ContributionDescription


def test_identity_follows_from_all_that_made_the_result(tmp_path: Path) -> None:
    result = result_of(SOURCES["ultrasound"])
    first, again = written(result, tmp_path), written(result, tmp_path)
    assert first.SOPInstanceUID == again.SOPInstanceUID
    assert first.SeriesInstanceUID == again.SeriesInstanceUID
    uids = {first.SOPInstanceUID}
    for change in ({"key": "another threshold"}, {"digest": "34" * 32},
                   {"maker": dataclasses.replace(MAKER, fingerprint="ef" * 32)}):  # fmt: skip
        other = written(dataclasses.replace(result, **change), tmp_path)
        uids.add(other.SOPInstanceUID)
        assert (other.SeriesInstanceUID == first.SeriesInstanceUID) == ("digest" in change)
    assert len(uids) == 4
    assert len({item.DimensionOrganizationUID for item in first.DimensionIndexSequence}) == 1
    assert first.DimensionOrganizationSequence == again.DimensionOrganizationSequence


def test_results_are_a_series_of_their_own_in_the_same_study(tmp_path: Path) -> None:
    source = header(SeriesNumber=4, StudyID="S", PatientBirthDate="19610203")
    seg = written(result_of([source]), tmp_path)
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert (seg.PatientID, str(seg.PatientName), seg.PatientBirthDate) == ("T1", "Test^Person", "19610203")
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert seg.SeriesNumber == 499


def test_what_is_valid_is_taken_over_and_the_rest_left_empty(tmp_path: Path) -> None:
    pixels = np.zeros(SHAPE, np.uint8)
    tags = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": JAPANESE}
    scan = save(dataset(pixels, **tags), tmp_path / "scan.dcm")
    japanese = written(result_of([read_header(scan)]), tmp_path)
    assert japanese.SpecificCharacterSet == "ISO_IR 192"
    assert str(japanese.PatientName) == JAPANESE
    old = written(result_of(SOURCES["dates of 1990"]), tmp_path)
    assert (old.StudyDate, old.StudyTime, old.PatientBirthDate) == ("19900213", "072730", "")
    bare = header()
    del bare.PatientName, bare.PatientID
    seg = written(result_of([bare], np.zeros((1, *SHAPE), np.uint8)), tmp_path)
    assert not seg.pixel_array.any()
    assert not seg.PatientID


def test_what_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    ultrasound = SOURCES["ultrasound"]
    cases = [
        (result_of(ultrasound, np.zeros((1, 9, 9), np.uint8)), "do not fit"),
        (result_of(ultrasound, np.zeros((3, *SHAPE), np.uint8)), "1 frames, but there are masks of 3"),
        (result_of([header("SC", 2)]), "single Secondary Capture image, but has 2 frames"),
        (result_of(ultrasound, labels_of(1, 2)), "class 2, but only 1 classes"),
        (result_of([header("CT"), header("CT")]), "several studies"),
        (result_of([header("CT", StudyInstanceUID="1.2.3"), header("CT", StudyInstanceUID="1.2.3")]), "several series"),
        (result_of([*series([0, 5], PatientID="A"), *series([9], PatientID="B")]), "several patients"),
        (result_of(series([0, 5], SOPInstanceUID="1.2.3.4")), "the same SOPInstanceUID"),
        (result_of([header(StudyInstanceUID="none")]), "no valid StudyInstanceUID"),
        (result_of(series([0, 5, 10]), labels_of(2)), "3 images for masks of 2 frames"),
    ]
    nameless = header()
    del nameless.SOPInstanceUID
    for result, reason in [*cases, (result_of([nameless]), "has no SOPInstanceUID")]:
        with pytest.raises(InputError, match=reason):
            write_seg(tmp_path / "seg.dcm", result)
    assert list(tmp_path.iterdir()) == []


def test_without_highdicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gms-rt\[dicom-seg\]'"):
        write_seg(tmp_path / "seg.dcm", result_of(SOURCES["ultrasound"]))
