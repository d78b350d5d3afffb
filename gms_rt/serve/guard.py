"""Who may ask, and the log of what was asked. It stands before every route.

A browser can be led by a stranger's page to send requests here. Host names that are not ours (DNS rebinding) and
origins that are not ours are refused, also on loopback. The log has no file name, no path beyond its route, no query
and no header: nothing of a patient. With a token, all but the page, the health checks and the description need it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gms_rt.errors import UsageError
from gms_rt.serve.http import error_answer
from gms_rt.serve.refusals import ForbiddenError, UnauthorisedError
from gms_rt.serve.service import Service

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

ACCESS = logging.getLogger("gms_rt.serve.access")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN = ("/", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/auth/", "/auth/token")
_PIECE = 256 * 1024  # bytes of an answer that are sent at a time, so that a client that does not read is noticed
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


@dataclass(frozen=True)
class GuardSettings:
    """Who may ask."""

    hosts: tuple[str, ...] = LOOPBACK  # names under which the service is reached; "*" is any
    origins: tuple[str, ...] = ()  # of pages of others that may ask, such as https://viewer.example
    token: str | None = None
    send_seconds: float = 60.0  # a client that reads nothing of its answer for as long is given up


class Guard:
    """The service behind its checks, as an ASGI application."""

    def __init__(self, app: App, service: Service, settings: GuardSettings, routes: Sequence[Route]) -> None:
        self._app = app
        self.routes = [(route.path, method) for route in routes for method in route.methods or () if method != "HEAD"]
        self._service = service
        self._settings = settings

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        seen = _Seen()

        async def counted_receive() -> Message:
            message = await receive()
            seen.received += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS, *allowed]
                await send(message)
                return
            body = message.get("body", b"")
            seen.sent += len(body)
            for place in range(0, max(1, len(body)), _PIECE):
                more = message.get("more_body", False) or place + _PIECE < len(body)
                piece = {"type": message["type"], "body": body[place : place + _PIECE], "more_body": more}
                await asyncio.wait_for(send(piece), self._settings.send_seconds)

        request = Request(scope, counted_receive, counted_send)
        origin = request.headers.get("origin")
        allowed = _allowed(origin) if origin in self._settings.origins else ()
        try:
            self._check(request)
        except (ForbiddenError, UnauthorisedError, UsageError) as error:
            answer = await error_answer(request, self._service, error)
            await answer(scope, counted_receive, counted_send)
        else:
            if allowed and _is_preflight(request):
                answer = Response(status_code=204, headers=_PREFLIGHT)
                await answer(scope, counted_receive, counted_send)
            else:
                await self._app(scope, counted_receive, counted_send)
        finally:
            self._log(scope, seen, time.perf_counter() - start)

    def _check(self, request: Request) -> None:
        settings = self._settings
        host = request.headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if "*" not in settings.hosts and name.lower() not in settings.hosts:
            raise ForbiddenError("is not a name of this service", where="Host", fix="allow it with --host-name")
        origin = request.headers.get("origin")
        if origin is not None and origin not in settings.origins:
            try:
                place = urlsplit(origin).netloc.lower()
            except ValueError:
                place = ""
            if not place or place != host.lower():
                raise ForbiddenError("is of another place", where="Origin", fix="allow it with --origin")
        preflight = origin in settings.origins and _is_preflight(request)  # a browser sends these without the token
        if settings.token is not None and not preflight and not _is_open(request):
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode(), settings.token.encode())
            if scheme.lower() != "bearer" or not right:
                raise UnauthorisedError(
                    "there is no right token", where="Authorization", fix="send Authorization: Bearer TOKEN"
                )

    def _log(self, scope: MutableMapping[str, Any], seen: _Seen, seconds: float) -> None:
        counters = self._service.counters
        api = getattr(scope.get("endpoint"), "__name__", "none")
        counters.requests.labels(api, str(seen.status)).inc()
        counters.request_seconds.labels(api).observe(seconds)
        counters.received.inc(seen.received)
        counters.sent.inc(seen.sent)
        if not ACCESS.isEnabledFor(logging.INFO):
            return
        client = scope.get("client")
        value = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "id": secrets.token_hex(4),
            "client": client[0] if client else None,
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "api": api,
            "status": seen.status,
            "reason": scope.get("gms_rt.reason"),
            "milliseconds": round(1e3 * seconds, 2),
            "received": seen.received,
            "sent": seen.sent,
        }
        ACCESS.info("%s", json.dumps(value))


@dataclass
class _Seen:
    status: int = 0  # 0: no answer was begun
    received: int = 0
    sent: int = 0


_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


# What a browser lets the page of another origin do, as far as --origin names it (the Fetch standard, CORS).
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-Timeout, Inference-Header-Content-Length",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = (
    b"Retry-After, Content-Disposition, Inference-Header-Content-Length, X-Engine-SHA256, X-Certificate-SHA256, "
    b"X-Failed-Instances, X-Not-For-Clinical-Use"
)


def _allowed(origin: str | None) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"access-control-allow-origin", (origin or "").encode("latin-1")),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"Origin"),
    )


def _is_preflight(request: Request) -> bool:
    return request.method == "OPTIONS" and "access-control-request-method" in request.headers


def _is_open(request: Request) -> bool:
    return request.url.path in OPEN or request.url.path.startswith("/page/")
