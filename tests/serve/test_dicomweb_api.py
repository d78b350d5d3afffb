"""DICOMweb with a client of others, unmodified (PyPI's dicomweb-client): store, search, retrieve, metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from support import dicom_files
from support.infer_engine import brightness_engine
from support.serve_server import Answer, Running, Setup, picture, running

from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer.sources import with_series
from gms_rt.serve.guard import GuardSettings
from gms_rt.serve.limits import ServeLimits

pytest.importorskip("highdicom")
STUDY, TOKEN = "1.2.826.0.1.3680043.8.498.1", "0123456789abcdef"
MULTIPART = 'multipart/related; type="application/dicom"'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("dicomweb")
    with running(folder / "brightness", Setup(keep=folder / "kept")) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = ServeLimits(max_bytes=400_000, max_files=5, max_pixels=100_000, max_frames=4)
    with running(tmp_path_factory.mktemp("plain") / "brightness", Setup(limits)) as found:
        yield found


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    """A study of a CT series and an ultrasound image."""
    slices = np.stack([picture(n, 40, 50)[..., 0] for n in range(3)]).astype(np.uint16)
    scans = dicom_files.series(tmp_path / "scans", slices, StudyInstanceUID=STUDY, PatientID="P-77")
    image = dicom_files.dataset(picture(7, 60, 70), "US", StudyInstanceUID=STUDY, PatientID="P-77")
    return [*scans, dicom_files.save(image, tmp_path / "scans/us.dcm")]


def client_of(server: Running, **options: Any) -> Any:
    web = pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed")
    return web.DICOMwebClient(f"http://127.0.0.1:{server.port}/dicom-web", **options)


def by_infer(folder: Path, scans: Path) -> dict[str, Any]:
    """The objects that `infer` makes, by their identifiers."""
    with OutFolder(folder / "out") as held, brightness_engine(folder / "brightness") as engine:
        run_cases(with_series(find_sources([str(scans)])), InferJob(engine, held, InferOptions()))
    made = [pydicom.dcmread(path) for path in sorted((folder / "out/dicom").rglob("*.dcm"))]
    return {each.SOPInstanceUID: each for each in made}


def related(parts: list[bytes], kind: str = "application/dicom") -> bytes:
    return b"".join(b"--mark\r\nContent-Type: %s\r\n\r\n%s\r\n" % (kind.encode(), p) for p in parts) + b"--mark--\r\n"


def store(server: Running, parts: list[bytes], path: str = "", **headers: str) -> Answer:
    head = {"Content_Type": f"{MULTIPART}; boundary=mark"} | headers
    return server.ask("POST", f"/dicom-web/studies{path}", related(parts), **head)


def parts_of(answer: Answer) -> list[Any]:
    mark = answer.headers["Content-Type"].partition("boundary=")[2].encode()
    pieces = answer.body.split(b"--" + mark)[1:-1]
    return [pydicom.dcmread(io.BytesIO(piece.partition(b"\r\n\r\n")[2][:-2])) for piece in pieces]


def reasons(answer: Answer, tag: str = "00081198") -> list[tuple[int, str]]:
    items = answer.json().get(tag, {}).get("Value", [])
    return [(item["00081197"]["Value"][0], item["00711001"]["Value"][0]) for item in items]


def test_a_study_is_stored_searched_and_retrieved(server: Running, study: list[Path], tmp_path: Path) -> None:
    client = client_of(server)
    answer = client.store_instances([pydicom.dcmread(path) for path in study], study_instance_uid=STUDY)
    sent = {pydicom.dcmread(path).SOPInstanceUID for path in study}
    assert {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence} == sent
    assert "FailedSOPSequence" not in answer
    assert answer.RetrieveURL.endswith(f"/dicom-web/studies/{STUDY}")
    theirs = by_infer(tmp_path, study[0].parent)
    made = {item.ReferencedSOPInstanceUID: item for item in answer[0x00711002].value}
    assert set(made) == set(theirs)
    assert len(made) == 2

    found = client.search_for_studies(search_filters={"PatientID": "p-7*"}, fields=["StudyInstanceUID"])
    assert [each["0020000D"]["Value"] for each in found] == [[STUDY]]
    assert found[0]["00080061"]["Value"] == ["SEG"]
    assert found[0]["00201208"]["Value"] == [2]
    assert client.search_for_studies(search_filters={"PatientID": "other"}) == []
    series = client.search_for_series(STUDY, search_filters={"Modality": "SEG"})
    assert {each["0020000E"]["Value"][0] for each in series} == {seg.SeriesInstanceUID for seg in theirs.values()}
    assert len(client.search_for_instances(STUDY)) == 2
    assert len(client.search_for_instances(limit=1)) == 1

    for uid, seg in theirs.items():
        got = client.retrieve_instance(STUDY, seg.SeriesInstanceUID, uid)
        assert got.PixelData == seg.PixelData
        assert np.array_equal(got.pixel_array, seg.pixel_array)
        assert got.ReferencedSeriesSequence == seg.ReferencedSeriesSequence
        told = client.retrieve_instance_metadata(STUDY, seg.SeriesInstanceUID, uid)
        assert pydicom.Dataset.from_json(told).SegmentSequence == seg.SegmentSequence
    assert {each.SOPInstanceUID for each in client.retrieve_study(STUDY)} == set(theirs)
    assert len(client.retrieve_series(STUDY, seg.SeriesInstanceUID)) == 1
    assert len(client.retrieve_study_metadata(STUDY)) == 2


def test_the_same_study_twice_gives_the_same_objects(server: Running, study: list[Path]) -> None:
    data = [path.read_bytes() for path in study]
    first, second = (store(server, data, Accept=MULTIPART) for _ in range(2))
    assert (first.status, second.status) == (200, 200)
    assert [seg.SOPInstanceUID for seg in parts_of(first)] == [seg.SOPInstanceUID for seg in parts_of(second)]
    assert parts_of(first) == parts_of(second)
    keep = server.service.keep
    assert keep is not None
    for seg in parts_of(first):
        path = keep / "dicom-web" / STUDY / seg.SeriesInstanceUID / f"{seg.SOPInstanceUID}.dcm"
        assert pydicom.dcmread(path) == seg
        path.with_name(".part-cut.dcm").write_bytes(path.read_bytes()[:500])  # as a kill leaves it
    answer = server.ask("GET", f"/dicom-web/studies/{STUDY}/instances")
    assert ".part" not in answer.body.decode()
    assert answer.status == 200


def test_without_keep_the_result_is_in_the_answer_and_nowhere_else(
    plain: Running, study: list[Path], tmp_path: Path
) -> None:
    answer = store(plain, [path.read_bytes() for path in study], f"/{STUDY}", Accept=MULTIPART)
    theirs = by_infer(tmp_path, study[0].parent)
    assert answer.status == 200
    assert {seg.SOPInstanceUID: seg.PixelData for seg in parts_of(answer)} == {
        uid: seg.PixelData for uid, seg in theirs.items()
    }
    told = store(plain, [path.read_bytes() for path in study]).json()
    assert "Value" not in told["00081190"]
    assert len(told["00081199"]["Value"]) == 4
    for path in ("", f"/{STUDY}", f"/{STUDY}/metadata"):
        assert plain.ask("GET", f"/dicom-web/studies{path}").status == 404
    assert not [path for path in plain.service.scratch.rglob("*") if path.name != ".lock"]


def test_what_fails_is_listed_with_its_reason(plain: Running, study: list[Path]) -> None:
    good = study[3].read_bytes()
    report = pydicom.dcmread(study[3])
    del report.PixelData, report.Rows, report.Columns
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    pdf = pydicom.dcmread(study[3])
    pdf.SOPClassUID = pdf.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    pdf.SOPInstanceUID = "1.2.3.5"
    made = []
    for each in (report, pdf):
        stream = io.BytesIO()
        each.save_as(stream, enforce_file_format=True)
        made.append(stream.getvalue())
    answer = store(plain, [good, *made, b"%PDF-1.7 not DICOM"])
    assert answer.status == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert [code for code, _ in reasons(answer)] == [0x0122, 0x0122]
    assert "encapsulated document" in reasons(answer)[1][1]
    assert reasons(answer, "0008119A") == [(0xC000, "is not a DICOM file")]
    answer = store(plain, made)
    assert answer.status == 409
    assert "00081199" not in answer.json()


def test_another_study_than_the_address_says(plain: Running, study: list[Path]) -> None:
    answer = store(plain, [study[3].read_bytes()], "/1.2.3")
    assert (answer.status, reasons(answer)) == (409, [(0xA900, "is of another study than the address")])
    assert store(plain, [study[3].read_bytes()], "/..%2f..").status in (400, 404)
    assert store(plain, [study[3].read_bytes()], "/x").status == 400


def test_instances_that_come_twice(plain: Running, study: list[Path]) -> None:
    data = study[3].read_bytes()
    answer = store(plain, [data, data], Accept=MULTIPART)
    assert (answer.status, len(parts_of(answer))) == (200, 1)
    assert len(store(plain, [data, data]).json()["00081199"]["Value"]) == 2
    answer = store(plain, [data, data[:-2] + b"\1\2"])
    assert answer.status == 202
    assert [code for code, _ in reasons(answer)] == [0x0111]


def test_damaged_pixels_fail_their_series(plain: Running, study: list[Path]) -> None:
    answer = store(plain, [study[0].read_bytes()[:-500], *[path.read_bytes() for path in study[1:]]])
    assert answer.status == 202
    assert len(answer.json()["00081199"]["Value"]) == 1  # the ultrasound
    assert sorted(code for code, _ in reasons(answer)) == [0x0110, 0x0110, 0xC000]


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (f"{MULTIPART}; boundary=other", related([b"x"]), 400),
        (MULTIPART, related([b"x"]), 400),
        (f"{MULTIPART}; boundary=mark", b"--mark--\r\n", 400),
        (f"{MULTIPART}; boundary=mark", related([bytes(300)])[:200], 400),
        (f"{MULTIPART}; boundary=mark", related([b"x"], "application/pdf"), 415),
        (f"{MULTIPART}; boundary=mark", related([b"x"] * 6), 413),
        (f"{MULTIPART}; boundary=mark", bytes(500_000), 413),
        (f"{MULTIPART}; boundary=mark", related([b"", b"x", bytes(200), b"\x08\0" * 90]), 409),
        ('multipart/related; type="application/dicom+json"; boundary=mark', related([b"x"]), 415),
        ("application/octet-stream", b"x", 415),
        ("application/dicom", bytes(128) + b"DICM" + bytes(500), 409),
    ],
)
def test_hostile_bodies(plain: Running, kind: str, body: bytes, status: int) -> None:
    assert plain.ask("POST", "/dicom-web/studies", body, Content_Type=kind).status == status
    assert plain.ask("GET", "/v2/health/ready").status == 200


def test_sizes_that_are_only_declared(plain: Running, tmp_path: Path) -> None:
    image = dicom_files.dataset(picture(1, 60, 70), "US")
    image.Rows = image.Columns = 60_000
    wide = dicom_files.save(image, tmp_path / "wide.dcm").read_bytes()
    answer = store(plain, [wide])
    assert answer.status == 409
    assert "pixels" in reasons(answer)[0][1]
    image = dicom_files.dataset(np.zeros((6, 8, 8), np.uint8), "USMF", frames=6)
    assert store(plain, [dicom_files.save(image, tmp_path / "long.dcm").read_bytes()]).status == 413
    huge = plain.ask(
        "POST", "/dicom-web/studies", b"", Content_Type=f"{MULTIPART}; boundary=mark", Content_Length="9" * 15
    )
    assert huge.status == 413


def test_what_can_be_asked_for(server: Running, study: list[Path]) -> None:
    (seg,) = parts_of(store(server, [study[3].read_bytes()], Accept=MULTIPART))
    place = f"/dicom-web/studies/{STUDY}/series/{seg.SeriesInstanceUID}/instances/{seg.SOPInstanceUID}"
    for accept, status in (
        (f"{MULTIPART}; transfer-syntax=*", 200),
        (f"{MULTIPART}; transfer-syntax=1.2.840.10008.1.2.4.50", 406),
        ("application/dicom", 200),
        ('multipart/related; type="image/jpeg"', 406),
        ("*/*", 200),
    ):
        assert server.ask("GET", place, Accept=accept).status == status, accept
    assert server.ask("GET", place, Accept="application/dicom").body[128:132] == b"DICM"
    assert server.ask("GET", place + "/metadata", Accept="application/dicom+xml").status == 406
    assert server.ask("GET", f"/dicom-web/studies/{STUDY}/series/1.2.3").status == 404
    for query, status in (
        ("?Nonsense=1", 400),
        ("?limit=x", 400),
        ("?limit=1&offset=99", 200),
        ("?00100020=P-77", 200),
    ):
        answer = server.ask("GET", f"/dicom-web/studies{query}")
        assert answer.status == status, query
    assert json.loads(server.ask("GET", "/dicom-web/studies?limit=1&offset=99").body) == []
    assert len(server.ask("GET", "/dicom-web/studies?00100020=P-77").json()) == 1
    assert server.ask("GET", "/dicom-web/instances?SOPInstanceUID=1.2,1.3").json() == []


def test_token_host_and_log(study: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    setup = Setup(guard=GuardSettings(token=TOKEN), keep=tmp_path / "kept")
    with caplog.at_level("INFO"), running(tmp_path / "brightness", setup) as server:
        data = [path.read_bytes() for path in study]
        assert store(server, data).status == 401
        assert server.ask("GET", "/dicom-web/studies").status == 401
        assert store(server, data, Host="evil.example").status == 403
        client = client_of(server, headers={"Authorization": f"Bearer {TOKEN}"})
        client.store_instances([pydicom.dcmread(path) for path in study])
        client.search_for_studies(search_filters={"PatientName": "Test*"})
        store(server, [b"Test^Person"], Authorization=f"Bearer {TOKEN}")
    own = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("gms_rt"))
    assert "dicomweb_store" in own
    for secret in (STUDY, "P-77", "Test^Person", "Test"):
        assert secret not in own, secret
