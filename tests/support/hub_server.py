"""A stand-in for the Hugging Face hub on loopback: repositories in memory, with the ways in which a hub fails."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """What it holds and what went through it; change it while it runs."""

    files: dict[str, dict[str, bytes]]  # repository to its files
    cut: dict[str, int] = field(default_factory=dict)  # file to the number of answers that end half way
    status: dict[str, int] = field(default_factory=dict)  # repository to the refusal it answers with
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path and range of every request
    address: str = ""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def _answer(self, *, body: bool) -> None:
        self.hub.asked.append((self.command, self.path, self.headers.get("Range", "")))
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repository not in self.hub.files or repository in self.hub.status:
            self._refuse(self.hub.status.get(repository, 404), "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif name not in self.hub.files[repository]:
            self._refuse(404, "EntryNotFound")
        else:
            self._give(self.hub.files[repository][name], name, body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if status != 500:
            self.send_header("X-Error-Code", "GatedRepo" if status == 403 else code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _give(self, data: bytes, name: str, body: bool) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if not body:
            return
        if self.hub.cut.get(name, 0) > 0:
            self.hub.cut[name] -= 1
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.close_connection = True
            return
        self.wfile.write(data[start:])


@contextmanager
def hub_server(files: dict[str, dict[str, bytes]]) -> Iterator[HubServer]:
    """A hub with these repositories, at `address` until the end of the block."""
    hub = HubServer(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
