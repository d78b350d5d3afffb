"""How fast `gms-rt serve` answers, and whether anything makes it answer wrongly.

    python benchmarks/serve.py --engine engines/demo-fp16

Starts the service on loopback in a process of its own and measures, with clients that each compare every mask with the
one that `gms-rt infer` writes for their picture:

rate      sustained requests per second, p50 and p99 at 1, 4, 16 and 64 clients
overhead  p50 of one client over p50 of infer's own code in this process, in turns
overload  twice the highest rate, sent by the clock: every answer is the right mask or 429
memory    many requests; resident memory of the service in ten parts
fuzz      malformed heads and bodies, cut connections; then whether it still answers and no thread is stuck
kill      kill -9 in the middle, a new start at the same port, right masks again

Beside it, the same graph in OpenVINO's own Python API in a bare loop. Prints one JSON object; --out also writes it. The
defaults take about five minutes on an idle machine; `--seconds`, `--requests` and `--malformed` size it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gms_rt.engine.select import load
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer.case import CaseSettings, ScanCase
from gms_rt.infer.sources import Source
from gms_rt.runtime.device import probe
from gms_rt.scan.reader import fetch
from gms_rt.serve.segment import MemoryFolder

PARTS = ("rate", "overhead", "overload", "memory", "fuzz", "kill")
CLIENTS = (1, 4, 16, 64)


@dataclass(frozen=True)
class Case:
    """A picture and the mask that it must get."""

    path: Path
    body: bytes
    mask: bytes


class Served:
    """The service in a process of its own."""

    def __init__(self, engine: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "gms_rt", "serve", str(engine), "--port", str(port), "--json", "--quiet"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        listening = json.loads(self.process.stdout.readline())
        self.port = int(listening["address"].rsplit(":", 1)[1])
        self.engines = listening["engines"]
        ready = self.process.stdout.readline()
        if not ready:
            raise SystemExit(f"the service did not start: {self.process.communicate()[1]}")

    def figure(self, name: str) -> float:
        """A figure of /metrics."""
        found = re.search(rf"^{re.escape(name)} ([\d.e+-]+)$", ask(self.port, "GET", "/metrics")[1].decode(), re.M)
        return float(found[1]) if found else 0.0

    def resident_mib(self) -> float:
        """Resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.process.returncode


@contextmanager
def served(engine: Path) -> Iterator[Served]:
    """A service until the block ends."""
    service = Served(engine)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own; status 0 where the connection ended."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Accept": "image/png"} if method == "POST" else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Client:
    """A client that keeps its connection, as a viewer does."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def segment(self, case: Case) -> tuple[float, str]:
        """Milliseconds, and what came: "right", "wrong", "429", "lost" or another status."""
        start = time.perf_counter()
        try:
            self._connection.request("POST", "/v1/segment", case.body, {"Accept": "image/png"})
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 1e3 * (time.perf_counter() - start), "lost"
        milliseconds = 1e3 * (time.perf_counter() - start)
        if answer.status != 200:
            return milliseconds, str(answer.status)
        return milliseconds, "right" if body == case.mask else "wrong"

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def make_cases(folder: Path, engine: Path, count: int) -> list[Case]:
    """Pictures of 300 to 700 pixels, and what infer makes of them."""
    generator = np.random.default_rng(0)
    (folder / "scans").mkdir()
    for number in range(count):
        height, width = (int(n) for n in generator.integers(300, 700, 2))
        image = cv2.resize(generator.integers(0, 120, (9, 9, 3), np.uint8), (width, height))
        centre = (int(generator.integers(width)), int(generator.integers(height)))
        cv2.circle(image, centre, int(generator.integers(20, 120)), (230, 220, 210), -1)
        cv2.imwrite(str(folder / f"scans/{number:03}.{'jpg' if number % 2 else 'png'}"), image)
    found = find_sources([str(folder / "scans")])
    with OutFolder(folder / "out") as held, load(engine, mode="throughput") as opened:
        run_cases(found, InferJob(opened, held, InferOptions(overlays=False, contours=False)))
    return [
        Case(source.path, source.path.read_bytes(), (folder / f"out/masks/{source.stem}.png").read_bytes())
        for source in found.sources
    ]


def percentiles(values: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    return {f"p{p}_ms": round(float(np.percentile(values, p)), 3) for p in (50, 99)} if values else {}


def load_with(port: int, cases: list[Case], clients: int, more: Callable[[], bool]) -> tuple[list[float], Counter[str]]:
    """Clients that ask one request after the other while `more` says so."""
    times: list[float] = []
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def work(number: int) -> None:
        client, place = Client(port), number
        while more():
            milliseconds, what = client.segment(cases[place % len(cases)])
            place += clients
            if what == "lost":
                time.sleep(0.05)
            with lock:
                counts[what] += 1
                if what == "right":
                    times.append(milliseconds)
        client.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, counts


def until(seconds: float) -> Callable[[], bool]:
    """True for so many seconds."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def rate(service: Served, cases: list[Case], seconds: float) -> list[dict[str, Any]]:
    """Closed loops of more and more clients."""
    load_with(service.port, cases, 2, until(1.0))
    found = []
    for clients in CLIENTS:
        start = time.perf_counter()
        times, counts = load_with(service.port, cases, clients, until(seconds))
        wall = time.perf_counter() - start
        found.append(
            {"clients": clients, "per_second": round(len(times) / wall, 2), "answers": dict(counts)}
            | percentiles(times)
        )
    return found


def overhead(service: Served, cases: list[Case], engine: Path, seconds: float) -> dict[str, Any]:
    """One client and infer's own code in turns, on the same pictures."""
    ours: list[float] = []
    theirs: list[float] = []
    client = Client(service.port)
    with load(engine) as opened:
        job = InferJob(opened, OutFolder(Path()), InferOptions(overlays=False, contours=False))
        more = until(2 * seconds)
        while more():
            for case in cases[:8]:
                ours.append(client.segment(case)[0])
            for case in cases[:8]:
                start = time.perf_counter()
                infer_once(job, case)
                theirs.append(1e3 * (time.perf_counter() - start))
    client.close()
    difference = float(np.percentile(ours, 50) - np.percentile(theirs, 50))
    return {"served": percentiles(ours), "infer": percentiles(theirs), "p50_difference_ms": round(difference, 3)}


def infer_once(job: InferJob, case: Case) -> bytes:
    """A file to its mask by infer's own code, without writing to the disk."""
    folder = MemoryFolder(Path(), 1 << 30)
    settings = CaseSettings(folder, job.settings.predictor, job.maker, job.key)
    made = ScanCase(0, Source(case.path, case.path.name, "scan"), settings)
    start = time.perf_counter()
    fetched = fetch(case.path)
    reading = fetched.open()
    made.begin(fetched, reading.multi)
    frame = next(iter(reading.frames))
    predictor = settings.predictor
    levels = predictor.predict([predictor.prepare(frame.image)])[0]
    made.write(frame, levels, 0.0, start)
    made.finish()
    return folder.contents["masks/scan.png"]


def overload(service: Served, cases: list[Case], per_second: float, seconds: float) -> dict[str, Any]:
    """Requests by the clock at twice the rate, whatever comes back."""
    total = int(2 * per_second * seconds)
    counts: Counter[str] = Counter()
    lock = threading.Lock()
    begin, places = time.monotonic() + 0.2, iter(range(total))

    def work() -> None:
        client = Client(service.port)
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                break
            time.sleep(max(0.0, begin + place / (2 * per_second) - time.monotonic()))
            _, what = client.segment(cases[place % len(cases)])
            with lock:
                counts[what] += 1
        client.close()

    threads = [threading.Thread(target=work) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - begin
    return {
        "sent": total,
        "sent_per_second": round(total / wall, 2),
        "answers": dict(counts),
        "holds": set(counts) <= {"right", "429"} and sum(counts.values()) == total,
    }


def memory(service: Served, cases: list[Case], requests: int) -> dict[str, Any]:
    """Resident memory after each tenth of many requests."""
    resident = []
    counts: Counter[str] = Counter()
    for _ in range(10):
        left = iter(range(requests // 10))
        lock = threading.Lock()

        def more(left: Iterator[int] = left, lock: Any = lock) -> bool:
            with lock:
                return next(left, None) is not None

        counts += load_with(service.port, cases, 8, more)[1]
        resident.append(round(service.resident_mib(), 1))
    growth = round(resident[-1] - resident[2], 1)
    return {"requests": requests, "resident_mib": resident, "growth_after_a_third_mib": growth, "answers": dict(counts)}


def malformed(generator: random.Random, case: Case, model: str) -> tuple[bytes, bool]:
    """The bytes of a request that is wrong in one way or another, and whether they are all that it says it has."""
    body = bytearray(case.body)
    for _ in range(generator.randint(1, 30)):
        body[generator.randrange(len(body))] = generator.randrange(256)
    body = body[: generator.randrange(len(body))] if generator.random() < 0.5 else body
    path, more = "/v1/segment", ""
    kind = generator.randrange(8)
    if kind == 0:
        body = bytearray(128) + b"DICM" + body[:500]
    elif kind == 1:
        body = bytearray(b"PK\x03\x04") + body[:900] + b"PK\x05\x06" + generator.randbytes(18)
    elif kind == 2:
        more = "Content-Type: multipart/form-data; boundary=x\r\n"
        body = bytearray(b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n') + body[:700]
        body += generator.choice((b"\r\n--x--\r\n", b"\r\n--x", b"--x--", b"\r\n--x\r\n"))
    elif kind == 3:
        path = f"/v2/models/{model}/infer"
        body = bytearray(b'{"inputs": [{"name": "image", "shape": [1, 9e9, ' + body[:100])
    elif kind == 4:
        more = f"X-{'a' * generator.randint(1, 60_000)}: 1\r\n"
    elif kind == 5:
        path = "/" + bytes(generator.randrange(33, 127) for _ in range(40)).decode()
    elif kind == 6:
        body = bytearray(struct.pack("<I", 348)) + generator.randbytes(340) + b"n+1\0" + generator.randbytes(400)
    length = len(body) if generator.random() < 0.8 else generator.choice((0, 5, len(body) * 2, -1))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    sent = head.encode("latin-1", "replace") + bytes(body)
    if kind == 7:
        sent = generator.randbytes(generator.randint(1, 3000)) + b"\r\n\r\n"
    if generator.random() < 0.3:
        return sent[: generator.randrange(len(sent))], False
    return sent, length == len(body) or kind == 7


def fuzz(service: Served, cases: list[Case], count: int) -> dict[str, Any]:
    """Malformed requests from several connections; then whether the service is whole."""
    statuses: Counter[str] = Counter()
    lock = threading.Lock()
    small = min(cases, key=lambda case: len(case.body))

    def work(seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(count // 8):
            status = "cut"
            try:
                with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
                    sent, whole = malformed(generator, small, service.engines[0]["name"])
                    connection.sendall(sent)
                    if whole and generator.random() < 0.9:
                        status = connection.recv(64)[9:12].decode("latin-1") or "closed"
                    elif generator.random() < 0.5:  # both ends of a connection can go first
                        connection.shutdown(socket.SHUT_WR)
            except OSError:
                status = "reset"
            with lock:
                statuses[status] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = time.monotonic() + 60
    while service.figure("gms_rt_requests_running") and time.monotonic() < end:
        time.sleep(0.1)
    if service.process.poll() is not None:
        return {"answers": dict(statuses), "exit_code": service.process.returncode, "holds": False}
    running = service.figure("gms_rt_requests_running")
    held = service.figure("gms_rt_held_bytes")
    right = all(ask(service.port, "POST", "/v1/segment", case.body) == (200, case.mask) for case in cases)
    alive = service.process.poll() is None
    return {
        "requests": sum(statuses.values()),
        "answers": dict(sorted(statuses.items())),
        "stuck": running,
        "held_bytes": held,
        "resident_mib": round(service.resident_mib(), 1),
        "holds": alive and right and not running and not held and "500" not in statuses,
    }


def kill(engine: Path, cases: list[Case]) -> dict[str, Any]:
    """kill -9 while clients ask, a new start at the same port, right masks again."""
    first = Served(engine)
    counts: Counter[str] = Counter()
    clients = threading.Thread(target=lambda: counts.update(load_with(first.port, cases, 4, until(2.0))[1]))
    clients.start()
    time.sleep(1.0)
    first.process.kill()
    first.process.communicate()
    clients.join()
    again = Served(engine, first.port)
    try:
        after = load_with(again.port, cases, 4, until(2.0))[1]
    finally:
        code = again.stop()
    holds = "wrong" not in counts and set(after) == {"right"} and code == 0
    return {"before": dict(counts), "after": dict(after), "holds": holds}


def openvino_loop(engine: Path, seconds: float) -> dict[str, Any]:
    """The engine's graph in OpenVINO's own API: prepared images, no decoding, no HTTP."""
    from gms_rt.engine.manifest import read_manifest
    from gms_rt.telemetry import quiet_module

    openvino = quiet_module("openvino")
    manifest = read_manifest(engine)
    compiled = openvino.Core().compile_model(str(engine / manifest.graph), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    image = np.zeros((1, manifest.height, manifest.width, 3), np.uint8)
    times = []
    compiled([image])
    more = until(seconds)
    while more():
        start = time.perf_counter()
        compiled([image])
        times.append(1e3 * (time.perf_counter() - start))
    return {"per_second": round(1e3 / float(np.mean(times)), 2)} | percentiles(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--requests", type=int, default=10_000, help="of the memory part")
    parser.add_argument("--malformed", type=int, default=20_000, help="requests of the fuzz part")
    parser.add_argument("--pictures", type=int, default=32, help="that clients send")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if set(parts) - set(PARTS):
        parser.error(f"--only takes {','.join(PARTS)}")
    found: dict[str, Any] = {"machine": probe().cpu.name, "seconds": arguments.seconds}
    with tempfile.TemporaryDirectory() as place:
        cases = make_cases(Path(place), arguments.engine, arguments.pictures)
        found["openvino_alone"] = openvino_loop(arguments.engine, arguments.seconds / 2)
        with served(arguments.engine) as service:
            found["engine"] = service.engines[0]
            if "rate" in parts or "overload" in parts:
                found["rate"] = rate(service, cases, arguments.seconds)
            if "overhead" in parts:
                found["overhead"] = overhead(service, cases, arguments.engine, arguments.seconds)
            if "overload" in parts:
                highest = max(entry["per_second"] for entry in found["rate"])
                found["overload"] = overload(service, cases, highest, arguments.seconds)
            if "memory" in parts:
                found["memory"] = memory(service, cases, arguments.requests)
            if "fuzz" in parts:
                found["fuzz"] = fuzz(service, cases, arguments.malformed)
            found["exit_code"] = service.stop() if service.process.poll() is None else service.process.returncode
        if "kill" in parts:
            found["kill"] = kill(arguments.engine, cases)
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
