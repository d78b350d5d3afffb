"""The sockets of a service: TLS, slow clients, connections, signals, and an end at which nothing is lost.

uvicorn reads HTTP. What it leaves to others is done here: a client has a limited time for the head of a request, there
is a limit of open connections, and a request to end closes the door, answers what was taken, and then exits with 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gms_rt.errors import GmsError, UsageError
from gms_rt.interrupts import INTERRUPTS, handle_signals
from gms_rt.serve.app import app_from_service
from gms_rt.serve.guard import LOOPBACK, GuardSettings
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.service import Service

_GRACE = 5.0  # seconds that an answer may take to be sent when the service ends
_UNREAD = 60_000  # milliseconds that bytes of an answer may wait for the client to read
_CHUNKS, _CHUNK = 1000, 256  # so many chunks of a body may be of any size; all have as many bytes in the mean
_KEEP_ALIVE = 75  # seconds that a connection may rest between requests


@dataclass(frozen=True)
class ServerSettings:
    """Where the service listens."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    certificate: Path | None = None  # PEM, with its chain
    private_key: Path | None = None  # PEM


class HttpServer:
    """A service on a socket. `run` blocks; `stop` may be called by any thread or signal."""

    def __init__(self, service: Service, guard: GuardSettings, settings: ServerSettings) -> None:
        check_exposure(guard, settings)
        self._service = service
        self._socket = _bound(settings)
        self._error: BaseException | None = None
        app = app_from_service(service, guard)
        self.routes = app.routes  # path and method of every way in
        config = uvicorn.Config(
            app,
            http=_protocol(service.limits),
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=min(512, service.limits.connections),
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=int(service.limits.timeout + service.limits.body_seconds + _GRACE),
            h11_max_incomplete_event_size=service.limits.header_bytes,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.private_key,
        )
        try:
            config.load()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._socket.close()
            raise UsageError(f"cannot be used ({error})", where=settings.certificate, fix="give PEM files") from error
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it quotes requests
        self._server = _Server(config)
        self._scheme = "https" if settings.certificate else "http"

    @property
    def address(self) -> str:
        """The address at which it listens, with the port that was taken."""
        host, port = self._socket.getsockname()[:2]
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Check the golden pictures, serve until `stop`, answer what was taken. A failed check raises."""
        checking = threading.Thread(target=self._check, args=(ready,), name="golden", daemon=True)
        checking.start()
        try:
            with _ended_by_signals(self.stop):
                asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._service.close_door()
            checking.join()
            self._service.drain()
            self._socket.close()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take nothing more, answer what was taken, end."""
        self._service.close_door()
        self._server.should_exit = True

    def _check(self, ready: Callable[[], None]) -> None:
        try:
            self._service.check()
            ready()
        except BaseException as error:  # raised by `run`
            self._error = error
            self.stop()


def check_exposure(guard: GuardSettings, settings: ServerSettings) -> None:
    """Refuse to listen beyond loopback without a token, or to use half a key pair."""
    if settings.host not in LOOPBACK and guard.token is None:
        raise UsageError(
            "others than this machine could ask, and there is no token", where=f"--host {settings.host}",
            fix="give --token-file FILE",
        )  # fmt: skip
    if (settings.certificate is None) != (settings.private_key is None):
        raise UsageError("one is there without the other", where="--tls-cert, --tls-key", fix="give both")


def token_from_file(path: Path) -> str:
    """The token of a file: its first line, at least 16 characters."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read ({error})", where=path) from error
    token = lines[0].strip() if lines else ""
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            "has no token of 16 characters or more in its first line", where=path,
            fix="write one: openssl rand -hex 32",
        )  # fmt: skip
    return token


def _bound(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Said to be TCP: else asyncio lets small pieces wait, and the end of an answer 40 ms for the client.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((settings.host, settings.port))
        made.listen(512)
    except (OSError, OverflowError) as error:
        made.close()
        raise GmsError(
            f"cannot listen there ({getattr(error, 'strerror', None) or error})",
            where=f"{settings.host}:{settings.port}",
            fix="choose another with --host and --port",
        ) from error
    return made


@contextlib.contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A verb ends with the pipe that it prints to; a service does not end with a client that hangs up.
    with handle_signals(INTERRUPTS, lambda *_: stop()), handle_signals([signal.SIGPIPE], lambda *_: None):
        yield


class _Server(uvicorn.Server):
    """uvicorn's server without its handling of signals, which ends the process by the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """Leave them to whoever runs the server."""
        yield


def _without_crumbs(next_event: Callable[[], Any]) -> Callable[[], Any]:
    """The events of a connection, but a body in a great many tiny chunks is not HTTP that is read here.

    Each costs as much as a large one, and while they are taken apart nobody else is served.
    """
    chunks = size = 0

    def checked() -> Any:
        nonlocal chunks, size
        event = next_event()
        if isinstance(event, h11.Request):
            chunks = size = 0
        elif isinstance(event, h11.Data):
            chunks += event.chunk_start
            size += len(event.data)
            if chunks > _CHUNKS and size < chunks * _CHUNK:
                raise h11.RemoteProtocolError("chunks are too small")
        return event

    return checked


def _protocol(limits: ServeLimits) -> type[H11Protocol]:
    """uvicorn's protocol with a time for heads and a number of connections."""

    class Protocol(H11Protocol):
        _head: asyncio.TimerHandle | None = None

        def __init__(self, *rest: Any, **more: Any) -> None:
            super().__init__(*rest, **more)
            self.conn.next_event = _without_crumbs(self.conn.next_event)  # type: ignore[method-assign]

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            # What a client that does not read has not taken by then is dropped, with its connection.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            rests = self.cycle is None or self.cycle.response_complete
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._head_arrived()
            elif rests and self._head is None:
                self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_arrived()
            super().connection_lost(exc)

        def _await_head(self) -> None:
            self._head = self.loop.call_later(limits.header_seconds, self.transport.abort)

        def _head_arrived(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

    return Protocol
