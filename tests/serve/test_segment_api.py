"""`POST /v1/segment` through real sockets: the same masks as `infer`, in every format; errors that say what to do."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pydicom
import pytest
from support.dicom_files import dataset, save, series
from support.infer_engine import brightness_engine
from support.serve_server import Running, picture, png, running

from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases, with_series


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("serve") / "brightness") as found:
        yield found


def inferred(tmp_path: Path, *inputs: Path, **options: Any) -> Path:
    """What `infer` writes for these files."""
    found = with_series(find_sources([str(path) for path in inputs]))
    out = tmp_path / "out"
    with OutFolder(out) as held, brightness_engine(tmp_path / "brightness") as engine:
        run_cases(found, InferJob(engine, held, InferOptions(**options)))
    return out


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def ct_series(folder: Path) -> list[Path]:
    pixels = np.stack([picture(n, 60, 70)[..., 0] for n in range(5)]).astype(np.uint16) * 16
    return series(folder, pixels, WindowCenter=2048, WindowWidth=4096)


def test_a_mask_is_the_one_that_infer_writes(server: Running, tmp_path: Path) -> None:
    for seed in range(4):
        (tmp_path / f"p{seed}.png").write_bytes(png(picture(seed)))
    out = inferred(tmp_path, *sorted(tmp_path.glob("p*.png")))
    for seed in range(4):
        answer = server.segment((tmp_path / f"p{seed}.png").read_bytes(), Accept="image/png")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
        assert answer.body == (out / f"masks/p{seed}.png").read_bytes()
        assert answer.headers["X-Engine-SHA256"]


def test_the_pieces_of_an_answer_are_sent_at_once(server: Running) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request("GET", "/v2/health/live")
        connection.getresponse().read()
        ours = [c.transport.get_extra_info("socket") for c in server.server._server.server_state.connections]
        assert ours and all(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for s in ours)


def test_json_has_measurements_contours_and_who_made_it(server: Running, tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_bytes(png(picture(7)))
    out = inferred(tmp_path, tmp_path / "scan.png")
    answer = server.segment((tmp_path / "scan.png").read_bytes(), "?images=true").json()
    schema = server.ask("GET", "/openapi.json").json()
    jsonschema.validate(answer, {"$ref": "#/components/schemas/Answer"} | {"components": schema["components"]})
    (frame,) = answer["sources"][0]["frames"]
    mask = cv2.imdecode(np.frombuffer(base64.b64decode(frame["mask_png"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert base64.b64decode(frame["mask_png"]) == (out / "masks/scan.png").read_bytes()
    assert frame["area_px"] == np.count_nonzero(mask) > 0
    assert frame["bbox"] == list(cv2.boundingRect(mask))
    assert frame["contours"] == json.loads((out / "contours/scan.json").read_text())
    assert 0 < frame["confidence"] <= 1
    assert answer["engine"]["name"] == "brightness"
    assert len(answer["engine"]["manifest_sha256"]) == 64
    assert "Not for clinical use." in answer["notes"]
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(frame["image_jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (90, 120, 3)
    bare = server.segment((tmp_path / "scan.png").read_bytes(), "?masks=0&contours=0").json()
    assert not {"mask_png", "contours", "image_jpeg"} & set(bare["sources"][0]["frames"][0])


def test_a_dicom_file_becomes_the_seg_that_infer_writes(server: Running, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    path = save(dataset(picture(3)[..., 0]), tmp_path / "us.dcm")
    out = inferred(tmp_path, path)
    answer = server.segment(path.read_bytes(), Accept="application/dicom")
    assert answer.status == 200, answer.body
    ours, theirs = pydicom.dcmread(io.BytesIO(answer.body)), pydicom.dcmread(out / "dicom/us.dcm")
    assert ours.PixelData == theirs.PixelData
    assert ours.SOPInstanceUID == theirs.SOPInstanceUID  # made of the same source by the same engine and options


def test_a_zip_of_a_series_is_one_source(server: Running, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    paths = ct_series(tmp_path / "ct")
    body = zipped(**{f"ct/{path.name}": path.read_bytes() for path in paths}, **{"ct/read.me": b"hello"})
    answer = server.segment(body).json()
    (source,) = answer["sources"]
    assert (answer["skipped"], source["kind"], source["status"], len(source["frames"])) == (1, "dicom", "ok", 5)
    assert source["series"]["volume_mm3"] > 0
    out = inferred(tmp_path, tmp_path / "ct", slices=True)
    masks = [path.read_bytes() for path in sorted((out / "masks").rglob("*.png"))]
    assert [base64.b64decode(frame["mask_png"]) for frame in source["frames"]] == masks
    seg = pydicom.dcmread(io.BytesIO(server.segment(body, Accept="application/dicom").body))
    assert seg.PixelData == pydicom.dcmread(next((out / "dicom").rglob("*.dcm"))).PixelData


def test_the_files_of_a_form_are_one_request(server: Running, tmp_path: Path) -> None:
    parts = b"".join(
        b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'
        % (path.name.encode(), data)
        for path in ct_series(tmp_path / "ct")
        for data in [path.read_bytes()]
    )
    answer = server.segment(parts + b"--xyz--\r\n", Content_Type="multipart/form-data; boundary=xyz").json()
    assert [(s["status"], len(s["frames"])) for s in answer["sources"]] == [("ok", 5)]


def test_a_nifti_volume_keeps_its_affine(server: Running, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    volume = np.stack([picture(n, 40, 50)[..., 0] for n in range(4)], axis=-1).astype(np.int16)
    path = tmp_path / "brain.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.0, 3, 4, 1])), path)
    out = inferred(tmp_path, path)
    answer = server.segment(path.read_bytes(), Accept="application/x-nifti")
    assert answer.status == 200, answer.body
    (tmp_path / "ours.nii.gz").write_bytes(answer.body)
    ours, theirs = nibabel.load(tmp_path / "ours.nii.gz"), nibabel.load(out / "nifti/brain_dseg.nii.gz")
    assert np.array_equal(ours.dataobj, theirs.dataobj)
    assert np.array_equal(ours.affine, theirs.affine)


def test_a_zip_answer_has_the_files_of_infer(server: Running) -> None:
    answer = server.segment(png(picture(1)), Accept="application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert set(archive.namelist()) == {"masks/scan.png", "overlays/scan.jpg", "contours/scan.json", "answer.json"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"", {}, 415, "unsupported"),
        (b"hello, world" * 20, {}, 415, "unsupported"),
        (b"%PDF-1.7" + bytes(99), {}, 415, "unsupported"),
        (png(picture(0))[:300], {}, 422, "bad_image"),
        (png(picture(0)), {"Accept": "text/html"}, 406, "not_acceptable"),
        (png(picture(0)), {"Accept": "application/dicom"}, 406, "not_acceptable"),
        (png(picture(0)), {"Content-Encoding": "gzip"}, 415, "unsupported"),
        (zipped(a=b"x"), {}, 415, "unsupported"),
        (b"PK\x03\x04 no zip", {}, 422, "bad_image"),
        (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "bad_request"),
        (png(picture(0)), {"X-Request-Timeout": "soon"}, 400, "bad_request"),
        (png(picture(0)), {"X-Request-Timeout": "1e-9"}, 504, "late"),
        (png(picture(0)), {"Host": "evil.example"}, 403, "forbidden"),
        (png(picture(0)), {"Origin": "https://evil.example"}, 403, "forbidden"),
    ],
)
def test_what_is_refused_says_why(
    server: Running, body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    answer = server.segment(body, **headers)
    error = answer.json()["error"]
    assert (answer.status, error["status"], error["reason"]) == (status, status, reason), answer.body
    assert error["what"]


def test_unknown_addresses_methods_and_models(server: Running) -> None:
    assert server.ask("GET", "/nothing").json()["error"]["reason"] == "unknown"
    assert server.ask("GET", "/v1/segment").status == 405
    assert server.segment(b"x", "?model=other").status == 404
    assert server.segment(b"x", "?colour=red").status == 400
    assert server.ask("GET", "/page/..%2fapp.py").status == 404


def test_metrics_count_in_base_units(server: Running) -> None:
    server.segment(png(picture(1)))
    text = server.ask("GET", "/metrics").body.decode()
    assert 'gms_rt_requests_total{api="segment",status="200"}' in text
    assert 'gms_rt_request_seconds_bucket{api="segment",le="0.001"}' in text
    assert 'gms_rt_frames_total{model="brightness",status="ok"}' in text
    assert "gms_rt_ready 1.0" in text
    assert "gms_rt_held_bytes 0.0" in text


def test_the_page_and_the_description_are_there(server: Running) -> None:
    page = server.ask("GET", "/")
    assert (page.status, b"Not for clinical use" in page.body) == (200, True)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "/v1/segment" in server.ask("GET", "/openapi.json").json()["paths"]


def test_every_way_in_is_described(server: Running) -> None:
    document = server.ask("GET", "/openapi.json").json()
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    known = ("/v1/segment", "/v2", "/info", "/infer", "/auth", "/session", "/datastore", "/dicom-web", "/metrics")
    routes = server.server.routes
    there = {(path, method) for path, method in routes if path.startswith(known)}
    assert len(there) > 25
    assert there == {(path, method) for path, method in described if path.startswith(known)}
