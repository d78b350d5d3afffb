"""Attacks that once worked, or might have: more memory than was asked for, a full disk, names, places that go away."""

from __future__ import annotations

import errno
import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from support.dicom_files import dataset, save, series
from support.serve_server import Running, Setup, picture, png, raw, running, zipped

from gms_rt.errors import UsageError
from gms_rt.scan.slices import slice_from_file
from gms_rt.serve.guard import GuardSettings
from gms_rt.serve.intake import SentFile
from gms_rt.serve.kept import check_keep
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.refusals import BusyError
from gms_rt.serve.shelf import Shelf

TOKEN, VIEWER = "0123456789abcdef", "https://viewer.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("attacks") / "brightness") as found:
        yield found


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("keeping")
    with running(folder / "brightness", Setup(keep=folder / "kept")) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("guarded")
    with running(folder / "brightness", Setup(guard=GuardSettings(origins=(VIEWER,), token=TOKEN))) as found:
        yield found


def kept_files(server: Running) -> list[Path]:
    assert server.service.keep is not None
    return [path for path in server.service.keep.rglob("*") if path.is_file()]


def held_bytes(server: Running) -> float | None:
    return server.service.counters.registry.get_sample_value("gms_rt_held_bytes")


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_archive_cannot_choose_how_much_memory_unpacking_takes(server: Running, kind: int) -> None:
    body = bytearray(zipped({"a.png": png(picture(1))}, kind))
    assert server.segment(bytes(body)).json()["error"]["what"] == "is an archive packed in a way that is not read"
    body[60:80] = bytes(20)  # what a damaged stream raises is not the service's failure either
    assert server.segment(bytes(body)).status == 422


def test_a_body_has_one_length(server: Running) -> None:
    """With two, the smaller would be counted and the larger read."""
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = png(picture(1))
    told = raw(server, head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert told.startswith(b"HTTP/1.1 400")


def test_a_body_in_crumbs_does_not_keep_the_others_waiting(server: Running) -> None:
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(server, head + b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n").startswith(b"HTTP/1.1 400")
    pieces = b"".join(b"%x\r\n%s\r\n" % (1, body[at : at + 1]) for body in [png(picture(1))] for at in range(len(body)))
    told = raw(server, head.replace(b"Host", b"Connection: close\r\nHost") + pieces + b"0\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200")  # a few are nobody's harm
    assert held_bytes(server) == 0


def deflated(megabytes: int) -> bytes:
    """A DICOM file of a few kilobytes that becomes so many megabytes."""
    made = dataset(picture(1)[..., 0])
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    made.add_new(0x00091010, "OB", bytes(megabytes << 20))
    made.add_new(0x00090010, "LO", "SOMEBODY")
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_what_a_deflated_file_becomes_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = deflated(12)
    assert len(body) < 100_000
    (tmp_path / "bomb.dcm").write_bytes(body)
    limits = ServeLimits(max_bytes=1 << 20, all_bytes=16 << 20, max_unpacked=8 << 20)
    with running(tmp_path / "brightness", Setup(limits)) as server:
        assert server.segment(body).status == 413
        parts = b"--m\r\nContent-Type: application/dicom\r\n\r\n%s\r\n--m--\r\n" % body
        kind = 'multipart/related; type="application/dicom"; boundary=m'
        assert server.ask("POST", "/dicom-web/studies", parts, Content_Type=kind).status == 413
        answer = server.segment(zipped({f"{n}.dcm": deflated(6) for n in range(3)}))
        assert (answer.status, answer.json()["error"]["reason"]) == (429, "busy")
        assert server.segment(deflated(6)).status == 200
        assert held_bytes(server) == 0
    assert slice_from_file(tmp_path / "bomb.dcm") is not None
    monkeypatch.setattr("gms_rt.scan.dicom._MAX_INFLATED", 1 << 20)
    assert slice_from_file(tmp_path / "bomb.dcm") is None  # it is not inflated to look for its place


def test_what_a_volume_becomes_is_counted(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for kind, name in ((nibabel.Nifti1Image, "one.nii.gz"), (nibabel.Nifti2Image, "two.nii")):
        nibabel.save(kind(np.zeros((100, 100, 50), np.uint8), np.eye(4)), tmp_path / name)
    limits = ServeLimits(max_bytes=1 << 20, all_bytes=3 << 20)
    with running(tmp_path / "brightness", Setup(limits)) as server:
        for name in ("one.nii.gz", "two.nii"):
            body = (tmp_path / name).read_bytes()
            assert server.segment(body, "?masks=0&contours=0").status == 200
            assert server.segment(zipped({"a.nii": body, "b.nii": body})).status == 429
        assert held_bytes(server) == 0


def test_a_stranger_cannot_make_the_service_hold_more_than_a_login(guarded: Running) -> None:
    head = b"POST /auth/token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    told = raw(guarded, head + b"5000\r\n" + bytes(0x5000) + b"\r\n0\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 413")
    assert b"larger than 4096 bytes" in told
    good = guarded.ask("POST", "/auth/token", b"username=x&password=" + TOKEN.encode())
    assert good.json()["access_token"] == TOKEN


def test_images_in_an_answer_are_counted(tmp_path: Path) -> None:
    """Thousands of pages of one colour are a small file, and were held as pixels."""
    noise = png(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    body = zipped({f"{number}.png": noise for number in range(5)})
    with running(tmp_path / "brightness", Setup(ServeLimits(max_answer=100_000))) as server:
        assert server.segment(body, "?contours=0").status == 200
        answer = server.segment(body, "?contours=0&images=1")
        assert (answer.status, "larger than one answer" in answer.json()["error"]["what"]) == (413, True)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"data": ["x" * 20_000] + ["y"] * 100_000}, 400),  # as an array of text, eight gigabytes
        ({"data": [[[[0] * 3] * 5] * 4]}, 200),
        ({"data": [[[0] * 3] * 5] * 4}, 200),
        ({"data": [[[[[0]] * 3] * 5] * 4]}, 400),
        ({"data": [[0] * 59, 0]}, 400),
        ({"data": [0] * 59 + [True]}, 400),
        ({"data": [0] * 59 + [0.5]}, 400),
        ({"data": [0] * 59 + [10**400]}, 400),
        ({"data": [0] * 59 + [-1]}, 400),
        ({"data": []}, 400),
        ({"shape": [10**300, 4, 5, 3]}, 413),
        ({"datatype": []}, 400),
        ({"name": {}}, 400),
    ],
)
def test_numbers_as_json(server: Running, value: dict[str, Any], status: int) -> None:
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 4, 5, 3], "data": [0] * 60} | value
    answer = server.ask("POST", "/v2/models/brightness/infer", json.dumps({"inputs": [image]}).encode())
    assert answer.status == status, answer.body


def test_json_costs_no_more_than_may_be_held(server: Running) -> None:
    path = "/v2/models/brightness/infer"
    answer = server.ask("POST", path, b'{"inputs": [' + b"[]," * (12 << 20))
    assert (answer.status, "binary" in answer.json()["error"]) == (413, True)
    image = {"name": "image", "datatype": "UINT8", "shape": [2, 2100, 2100, 3]}
    text = json.dumps({"inputs": [image | {"parameters": {"binary_data_size": 2 * 2100 * 2100 * 3}}]}).encode()
    body = text + bytes(2 * 2100 * 2100 * 3)
    answer = server.ask("POST", path, body, Inference_Header_Content_Length=str(len(text)))
    assert (answer.status, "binary" in answer.json()["error"]) == (413, True)
    assert held_bytes(server) == 0


@pytest.mark.parametrize(
    ("head", "parameters"), [("9" * 5000, {}), ("1" * 400, {}), (None, {"timeout": 10**400}), (None, {"timeout": True})]
)
def test_numbers_without_end(server: Running, head: str | None, parameters: dict[str, Any]) -> None:
    more = {} if head is None else {"Inference_Header_Content_Length": head}
    body = json.dumps({"inputs": [{"name": "image"}], "parameters": parameters}).encode()
    assert server.ask("POST", "/v2/models/brightness/infer", body, **more).status == 400


def test_a_spacing_beyond_all_measure(server: Running, tmp_path: Path) -> None:
    image = dataset(picture(3)[..., 0], "CT", PixelSpacing=["1e200", "1e200"])
    body = save(image, tmp_path / "wide.dcm").read_bytes()
    (frame,) = server.segment(body, "?contours=0").json()["sources"][0]["frames"]
    assert (frame["status"], frame["area_mm2"], frame["spacing"]) == ("ok", None, [1e200, 1e200])
    assert server.segment(body).status in (200, 422)


def test_names_that_no_file_can_have(keeping: Running, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scans = [save(dataset(picture(n)[..., 0]), tmp_path / f"{n}.dcm").read_bytes() for n in range(6)]
    names = ("n" * 400 + ".dcm", "../../x.dcm", "a.dcm/b", "a.dcm", "\u00e9\u4e2d\n\t\0.dcm", "/etc/passwd")
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="%s"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in zip(names, scans, strict=True)
    )
    before = set(kept_files(keeping))
    answer = keeping.segment(
        body + b"--x--\r\n", Content_Type="multipart/form-data; boundary=x", Accept="application/zip"
    )
    assert answer.status == 200, answer.body
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert sum(name.endswith(".dcm") for name in archive.namelist()) == 6
        told = json.loads(archive.read("answer.json"))
    assert [source["status"] for source in told["sources"]] == ["ok"] * 6
    new = set(kept_files(keeping)) - before
    assert sum(path.suffix == ".dcm" for path in new) == 6
    assert len({path.relative_to(keeping.service.keep or "").parts[1] for path in new}) == 1


def full(*rest: Any, **more: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_and_leaves_no_half_answer(keeping: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(kept_files(keeping))
    real = Path.write_bytes
    wrote: list[Path] = []

    def second_one_fails(path: Path, data: bytes) -> int:
        wrote.append(path)
        return real(path, data) if len(wrote) == 1 else full()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", second_one_fails)
        answer = keeping.segment(png(picture(1)))
        assert len(wrote) == 2
        wrote.clear()
        unpacked = keeping.segment(zipped({"a.png": png(picture(1)), "b.png": png(picture(2))}))
    for each in (answer, unpacked):
        assert (each.status, each.json()["error"]["reason"]) == (507, "full"), each.body
        assert "kept" not in each.body.decode()  # no folder of the service is told
    assert sorted(kept_files(keeping)) == before
    assert [path.name for path in keeping.service.scratch.iterdir()] == [".lock"]
    assert keeping.segment(png(picture(1))).status == 200
    assert held_bytes(keeping) == 0


def test_what_cannot_be_kept_is_not_the_clients_mistake(keeping: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*rest: Any, **more: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", "/srv/secret")

    monkeypatch.setattr("gms_rt.artifacts.tempfile.mkdtemp", refused)
    answer = keeping.segment(png(picture(1)))
    assert (answer.status, answer.json()["error"]["reason"]) == (500, "failed")
    assert b"secret" not in answer.body


def test_a_place_that_cannot_be_written_is_refused_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--keep"):
        check_keep(tmp_path / "file" / "kept")
    check_keep(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_its_temporary_folder_may_be_cleaned_away(server: Running) -> None:
    body = zipped({"a.png": png(picture(1)), "b.png": png(picture(2))})
    first = server.service.scratch
    shutil.rmtree(first)
    assert server.segment(body).status == 200
    assert server.service.scratch != first
    assert server.service.scratch.stat().st_mode & 0o77 == 0


def test_its_engine_folder_may_go_away(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scan = save(dataset(picture(3)[..., 0]), tmp_path / "us.dcm").read_bytes()
    with running(tmp_path / "brightness") as server:
        before = [server.segment(scan, Accept=kind) for kind in ("application/dicom", "image/png")]
        shutil.rmtree(tmp_path / "brightness")
        after = [server.segment(scan, Accept=kind) for kind in ("application/dicom", "image/png")]
        assert [each.status for each in (*before, *after)] == [200] * 4
        assert before[1].body == after[1].body
        assert (
            pydicom.dcmread(io.BytesIO(after[0].body)).PixelData
            == pydicom.dcmread(io.BytesIO(before[0].body)).PixelData
        )
        assert server.segment(scan).json()["engine"]["name"] == "brightness"


def test_many_small_things_are_no_way_around_what_may_be_held() -> None:
    shelf = Shelf(1 << 20, 10.0)
    with pytest.raises(BusyError):
        for number in range(1000):
            shelf.put(f"{number}", [SentFile(b"")])
    shelf = Shelf(1 << 20, 10.0)
    shelf.put("scan", [SentFile(b"")])
    with pytest.raises(BusyError):
        for number in range(1000):
            shelf.add_label("scan", f"tag {number}", SentFile(b""))


def test_the_page_of_an_origin_that_is_allowed_can_ask(guarded: Running) -> None:
    asked = {
        "Origin": VIEWER,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    before = guarded.ask("OPTIONS", "/v1/segment", **asked)
    assert (before.status, before.headers["Access-Control-Allow-Origin"]) == (204, VIEWER)
    assert "Authorization" in before.headers["Access-Control-Allow-Headers"]
    answer = guarded.segment(png(picture(1)), Origin=VIEWER, Authorization=f"Bearer {TOKEN}")
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, VIEWER)
    refused = guarded.segment(png(picture(1)), Origin=VIEWER)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, VIEWER)  # so that the page sees it
    evil = "https://evil.example"
    for answer in (
        guarded.ask("OPTIONS", "/v1/segment", **asked | {"Origin": evil}),
        guarded.segment(png(picture(1)), Origin=evil, Authorization=f"Bearer {TOKEN}"),
    ):
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (403, None)
    assert guarded.ask("OPTIONS", "/v1/segment", Origin=VIEWER).status == 401  # not what a browser asks first


def test_the_same_study_from_many_at_once_is_kept_once(keeping: Running, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    pixels = np.stack([picture(n, 30, 40)[..., 0] for n in range(3)]).astype(np.uint16)
    parts = [path.read_bytes() for path in series(tmp_path / "ct", pixels)]
    body = b"".join(b"--m\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % part for part in parts) + b"--m--\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary=m'

    def send(number: int) -> tuple[int, bytes]:
        answer = keeping.ask("POST", "/dicom-web/studies", body, Content_Type=kind)
        return answer.status, answer.body

    before = set(kept_files(keeping))
    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(send, range(16)))
    assert {status for status, _ in answers} == {200}
    assert len(answers) == 1
    (made,) = set(kept_files(keeping)) - before
    assert pydicom.dcmread(made).NumberOfFrames


def test_half_a_series(server: Running, tmp_path: Path) -> None:
    """Slices that are missing, cut off, of two sizes, or twice: each is told, the others have their masks."""
    pixels = np.stack([picture(n, 30, 40)[..., 0] for n in range(6)]).astype(np.uint16)
    paths = series(tmp_path / "ct", pixels)
    files = {path.name: path.read_bytes() for path in paths if path != paths[2]}
    name = paths[4].name
    files[name] = files[name][:-500]
    files["again.dcm"] = files[paths[0].name]
    odd = pydicom.dcmread(paths[1])
    odd.Rows, odd.PixelData = 15, odd.PixelData[: len(odd.PixelData) // 2]
    odd.SOPInstanceUID = odd.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    files["odd.dcm"] = save(odd, tmp_path / "odd.dcm").read_bytes()
    answer = server.segment(zipped(files))
    assert answer.status == 200, answer.body
    found = {source["name"]: source for source in answer.json()["sources"]}
    assert len(found) == 2
    assert found["odd.dcm"]["status"] == "ok"
    (stack,) = [source for source in found.values() if source["series"]]
    assert [frame["status"] for frame in stack["frames"]] == ["ok", "ok", "ok", "failed", "ok"]
    assert stack["series"]["volume_mm3"] is None
    assert "left out as copies" in stack["series"]["note"]
    told = server.segment(zipped(files), Accept="application/dicom")
    assert (told.status, told.json()["error"]["reason"]) == (422, "bad_image")  # not the one object of the odd slice
    told = server.segment(zipped({"a.png": png(picture(1)), "b.png": png(picture(2))[:200]}), Accept="image/png")
    assert (told.status, told.json()["error"]["reason"]) == (422, "bad_image")
