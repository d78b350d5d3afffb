"""What --deidentify replaces, on objects: headers, results, rows, names. Runs are in test_run.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from support.dicom_check import dicom_errors, needs_dciodvfy
from support.dicom_results import LESION, MAKER, PLACED, SHAPE, enhanced, header, labels_of, result_of, series

from gms_rt.errors import ArtifactError
from gms_rt.infer.deidentify import KEY_FILE, Deidentifier, deidentifier_for_folder
from gms_rt.infer.dicom_report import write_dicom_report
from gms_rt.infer.dicom_seg import write_probability_seg, write_seg
from gms_rt.infer.sources import FoundSources, Source

KEY = b"k" * 32
SECRETS = {
    "PatientName": "Secret^Person", "PatientID": "SECRET-7", "PatientBirthDate": "19610203", "PatientSex": "F",
    "PatientAge": "063Y", "OtherPatientIDs": "SECRET-8", "PatientAddress": "Secret Street",
    "AccessionNumber": "SECRET-9",
    "StudyID": "SECRET-10", "StudyDate": "20240518", "StudyTime": "101112", "SeriesDate": "20240518",
    "AcquisitionDateTime": "20240518101113", "ReferringPhysicianName": "Secret^Doctor",
    "IssuerOfPatientID": "SECRET-11",
    "OperatorsName": "Secret^Operator", "InstitutionName": "Secret Hospital", "StationName": "SECRET-ROOM",
    "StudyDescription": "Secret study", "SeriesDescription": "Secret series", "ImageComments": "Secret comment",
    "ClinicalTrialSponsorName": "Secret sponsor", "ClinicalTrialProtocolID": "SECRET-12",
    "ClinicalTrialSubjectID": "SECRET-13", "DeviceSerialNumber": "SECRET-14", "Manufacturer": "Secret maker",
}  # fmt: skip
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
CLEAN_MAKER = dataclasses.replace(MAKER, options={"dicom_seg": True, "deidentify": True})


def sources() -> dict[str, list[Any]]:
    nested = enhanced([0, 5, 10])
    nested.PerFrameFunctionalGroupsSequence[0].FrameAnatomySequence = [pydicom.Dataset()]
    nested.PerFrameFunctionalGroupsSequence[0].FrameAnatomySequence[0].PatientName = "Secret^Nested"
    for name, value in SECRETS.items():
        setattr(nested, name, value)
    region = pydicom.Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.01
    return {
        "slice": [header("CT", **(PLACED | SECRETS))],
        "ultrasound": [header("USMF", 3, SequenceOfUltrasoundRegions=[region], **SECRETS)],
        "series": series([0, 5, 10], **SECRETS),
        "enhanced": [nested],
    }


@pytest.mark.parametrize("name", ["slice", "ultrasound", "series", "enhanced"])
@pytest.mark.parametrize("write", [write_seg, write_probability_seg, write_dicom_report])
def test_no_byte_of_the_patient_is_in_a_dicom_result(name: str, write: Any, tmp_path: Path) -> None:
    headers = sources()[name]
    frames = len(headers) if len(headers) > 1 else int(headers[0].get("NumberOfFrames") or 1)
    levels = np.zeros((frames, *SHAPE), np.uint8)
    result = result_of(headers, labels_of(frames), classes=(LESION,), maker=CLEAN_MAKER, probabilities=levels)
    write(tmp_path / "out.dcm", Deidentifier(KEY).result(result))
    data = (tmp_path / "out.dcm").read_bytes()
    assert b"ecret" not in data
    assert b"SECRET" not in data
    assert b"20240518" not in data
    assert b"19610203" not in data
    for source in headers:
        for uid in filter(None, map(source.get, UIDS)):
            assert str(uid).encode() not in data
    made = pydicom.dcmread(tmp_path / "out.dcm")
    assert {e.value for e in made.iterall() if e.VR == "DA" and e.value} == {"19000101"}
    assert {str(e.value)[:4] for e in made.iterall() if e.VR == "DT"} == {"1900"}
    assert made.PatientIdentityRemoved == "YES"
    codes = [code.CodeValue for code in made.DeidentificationMethodCodeSequence]
    assert codes == (["113100", "113104"] if write is write_dicom_report else ["113100"])
    assert made.PatientID == made.PatientName
    assert made.PatientID.startswith("patient-")
    assert "".join(map(str, (made.PatientBirthDate or "", made.StudyDate or "", made.AccessionNumber or ""))) == ""


@pytest.mark.parametrize("name", ["slice", "ultrasound", "series", "enhanced"])
def test_cleaned_results_keep_to_the_standard(name: str, tmp_path: Path) -> None:
    needs_dciodvfy()
    headers = sources()[name]
    frames = len(headers) if len(headers) > 1 else int(headers[0].get("NumberOfFrames") or 1)
    result = Deidentifier(KEY).result(result_of(headers, labels_of(frames), maker=CLEAN_MAKER))
    write_seg(tmp_path / "seg.dcm", result)
    write_dicom_report(tmp_path / "report.dcm", result)
    assert dicom_errors(tmp_path / "seg.dcm") == []
    assert dicom_errors(tmp_path / "report.dcm") == []


def test_replacements_are_consistent_and_depend_on_the_key() -> None:
    headers = sources()["series"]
    clean = Deidentifier(KEY).result(result_of(headers)).headers
    assert len({h.SeriesInstanceUID for h in clean}) == 1
    assert len({h.SOPInstanceUID for h in clean}) == 3
    assert len({h.PatientID for h in clean}) == 1
    again, other = Deidentifier(KEY).result(result_of(headers)), Deidentifier(b"o" * 32).result(result_of(headers))
    assert [h.SOPInstanceUID for h in again.headers] == [h.SOPInstanceUID for h in clean]
    assert clean[0].SOPInstanceUID != other.headers[0].SOPInstanceUID
    assert Deidentifier(KEY).digest("12" * 32) != Deidentifier(b"o" * 32).digest("12" * 32) != "12" * 32
    assert clean[0].SOPInstanceUID.startswith("2.25.")
    assert clean[0].SOPInstanceUID.is_valid


def test_geometry_is_kept() -> None:
    for name, (source, *_) in sources().items():
        clean = Deidentifier(KEY).header(source)
        for kept in ("Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "PixelSpacing"):
            assert clean.get(kept) == source.get(kept), name
    group = Deidentifier(KEY).header(sources()["enhanced"][0]).PerFrameFunctionalGroupsSequence[2]
    assert group.PlanePositionSequence[0].ImagePositionPatient == [-10, 20, 10]
    assert Deidentifier(KEY).header(sources()["ultrasound"][0]).SequenceOfUltrasoundRegions[0].PhysicalDeltaX == 0.01


def test_names_of_files_and_folders_are_replaced() -> None:
    source = Source(Path("/ward/Secret Person/Secret_1.dcm"), "Secret Person/Secret_1.dcm", "Secret Person/Secret_1")
    clean = Deidentifier(KEY)
    found = clean.sources(FoundSources([source], Path("/ward"), 0, ["/ward/Secret Person"]))
    (renamed,) = found.sources
    assert "Secret" not in renamed.name + renamed.stem + str(found.root) + "".join(found.inputs)
    assert "ward" not in str(found.root) + "".join(found.inputs)
    assert renamed.path == source.path
    assert renamed.name == clean.sources(FoundSources([source], Path("/ward"), 0)).sources[0].name
    row = {
        "case": renamed.stem,
        "error": "Secret_1.dcm: is damaged",
        "series_uid": "1.2.3",
        "sop_uid": None,
        "area_px": 3,
    }
    cleaned = clean.row(row, renamed)
    assert cleaned["error"] == f"{renamed.name}: is damaged"
    assert cleaned["series_uid"] == clean.uid("1.2.3")
    assert (cleaned["sop_uid"], cleaned["area_px"]) == (None, 3)


def test_the_record_of_a_run_says_nothing_about_where_and_when() -> None:
    record = {"started": "2024-05-18T10:11:12+00:00", "sources": 3,
              "engine": {"name": "demo", "folder": "/home/secret/engines/demo"}}  # fmt: skip
    clean = Deidentifier(KEY).record(record)
    assert clean == {"started": None, "sources": 3, "deidentified": True, "engine": {"name": "demo", "folder": "demo"}}
    assert Deidentifier(KEY).record(record | {"ended": "2024"})["ended"] is None


def test_the_key_is_random_hidden_and_kept_for_the_next_run(tmp_path: Path) -> None:
    first = deidentifier_for_folder(tmp_path)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert deidentifier_for_folder(tmp_path).uid("1.2.3") == first.uid("1.2.3")
    (tmp_path / "other").mkdir()
    assert deidentifier_for_folder(tmp_path / "other").uid("1.2.3") != first.uid("1.2.3")
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(ArtifactError, match="not a key"):
        deidentifier_for_folder(tmp_path)
