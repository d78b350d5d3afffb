"""A service on loopback for tests: real sockets, a small real engine whose masks are its pictures' brightness."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gms_rt.engine.loaded import Engine
from gms_rt.infer.options import InferOptions
from gms_rt.serve.counters import Counters
from gms_rt.serve.guard import GuardSettings
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.model import ServedModel
from gms_rt.serve.server import HttpServer, ServerSettings
from gms_rt.serve.service import Service
from support.infer_engine import SIZE, brightness_engine


@dataclass(frozen=True)
class Setup:
    """How the service of a test differs from the usual one."""

    limits: ServeLimits = field(default_factory=ServeLimits)
    guard: GuardSettings = field(default_factory=GuardSettings)
    options: InferOptions = field(default_factory=InferOptions)
    engine: dict[str, Any] = field(default_factory=dict)  # batch, lanes, seconds
    keep: Path | None = None
    server: ServerSettings = field(default_factory=lambda: ServerSettings(port=0))


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Running:
    """A service that runs, with a client for it."""

    def __init__(self, server: HttpServer, service: Service) -> None:
        self.server, self.service = server, service
        self.port = int(server.address.rsplit(":", 1)[1])

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def segment(self, body: bytes, query: str = "", **headers: str) -> Answer:
        """`POST /v1/segment`."""
        return self.ask("POST", f"/v1/segment{query}", body, **headers)


def write_golden(folder: Path, **changes: Any) -> None:
    """Golden pictures that the brightness engine gets right, unless others are given."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    images[:, 10:40, 12:50] = 220
    arrays = {"images": images, "probabilities": images[..., 0], "names": np.array(["a", "b"]), "synthetic": False}
    np.savez(folder / "golden.npz", **(arrays | changes))


@contextmanager
def running(folder: Path, setup: Setup | None = None) -> Iterator[Running]:
    """A service with this engine until the block ends."""
    setup = setup or Setup()
    if not (folder / "golden.npz").exists():
        write_golden(folder)
    with serving(brightness_engine(folder, **setup.engine), setup) as found:
        yield found


@contextmanager
def serving(engine: Engine, setup: Setup) -> Iterator[Running]:
    """A service with an engine that is open, until the block ends, which closes it."""
    counters = Counters()
    model = ServedModel(engine.folder.name, engine, setup.options, setup.limits, counters)
    service = Service([model], setup.limits, counters, keep=setup.keep)
    server = HttpServer(service, setup.guard, setup.server)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    try:
        assert ready.wait(20)
        yield Running(server, service)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def picture(seed: int, height: int = 90, width: int = 120) -> np.ndarray[Any, Any]:
    """A grey ground with bright blobs, another one for each seed."""
    generator = np.random.default_rng(seed)
    image = np.full((height, width, 3), 40, np.uint8)
    for _ in range(3):
        centre = (int(generator.integers(width)), int(generator.integers(height)))
        cv2.circle(image, centre, int(generator.integers(6, 20)), (210, 220, 200), -1)
    return image


def png(image: np.ndarray[Any, Any]) -> bytes:
    """An image in RGB as PNG."""
    done, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    assert done
    return bytes(data)


def zipped(entries: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def raw(server: Running, *pieces: bytes, seconds: float = 10.0, pause: float = 0.0) -> bytes:
    """Send bytes on a connection of its own; what comes back until it ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        got = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
            while chunk := connection.recv(65536):
                got += chunk
        except ConnectionError:
            pass
        return got
