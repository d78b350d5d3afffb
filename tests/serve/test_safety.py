"""What a service does not let happen: strangers, floods, bombs, loss, traces of patients."""

from __future__ import annotations

import dataclasses
import gc
import http.client
import json
import logging
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.infer_engine import brightness_engine, program
from support.serve_server import Running, Setup, picture, png, raw, running, write_golden, zipped

from gms_rt.errors import GateError, UsageError
from gms_rt.infer.options import InferOptions
from gms_rt.serve.counters import Counters
from gms_rt.serve.guard import GuardSettings
from gms_rt.serve.intake import SentFile
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.model import ServedModel
from gms_rt.serve.server import HttpServer, ServerSettings, check_exposure, token_from_file
from gms_rt.serve.service import Service

TOKEN = "0123456789abcdef"
LIMITS = ServeLimits(
    requests=3,
    max_bytes=400_000,
    all_bytes=900_000,
    max_pixels=100_000,
    max_frames=3,
    max_files=5,
    max_unpacked=500_000,
    header_seconds=0.5,
    body_seconds=0.5,
    connections=20,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("safety") / "brightness"
    with running(folder, Setup(LIMITS, GuardSettings(token=TOKEN))) as found:
        yield found


def segment(server: Running, body: bytes, query: str = "", **headers: str) -> Any:
    return server.segment(body, query, Authorization=f"Bearer {TOKEN}", **headers)


def test_without_the_token_only_health_and_page_are_open(server: Running) -> None:
    for path in ("/", "/page/style.css", "/v2/health/live", "/v2/health/ready", "/openapi.json"):
        assert server.ask("GET", path).status == 200, path
    for path in ("/metrics", "/v2/models", "/info/", "/datastore/"):
        assert server.ask("GET", path).status == 401, path
    for given in ("Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", f"Bearer {TOKEN[:-1]}"):
        answer = server.segment(png(picture(1)), Authorization=given)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert segment(server, png(picture(1))).status == 200


def test_hosts_and_origins_that_are_not_ours(server: Running) -> None:
    own = f"127.0.0.1:{server.port}"
    for headers, status in (
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": f"localhost:{server.port}"}, 200),
        ({"Origin": "null"}, 403),
        ({"Origin": f"http://127.0.0.1:{server.port + 1}"}, 403),
        ({"Origin": f"http://{own}"}, 200),
    ):
        assert server.ask("GET", "/v2/health/live", **headers).status == status, headers


def test_beyond_loopback_a_token_is_needed(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.168.1.2", "::", "ward7.example"):
        with pytest.raises(UsageError, match="--token-file"):
            check_exposure(GuardSettings(), ServerSettings(host))
        check_exposure(GuardSettings(token=TOKEN), ServerSettings(host))
    check_exposure(GuardSettings(), ServerSettings())
    with pytest.raises(UsageError, match="give both"):
        check_exposure(GuardSettings(), ServerSettings(certificate=tmp_path))
    for text in ("", "short", "a token with blanks", "\u00e9" * 20):
        (tmp_path / "token").write_text(text)
        with pytest.raises(UsageError, match="16 characters"):
            token_from_file(tmp_path / "token")
    (tmp_path / "token").write_text(f"{TOKEN}\nmore\n")
    assert token_from_file(tmp_path / "token") == TOKEN


def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(made, check=True, capture_output=True)
    where = ServerSettings(port=0, certificate=tmp_path / "cert.pem", private_key=tmp_path / "key.pem")
    with running(tmp_path / "brightness", Setup(server=where)) as server:
        assert server.server.address.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        connection = http.client.HTTPSConnection("localhost", server.port, context=trusted, timeout=20)
        connection.request("POST", "/v1/segment", png(picture(1)), {"Accept": "image/png"})
        assert connection.getresponse().status == 200
        connection.close()
    with pytest.raises(UsageError, match="cannot be used"):
        wrong = dataclasses.replace(where, certificate=tmp_path / "key.pem")
        HttpServer(server.service, GuardSettings(), wrong)


def test_large_images_are_worked_on_one_by_one(tmp_path: Path) -> None:
    with running(tmp_path / "brightness") as server:
        sent = [png(np.full((2200, 2000, 3), 90 + n, np.uint8)) for n in range(3)]
        found = server.segment(zipped({f"{n}.png": body for n, body in enumerate(sent)}), "?masks=0&contours=0").json()
    assert [source["status"] for source in found["sources"]] == ["empty"] * 3


def test_sizes_are_refused_before_they_cost(server: Running) -> None:
    assert segment(server, bytes(LIMITS.max_bytes + 1)).status == 413
    head = f"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    lied = raw(server, head + b"Content-Length: 99999999999\r\n\r\n", seconds=5)
    assert lied.startswith(b"HTTP/1.1 413")  # at once, without waiting for the body
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    assert raw(server, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 8).startswith(b"HTTP/1.1 413")
    answer = segment(server, png(np.zeros((400, 400, 3), np.uint8)))
    assert (answer.status, answer.json()["error"]["reason"]) == (413, "too_large")
    assert server.service.counters.registry.get_sample_value("gms_rt_held_bytes") == 0


def test_a_picture_that_claims_to_be_huge_is_not_decoded(server: Running) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    claims = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", claims) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )
    assert segment(server, body).status == 413


def test_more_images_than_allowed(server: Running) -> None:
    answer = segment(server, zipped({f"{n}.png": png(picture(n)) for n in range(4)}))
    assert (answer.status, answer.json()["error"]["reason"]) == (413, "too_large")


def real_size_lie() -> bytes:
    """An archive whose directory says 10 bytes of an entry that holds 100,000."""
    data = zipped({"a.png": bytes(100_000)})
    return data.replace(struct.pack("<I", 100_000), struct.pack("<I", 10))


def encrypted() -> bytes:
    data = bytearray(zipped({"a.png": png(picture(1))}))
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (zipped({f"{n}.txt": b"" for n in range(6)}), 413),  # entries
        (zipped({"zeros.png": bytes(600_000)}), 413),  # a bomb that says so
        (real_size_lie(), 422),
        (zipped({"../../etc/cron.d/x.png": png(picture(1))}), 422),
        (zipped({"/etc/x.png": png(picture(1))}), 422),
        (zipped({"..\\x.png": png(picture(1))}), 422),
        (zipped({"inner.zip": zipped({"a.png": png(picture(1))})}), 415),  # nested ones are not opened
        (encrypted(), 422),
        (zipped({"a.png": png(picture(1))})[:-30], 422),
        (zipped({"a.png": b"\x89PNG\r\n\x1a\n"}), 422),
        (b"PK\x03\x04" + b"PK\x05\x06" + b"\xff" * 18, 413),
        (b"PK\x03\x04" + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 2, 2, 4999, 9999, 0), 422),
    ],
)
def test_hostile_archives(server: Running, body: bytes, status: int) -> None:
    answer = segment(server, body)
    assert answer.status == status, answer.body
    assert segment(server, png(picture(1))).status == 200


def test_an_archive_with_an_entry_without_a_name_is_damaged(server: Running) -> None:
    data = zipped({"a": b"x"})
    entry = data.rindex(b"PK\x01\x02")
    nameless = data[: entry + 28] + struct.pack("<3H", 0, 0, 1) + data[entry + 34 :]  # its name is its comment
    answer = segment(server, nameless)
    assert answer.status == 422 and "is a damaged zip archive" in answer.body.decode()


def test_names_in_archives_are_shown_and_never_used(server: Running) -> None:
    name = "a/" + "n" * 400 + "/\u00e9\u4e2d\n.png"
    answer = segment(server, zipped({name: png(picture(1)), "b.png": png(picture(2))}))
    assert answer.status == 200, answer.body
    assert [source["status"] for source in answer.json()["sources"]] == ["ok", "ok"]
    assert answer.json()["sources"][0]["name"].startswith("a/nnn")


def test_slow_clients_are_given_up(server: Running) -> None:
    start = time.monotonic()
    assert raw(server, b"GET / HT", seconds=8) == b""  # a head that does not end
    assert raw(server, seconds=8) == b""  # a connection without a request
    head = f"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
    assert raw(server, head + b"Content-Length: 1000\r\n\r\nabc", seconds=8).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - start < 20
    drops = [b"x"] * 12  # each comes in time, all of them too slowly
    assert raw(server, head + b"Content-Length: 1000\r\n\r\n", *drops, pause=0.1).startswith(b"HTTP/1.1 408")


def test_heads_that_are_too_large_or_no_http(server: Running) -> None:
    assert raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000).startswith(b"HTTP/1.1 400")
    assert raw(server, bytes(range(256)) * 4 + b"\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert raw(server, b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n")[:12].endswith(
        b"400"
    )
    assert server.ask("GET", "/v2/health/live").status == 200


def test_there_is_a_limit_of_connections(server: Running) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(LIMITS.connections)]
    try:
        time.sleep(0.05)
        assert raw(server, b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
    finally:
        for connection in held:
            connection.close()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            assert server.ask("GET", "/v2/health/live").status == 200
            break
        except ConnectionError:
            time.sleep(0.05)
    else:
        raise AssertionError("it does not come back")


def test_a_flood_gets_masks_or_429_and_never_another_ones_mask(tmp_path: Path) -> None:
    setup = Setup(ServeLimits(requests=4, workers=2), engine={"seconds": 0.005, "batch": 4})
    with running(tmp_path / "brightness", setup) as server:
        bodies = [png(picture(n)) for n in range(6)]
        alone = [server.segment(body, Accept="image/png").body for body in bodies]
        assert len(set(alone)) == 6

        def client(n: int) -> tuple[int, bool]:
            answer = server.segment(bodies[n % 6], Accept="image/png")
            if answer.status == 429:
                assert 1 <= int(answer.headers["Retry-After"]) <= 60
            return answer.status, answer.status == 429 or answer.body == alone[n % 6]

        with ThreadPoolExecutor(24) as pool:
            found = list(pool.map(client, range(150)))
        assert {status for status, _ in found} <= {200, 429}
        assert all(right for _, right in found)
        assert sum(status == 200 for status, _ in found) >= 4
        assert server.service.counters.registry.get_sample_value("gms_rt_requests_running") == 0


def test_who_hangs_up_costs_nothing_more(tmp_path: Path) -> None:
    setup = Setup(engine={"seconds": 0.2})
    with running(tmp_path / "brightness", setup) as server:
        body = zipped({f"{n:02}.png": png(picture(n)) for n in range(40)})
        head = f"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + body)
            time.sleep(0.5)
        value = server.service.counters.registry.get_sample_value
        end = time.monotonic() + 5
        while value("gms_rt_requests_running") and time.monotonic() < end:
            time.sleep(0.02)
        assert value("gms_rt_requests_running") == 0  # forty images would take eight seconds
        assert value("gms_rt_refusals_total", {"reason": "gone"}) == 1
        assert value("gms_rt_held_bytes") == 0


def test_what_was_sent_is_let_go_at_once_also_after_an_error(server: Running) -> None:
    """Errors refer to frames that refer to errors: bodies would stay until Python looks for cycles."""

    def held() -> int:
        return sum(type(each) is SentFile for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        segment(server, png(picture(1)))
        segment(server, png(picture(1))[:300])
        segment(server, b"hello")
        segment(server, zipped({"a.png": png(picture(1))[:300]}))
        segment(server, png(np.zeros((400, 400, 3), np.uint8)))
        segment(server, png(picture(1)), X_Request_Timeout="1e-9")
        segment(server, png(picture(1)), Accept="application/dicom")
        end = time.monotonic() + 3
        while held() and time.monotonic() < end:
            time.sleep(0.02)
        assert held() == 0
    finally:
        gc.enable()


def test_it_is_not_ready_before_its_golden_pictures_passed(tmp_path: Path) -> None:
    folder = tmp_path / "brightness"
    write_golden(folder, probabilities=np.full((2, 64, 64), 200, np.uint8))
    counters = Counters()
    model = ServedModel("brightness", brightness_engine(folder), InferOptions(), ServeLimits(), counters)
    service = Service([model], ServeLimits(), counters)
    assert service.reason_not_ready()
    server = HttpServer(service, GuardSettings(), ServerSettings(port=0))
    with pytest.raises(GateError, match="golden pictures"):
        server.run()
    assert service.reason_not_ready()
    assert not service.scratch.exists()


def test_synthetic_golden_pictures_carry_no_verdict(tmp_path: Path) -> None:
    folder = tmp_path / "brightness"
    write_golden(folder, probabilities=np.full((2, 64, 64), 200, np.uint8), synthetic=True)
    with running(folder) as server:
        notes = server.segment(png(picture(1))).json()["notes"]
    assert any("synthetic" in note for note in notes)


def test_the_log_has_nothing_of_a_patient(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    name = "DOE^JANE-19700101"
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % name.encode()
    with caplog.at_level(logging.INFO, logger="gms_rt.serve"):
        body = part + png(picture(1)) + b"\r\n--x--\r\n"
        assert segment(server, body, Content_Type="multipart/form-data; boundary=x").status == 200
        segment(server, part + b"hello\r\n--x--\r\n", Content_Type="multipart/form-data; boundary=x")
        segment(server, zipped({f"{name}.png": b"\x89PNG\r\n\x1a\n"}))
        server.ask("GET", f"/datastore/image?image={name}", Authorization=f"Bearer {TOKEN}")
        server.ask("GET", f"/session/{name}", Authorization=f"Bearer {TOKEN}", User_Agent=name)
        server.ask("GET", f"/{name}", Authorization=f"Bearer {TOKEN}")
        end = time.monotonic() + 5
        while len(caplog.records) < 6 and time.monotonic() < end:  # a line is written after its answer was sent
            time.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 6
    assert not re.search("DOE|JANE|1970", "".join(lines) + caplog.text)
    assert all(json.loads(line)["status"] for line in lines)


def test_nothing_is_stored(server: Running, tmp_path: Path) -> None:
    segment(server, zipped({"a.png": png(picture(1)), "b.png": png(picture(2))}))
    segment(server, zipped({"a.png": png(picture(1))[:200], "b.png": b"GIF8"}))
    assert [path.name for path in server.service.scratch.iterdir()] == [".lock"]
    assert server.service.scratch.stat().st_mode & 0o77 == 0


def test_keep_keeps_the_answers_files(tmp_path: Path) -> None:
    with running(tmp_path / "brightness", Setup(keep=tmp_path / "kept")) as server:
        mask = server.segment(png(picture(1)), Accept="image/png").body
        server.segment(png(picture(2)))
    kept = {path.name: path for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    assert {"scan.png", "scan.json", "answer.json"} == set(kept)
    assert mask in [path.read_bytes() for path in (tmp_path / "kept").rglob("scan.png")]


def test_a_killed_service_leaves_nothing_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left = tmp_path / "gms-rt-serve-left"
    left.mkdir()
    (left / ".lock").touch()
    (left / "scan.dcm").touch()
    with running(tmp_path / "brightness") as server:
        assert not left.exists()
        assert server.service.scratch.exists()
    assert not list(tmp_path.glob("gms-rt-serve-*"))


def test_clients_that_hang_up_do_not_end_the_process(tmp_path: Path) -> None:
    """The command line ends with a closed pipe, as every program does; a service must not."""
    folder = tmp_path / "engines" / "brightness"
    write_golden(folder)
    process = program(folder, 0.0, "serve", folder, "--port", 0, "--json", "--quiet")
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        assert process.stdout.readline()  # ready
        port = int(address.rsplit(":", 1)[1])
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
        assert _Client(port).figure("gms_rt_ready") == 1
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()


def test_what_was_taken_is_answered_after_sigterm(tmp_path: Path) -> None:
    folder = tmp_path / "engines" / "brightness"
    write_golden(folder)
    process = program(folder, 0.05, "serve", folder, "--port", 0, "--json")
    try:
        assert process.stdout is not None
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [event["event"] for event in events] == ["listening", "ready"]
        port = int(events[0]["address"].rsplit(":", 1)[1])
        server = _Client(port)
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(server.segment())) for _ in range(12)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 10
        while server.figure("gms_rt_requests_running") + server.figure("gms_rt_requests_waiting") < 6:
            assert time.monotonic() < end
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(20)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        # Those that were taken have masks. One that came after the signal was told to come again, or met a closed door.
        assert answers.count(200) >= 6
        assert set(answers) <= {200, 503, 0}
        assert out == b""
    finally:
        process.kill()
        process.communicate()


@dataclasses.dataclass(frozen=True)
class _Client:
    """A client of a service in another process."""

    port: int

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (ConnectionError, http.client.RemoteDisconnected):
            return 0, b""
        finally:
            connection.close()

    def segment(self) -> int:
        return self._ask("POST", "/v1/segment", png(picture(1)))[0]

    def figure(self, name: str) -> float:
        found = re.search(rf"^{name} ([\d.]+)$", self._ask("GET", "/metrics")[1].decode(), re.MULTILINE)
        assert found is not None
        return float(found[1])
