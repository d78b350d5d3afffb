"""How fast `gms-rt serve` answers, and whether anything makes it answer wrongly.

    python benchmarks/serve.py --engine engines/demo-fp16

Starts the service on loopback in a process of its own and measures, with clients that each compare every mask with the
one that `gms-rt infer` writes for their picture:

rate      sustained requests per second, p50 and p99 at 1, 4, 16 and 64 clients
peer      the same pictures, clients and masks with LitServe (`pip install litserve`; without it a note says so)
overhead  p50 of one client over p50 of infer's own code in this process, in turns
overload  twice the highest rate, sent by the clock: every answer is the right mask or 429
memory    many requests; resident memory of the service in ten parts
fuzz      malformed requests of every interface, cut connections, slow clients; then whether it is whole
kill      kill -9 in the middle, a new start at the same port, right masks again

Beside it, the same graph in OpenVINO's own Python API in a bare loop. Prints one JSON object; --out also writes it.
What is timed wants an idle machine and takes some four minutes; fuzz takes as long as 100,000 requests do.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import importlib.metadata
import importlib.util
import json
import os
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from serve_hostile import Hostile
from serve_infer import InferOne

from gms_rt import __version__
from gms_rt.engine.select import load
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.runtime.device import probe

PARTS = ("rate", "peer", "overhead", "overload", "memory", "fuzz", "kill")
CLIENTS = (1, 4, 16, 64)
_GROWTH = 32.0  # MiB that the service may grow by after a third of many requests
_SLOW = 4  # clients that send a byte at a time while others send malformed requests


@dataclass(frozen=True)
class Case:
    """A picture and the mask that it must get."""

    path: Path
    body: bytes
    mask: bytes

    @cached_property
    def as_json(self) -> bytes:
        """The picture as LitServe takes it."""
        return json.dumps({"image": base64.b64encode(self.body).decode()}).encode()


class Served:
    """The service in a process of its own."""

    def __init__(self, engine: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "gms_rt", "serve", str(engine), "--port", str(port), "--json", "--quiet"]
        # A pipe that nobody empties would stop the service at 64 KiB: decoders complain there of damaged pictures.
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the service
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._said, text=True)
        assert self.process.stdout is not None
        listening = json.loads(self.process.stdout.readline())
        self.port = int(listening["address"].rsplit(":", 1)[1])
        self.engines = listening["engines"]
        ready = self.process.stdout.readline()
        if not ready:
            self.process.wait()
            self._said.seek(0)
            raise SystemExit(f"the service did not start: {self._said.read()}")

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


@dataclass(frozen=True)
class Way:
    """How a server is asked, and where the mask is in its answer."""

    path: str
    headers: dict[str, str]
    body: Callable[[Case], bytes]
    mask: Callable[[bytes], bytes]


OURS = Way("/v1/segment", {"Accept": "image/png"}, lambda case: case.body, lambda answer: answer)
LITSERVE = Way(
    "/predict",
    {"Content-Type": "application/json"},
    lambda case: case.as_json,
    lambda answer: base64.b64decode(json.loads(answer)["mask"]),
)


class Client:
    """A client that keeps its connection, as a viewer does."""

    def __init__(self, port: int, way: Way = OURS) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._way = way

    def segment(self, case: Case) -> tuple[float, str]:
        """Milliseconds, and what came: "right", "wrong", "429", "lost" or another status."""
        body = self._way.body(case)
        start = time.perf_counter()
        try:
            self._connection.request("POST", self._way.path, body, self._way.headers)
            answer = self._connection.getresponse()
            found = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 1e3 * (time.perf_counter() - start), "lost"
        milliseconds = 1e3 * (time.perf_counter() - start)
        if answer.status != 200:
            return milliseconds, str(answer.status)
        return milliseconds, "right" if self._way.mask(found) == case.mask else "wrong"

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


def load_with(
    port: int, cases: list[Case], clients: int, more: Callable[[], bool], way: Way = OURS
) -> tuple[list[float], Counter[str]]:
    """Clients that ask one request after the other while `more` says so."""
    times: list[float] = []
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def work(number: int) -> None:
        client, place = Client(port, way), number
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


def rate(port: int, cases: list[Case], seconds: float, way: Way = OURS) -> list[dict[str, Any]]:
    """Closed loops of more and more clients."""
    load_with(port, cases, 2, until(1.0), way)
    found = []
    for clients in CLIENTS:
        start = time.perf_counter()
        times, counts = load_with(port, cases, clients, until(seconds), way)
        wall = time.perf_counter() - start
        found.append(
            {"clients": clients, "per_second": round(len(times) / wall, 2), "answers": dict(counts)}
            | percentiles(times)
        )
    return found


def litserve(engine: Path, cases: list[Case], seconds: float) -> dict[str, Any]:
    """The same pictures and clients with LitServe, of one worker and of two."""
    if importlib.util.find_spec("litserve") is None:
        return {"note": "LitServe is not installed: pip install litserve"}
    found: dict[str, Any] = {"server": "LitServe", "version": importlib.metadata.version("litserve")}
    for workers in (1, 2):
        with socket.create_server(("127.0.0.1", 0)) as probe_socket:
            port = probe_socket.getsockname()[1]
        script = Path(__file__).with_name("serve_litserve.py")
        command = [sys.executable, str(script), "--engine", str(engine), "--port", str(port), "--workers", str(workers)]
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                _wait_for(port, process)
                found[f"workers_{workers}"] = rate(port, cases, seconds, LITSERVE)
            except (OSError, TimeoutError):
                log.seek(0)
                found[f"workers_{workers}"] = {"note": f"did not start: {log.read()[-500:].decode(errors='replace')}"}
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return found


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if ask(port, "GET", "/health")[0] == 200:
            return
        time.sleep(0.2)
    raise TimeoutError


def overhead(service: Served, cases: list[Case], engine: Path, seconds: float) -> dict[str, Any]:
    """One client and infer's own code in turns, on the same pictures."""
    ours: list[float] = []
    theirs: list[float] = []
    client, infer = Client(service.port), InferOne(engine)
    more = until(2 * seconds)
    while more():
        for case in cases[:8]:
            ours.append(client.segment(case)[0])
        for case in cases[:8]:
            start = time.perf_counter()
            mask = infer.mask(case.path.read_bytes())
            theirs.append(1e3 * (time.perf_counter() - start))
            assert mask == case.mask
    client.close()
    infer.close()
    difference = float(np.percentile(ours, 50) - np.percentile(theirs, 50))
    return {
        "served": percentiles(ours),
        "infer": percentiles(theirs),
        "p50_difference_ms": round(difference, 3),
        "holds": difference <= 2.0,
    }


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
    return {
        "requests": sum(counts.values()),
        "resident_mib": resident,
        "growth_after_a_third_mib": growth,
        "answers": dict(counts),
        "holds": growth < _GROWTH and set(counts) == {"right"},
    }


def fuzz(service: Served, cases: list[Case], count: int) -> dict[str, Any]:
    """Malformed requests from several connections; then whether the service is whole."""
    answers: dict[str, Counter[str]] = {}
    lock = threading.Lock()
    small = min(cases, key=lambda case: len(case.body))
    before = service.resident_mib()
    ended = threading.Event()

    def work(seed: int) -> None:
        hostile, pick = Hostile(seed, small.body, service.engines[0]["name"]), random.Random(seed)
        for _ in range(count // 8):
            made = hostile.next()
            status = "cut"
            try:
                with socket.create_connection(("127.0.0.1", service.port), timeout=90) as connection:
                    connection.sendall(made.sent)
                    if made.whole and pick.random() < 0.9:
                        status = connection.recv(64)[9:12].decode("latin-1") or "closed"
                    elif pick.random() < 0.3:  # both ends of a connection can go first
                        connection.shutdown(socket.SHUT_WR)
                    elif pick.random() < 0.3:  # without a word
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except TimeoutError:
                status = "no answer"
            except OSError:
                status = "reset"
            with lock:
                answers.setdefault(made.kind, Counter())[status] += 1

    slow: Counter[str] = Counter()

    def drip(seed: int) -> None:
        while not ended.is_set():
            status = _sent_slowly(
                service.port, Hostile(seed, small.body, service.engines[0]["name"]).next().sent, ended
            )
            with lock:
                slow[status] += 1
            seed += _SLOW

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    drips = [threading.Thread(target=drip, args=(1000 + seed,)) for seed in range(_SLOW)]
    for thread in (*threads, *drips):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    for thread in drips:
        thread.join()
    end = time.monotonic() + 90
    while service.figure("gms_rt_requests_running") and time.monotonic() < end:
        time.sleep(0.1)
    statuses = sum(answers.values(), Counter[str]())
    told = {kind: dict(sorted(counts.items())) for kind, counts in sorted(answers.items())}
    if service.process.poll() is not None:
        return {"answers": told, "exit_code": service.process.returncode, "holds": False}
    running = service.figure("gms_rt_requests_running")
    held = service.figure("gms_rt_held_bytes")
    right = all(ask(service.port, "POST", "/v1/segment", case.body) == (200, case.mask) for case in cases)
    alive = service.process.poll() is None
    return {
        "requests": sum(statuses.values()),
        "answers": told,
        "slow_clients": dict(slow),
        "stuck": running,
        "held_bytes": held,
        "resident_mib": [before, round(service.resident_mib(), 1)],
        "holds": alive and right and not running and not held and not {"500", "no answer"} & set(statuses),
    }


def _sent_slowly(port: int, sent: bytes, ended: threading.Event) -> str:
    """Send a request a few bytes at a time until it is over or the service has had enough."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            for place in range(0, len(sent), 7):
                if ended.wait(0.2):
                    return "cut"
                connection.sendall(sent[place : place + 7])
            return connection.recv(64)[9:12].decode("latin-1") or "closed"
    except OSError:
        return "closed"


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
    """The engine's graph in OpenVINO's own API and the engine's arithmetic: prepared images, no decoding, no HTTP."""
    from gms_rt.engine.manifest import read_manifest
    from gms_rt.telemetry import quiet_module

    manifest = read_manifest(engine)
    # Left alone OpenVINO takes BF16 where a CPU has it, which is another engine.
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": manifest.execution}
    compiled = quiet_module("openvino").Core().compile_model(str(engine / manifest.graph), "CPU", hints)
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
    parser.add_argument("--malformed", type=int, default=100_000, help="requests of the fuzz part")
    parser.add_argument("--pictures", type=int, default=32, help="that clients send")
    parser.add_argument("--note", help="what the result should say of its circumstances")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if set(parts) - set(PARTS):
        parser.error(f"--only takes {','.join(PARTS)}")
    cpu = probe().cpu
    found: dict[str, Any] = {
        "machine": cpu.name,
        "cores": os.cpu_count(),
        "version": __version__,
        "note": arguments.note,
        "seconds": arguments.seconds,
    }
    with tempfile.TemporaryDirectory() as place:
        cases = make_cases(Path(place), arguments.engine, arguments.pictures)
        if {"rate", "peer", "overhead"} & set(parts):
            found["openvino_alone"] = openvino_loop(arguments.engine, arguments.seconds / 2)
        if "peer" in parts:
            found["peer"] = litserve(arguments.engine, cases, arguments.seconds)
        with served(arguments.engine) as service:
            found["engine"] = service.engines[0]
            if "rate" in parts or "overload" in parts:
                found["rate"] = rate(service.port, cases, arguments.seconds)
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
