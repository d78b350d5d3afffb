"""The structured report: read back with highdicom, judged by dciodvfy, its numbers are those of the masks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.dicom_check import dicom_errors, needs_dciodvfy
from support.dicom_results import CYST, LESION, MAKER, PLACED, enhanced, header, labels_of, result_of, series

from gms_rt.errors import InputError
from gms_rt.infer.dicom_report import write_dicom_report
from gms_rt.infer.dicom_seg import write_seg
from gms_rt.infer.result import SourceResult

highdicom = pytest.importorskip("highdicom", reason="DICOM reports need highdicom")

WITH_SEG = dataclasses.replace(MAKER, options={"dicom_seg": True})
SOURCES = {
    "CT slice": [header("CT", **PLACED)],
    "CT series": series([0, 5, 10, 15]),
    "CT series with gaps": series([0, 5, 25, 30]),
    "CT series from the top": series([15, 10, 5, 0]),
    "MR series over time": series([0, 5, 0, 5], "MR"),
    "enhanced CT": [enhanced([0, 5, 10])],
    "ultrasound loop": [header("USMF", 5)],
    "mammogram": [header("MG", ImagerPixelSpacing=[0.1, 0.1])],
    "an unknown class": [header(SOPClassUID="1.2.3.4")],
}


def reported(result: SourceResult, folder: Path) -> Any:
    write_dicom_report(folder / "report.dcm", result)
    return highdicom.sr.srread(folder / "report.dcm")


def result_for(name: str, classes: int = 2, **changes: Any) -> SourceResult:
    headers = SOURCES[name]
    frames = len(headers) if len(headers) > 1 else int(headers[0].get("NumberOfFrames") or 1)
    return result_of(headers, labels_of(frames, classes), **({"classes": (LESION, CYST)[:classes]} | changes))


def values(groups: list[Any], name: str) -> list[tuple[float, str]]:
    found = [m for group in groups for m in group.get_measurements() if m.name.meaning == name]
    return [(float(m.value), m.unit.value) for m in found]


@pytest.mark.parametrize("maker", [MAKER, WITH_SEG], ids=["alone", "with a segmentation"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_report_keeps_to_the_standard(name: str, maker: Any, tmp_path: Path) -> None:
    needs_dciodvfy()
    write_dicom_report(tmp_path / "report.dcm", result_for(name, maker=maker))
    assert dicom_errors(tmp_path / "report.dcm") == []
    empty = result_for(name, maker=maker)
    write_dicom_report(tmp_path / "empty.dcm", dataclasses.replace(empty, labels=np.zeros_like(empty.labels)))
    assert dicom_errors(tmp_path / "empty.dcm") == []


def test_areas_regions_and_volume_are_those_of_the_masks(tmp_path: Path) -> None:
    result = result_for("CT series", maker=WITH_SEG)
    result.labels[0, 25:27, 2:5] = 1  # a second region
    content = reported(result, tmp_path).content
    planar = content.get_planar_roi_measurement_groups(finding_type=highdicom.sr.CodedConcept("4147007", "SCT", "Mass"))
    counts = [int((mask == 1).sum()) for mask in result.labels]
    assert values(planar, "Area") == [(pytest.approx(n * 0.5 * 0.7), "mm2") for n in counts if n]
    assert values(planar, "Quantity") == [(2, "{regions}"), (1, "{regions}"), (1, "{regions}")]
    (lesion, cyst) = content.get_volumetric_roi_measurement_groups()
    assert values([lesion], "Volume") == [(pytest.approx(sum(counts) * 0.5 * 0.7 * 5), "mm3")]
    assert [site.value.meaning for site in lesion.finding_sites] == ["Breast"]
    assert (lesion.finding_type.meaning, cyst.finding_type.meaning) == ("Mass", "Cyst")
    assert (lesion.finding_category.meaning, cyst.finding_sites) == ("Morphologically Abnormal Structure", [])


@pytest.mark.parametrize("name", ["CT series", "CT series with gaps", "CT series from the top", "ultrasound loop",
                                  "enhanced CT", "MR series over time", "CT slice"])  # fmt: skip
def test_measurements_refer_to_the_frames_of_the_segmentation(name: str, tmp_path: Path) -> None:
    result = result_for(name, maker=WITH_SEG)
    write_seg(tmp_path / "seg.dcm", result)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    document = reported(result, tmp_path)
    pixels = seg.pixel_array.reshape(-1, *result.labels.shape[1:])
    groups = document.content.get_planar_roi_measurement_groups()
    assert groups
    frames = [g.SegmentIdentificationSequence[0].ReferencedSegmentNumber for g in seg.PerFrameFunctionalGroupsSequence]
    for group in groups:
        reference = next(i for i in group[0].ContentSequence if i.name.meaning == "Referenced Segmentation Frame")
        sop = reference.ReferencedSOPSequence[0]
        assert sop.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        frame = pixels[int(sop.ReferencedFrameNumber) - 1]
        area = next(m for m in group.get_measurements() if m.name.meaning == "Area")
        scale = 0.35 if area.unit.value == "mm2" else 1
        assert float(area.value) == pytest.approx(int(frame.sum()) * scale)
        number = [s.TrackingUID for s in seg.SegmentSequence].index(group.tracking_uid) + 1
        assert number == frames[int(sop.ReferencedFrameNumber) - 1]
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {i.ReferencedSOPInstanceUID: s.SeriesInstanceUID for s in evidence for i in s.ReferencedSOPSequence}
    assert named[seg.SOPInstanceUID] == seg.SeriesInstanceUID
    assert {h.SOPInstanceUID for h in result.headers} < set(named)


def test_without_a_segmentation_measurements_refer_to_the_images(tmp_path: Path) -> None:
    document = reported(result_for("CT series"), tmp_path)
    evidence = document.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {i.ReferencedSOPClassUID for s in evidence for i in s.ReferencedSOPSequence} == {"1.2.840.10008.5.1.4.1.1.2"}
    groups = document.content.get_image_measurement_groups()
    assert len(values(groups, "Area")) == 6
    assert len(values(groups, "Volume")) == 2


@pytest.mark.parametrize("name", ["CT series with gaps", "MR series over time", "ultrasound loop", "CT slice"])
def test_no_volume_is_made_up(name: str, tmp_path: Path) -> None:
    content = reported(result_for(name, maker=WITH_SEG), tmp_path).content
    assert values(content.get_volumetric_roi_measurement_groups(), "Volume") == []
    assert values(content.get_planar_roi_measurement_groups(), "Area")


def test_areas_without_a_length_in_the_patient_are_in_pixels(tmp_path: Path) -> None:
    result = result_for("mammogram", 1)
    groups = reported(result, tmp_path).content.get_image_measurement_groups()
    assert values(groups, "Area") == [(int(result.labels.sum()), "{pixels}")]


def test_nothing_found_is_an_area_of_zero(tmp_path: Path) -> None:
    result = result_for("CT series", 1, maker=WITH_SEG)
    empty = dataclasses.replace(result, labels=np.zeros_like(result.labels))
    (group,) = reported(empty, tmp_path).content.get_volumetric_roi_measurement_groups()
    assert values([group], "Area") == [(0, "mm2")]


def test_what_made_it_and_what_it_is_not_for_is_said(tmp_path: Path) -> None:
    document = reported(result_for("CT slice"), tmp_path)
    assert (document.PreliminaryFlag, document.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert document.ContentQualification == "RESEARCH"
    text = " ".join(item.get("ContributionDescription", "") for item in document.ContributingEquipmentSequence)
    assert "not for clinical use" in text
    assert MAKER.fingerprint in text
    again = reported(result_for("CT slice"), tmp_path)
    assert again.SOPInstanceUID == document.SOPInstanceUID
    other = reported(result_for("CT slice", key="another threshold"), tmp_path)
    assert other.SOPInstanceUID != document.SOPInstanceUID


def test_a_source_without_identity_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no valid StudyInstanceUID"):
        write_dicom_report(tmp_path / "report.dcm", result_of([header(StudyInstanceUID="none")]))
    assert list(tmp_path.iterdir()) == []
