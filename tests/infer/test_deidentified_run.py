"""A whole run with --deidentify: no byte and no name in the output folder tells of a person, a place or a day."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from support.dicom_files import dataset, save, series
from support.infer_engine import brightness_engine

from gms_rt.engine.loaded import Engine
from gms_rt.errors import UsageError
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases, with_series
from gms_rt.infer.deidentify import KEY_FILE
from gms_rt.infer.summary import Summary

pytest.importorskip("highdicom", reason="DICOM SEG needs highdicom")
nibabel = pytest.importorskip("nibabel", reason="NIfTI needs nibabel")

PERSON: dict[str, Any] = {
    "PatientName": "Secret^Person", "PatientID": "SECRET-7", "PatientBirthDate": "19610203", "StudyDate": "20240518",
    "InstitutionName": "Secret Hospital", "AccessionNumber": "SECRET-9",
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "deidentify": True, "dicom_seg": True, "dicom_fractional": True, "dicom_report": True, "slices": True,
    "probabilities": True, "nifti": True,
}  # fmt: skip


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return brightness_engine(tmp_path / "engine")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    root = tmp_path / "ward" / "Secret Person"
    pixels = np.random.default_rng(0).integers(0, 255, (4, 30, 44)).astype(np.uint8)
    series(root / "ct", pixels, names="Secret{:04}.dcm", **PERSON)
    save(dataset(pixels, "USMF", frames=4, **PERSON), root / "Secret_loop.dcm")
    nameless = dataset(pixels[0], **PERSON)
    del nameless.StudyInstanceUID
    save(nameless, root / "Secret_uid.dcm")
    (root / "Secret_broken.dcm").write_bytes(b"\0" * 128 + b"DICM Secret nonsense")
    Image.fromarray(pixels[0]).save(root / "Secret_photo.png")
    volume = nibabel.Nifti1Image(pixels.transpose(2, 1, 0), np.diag([0.5, 0.5, 2, 1]))
    volume.header["descrip"] = volume.header["db_name"] = b"Secret Person"
    volume.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Secret Person, 20240518"))
    volume.to_filename(root / "Secret_volume.nii.gz")
    return root


def segment(engine: Engine, out: Path, scans: Path, *, resume: bool = False, **options: Any) -> Summary:
    with OutFolder(out) as folder:
        found = with_series(find_sources([str(scans)]))
        return run_cases(found, InferJob(engine, folder, InferOptions(**(OPTIONS | options)), 2), resume=resume)


def test_nothing_in_the_output_tells_of_the_patient(engine: Engine, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = segment(engine, out, scans)
    assert (summary.sources, summary.failed) == (6, 1)
    uids = [dcmread(path).SOPInstanceUID for path in (scans / "ct").iterdir()]
    today = datetime.now(timezone.utc)
    secrets = ["ecret", "SECRET", "ward", str(tmp_path), "19610203", "20240518", *uids,
               today.strftime("%Y-%m-%d"), today.strftime("%Y%m%d")]  # fmt: skip
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert not [s for s in secrets[:3] if s in str(path.relative_to(out))]
        if path.name != KEY_FILE:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            assert not [s for s in secrets if s.encode() in data], path
    for kind in ("dicom", "dicom-fractional", "dicom-report"):
        assert len(list((out / kind).iterdir())) == 2


def test_reasons_of_failure_do_not_repeat_what_a_header_holds(engine: Engine, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    pixels = np.full((3, 30, 44), 200, np.uint8)
    series(scans / "colour", pixels, PhotometricInterpretation="SECRET_1")
    for path in series(scans / "count", pixels, NumberOfFrames="7777777"):
        path.write_bytes(path.read_bytes().replace(b"7777777", b"SECRET_"))
    for path in series(scans / "syntax", pixels):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.3.6.77.31415926.6\0"))
    assert segment(engine, tmp_path / "out", scans).failed == 9
    texts = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".csv", ".json", ".jsonl")]
    assert len(texts) == 5
    for path in texts:
        assert "SECRET" not in path.read_text()
        assert "31415926" not in path.read_text()
    with (tmp_path / "out/cases.csv").open(newline="", encoding="utf-8") as stream:
        reasons = {row["error"] for row in csv.DictReader(stream)}
    assert reasons == {"has damaged pixel data in frame 1", "is a damaged DICOM file"}


def test_rows_and_files_find_each_other_and_the_loop_of_one_patient(
    engine: Engine, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    segment(engine, out, scans)
    with (out / "cases.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    made = [row for row in rows if row["status"] != "failed"]
    assert all((out / "masks" / f"{row['case']}.png").is_file() for row in made)
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert failed["source"].startswith("source-")
    assert failed["error"]
    assert any("has no StudyInstanceUID" in row["seg"] for row in rows)
    objects = [dcmread(path) for path in (out / "dicom").iterdir()]
    assert len({item.PatientID for item in objects}) == 1  # the same person stays one person
    named = {str(ref.ReferencedSOPInstanceUID) for item in objects for ref in item.SourceImageSequence}
    assert {row["sop_uid"] for row in made if row["seg"].startswith("dicom/")} == named
    record = json.loads((out / "run.json").read_text())
    assert record["deidentified"] is True
    assert (record["started"], record["ended"], record["engine"]["folder"]) == (None, None, "engine")


def test_an_interrupted_run_goes_on_under_the_same_names(engine: Engine, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(engine, out, scans)
    before = {str(path): path.stat().st_mtime_ns for path in (out / "dicom").iterdir()}
    again = segment(engine, out, scans, resume=True)
    assert again.reused == 5
    assert {str(path): path.stat().st_mtime_ns for path in (out / "dicom").iterdir()} == before


def test_results_of_other_scans_are_not_deleted_unseen(engine: Engine, scans: Path, tmp_path: Path) -> None:
    segment(engine, tmp_path / "out", scans)
    with pytest.raises(UsageError, match="holds the results of root-"):
        segment(engine, tmp_path / "out", scans / "ct")
