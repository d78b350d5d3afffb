"""Bodies and errors of HTTP: a body is read within its bounds, an error is one JSON object with a status."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gms_rt.errors import TooLargeError, UsageError
from gms_rt.serve.answer import error_value
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.held import Held
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.refusals import (
    LateError,
    RefusedError,
    SlowError,
    UnsupportedError,
    forget_frames,
    status_from_error,
    told_error,
)
from gms_rt.serve.service import Service

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]
ErrorForm = Callable[[BaseException, int, str], dict[str, Any]]

_LEAST_RATE = 16 * 1024  # bytes per second below which a long upload is given up
_LOG = logging.getLogger("gms_rt.serve")
_FORGIVEN = 1 << 20  # bytes of a refused request's body that are read all the same, so that the client sees the answer
_FORGIVEN_SECONDS = 2.0


class GoneError(Exception):
    """The client hung up while it was sending."""


async def read_body(request: Request, limits: ServeLimits, held: Held) -> bytes:
    """A request's whole body. Its size is checked before it is read where the client tells it, and while it is read."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedError("has a Content-Encoding", where="body", fix="send it as it is")
    declared = request.headers.get("content-length")
    if declared is not None and "transfer-encoding" in request.headers:  # HTTP takes the second, others the first
        raise UsageError("has a length and a Transfer-Encoding", where="body", fix="send one of the two")
    if declared is not None and int(declared) > limits.max_bytes:
        raise _too_large(limits)
    if declared is not None:
        held.take(int(declared))
    chunks: list[bytes] = []
    size = 0
    start = time.monotonic()
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), limits.body_seconds)
        except asyncio.TimeoutError:
            raise _slow() from None
        if message["type"] == "http.disconnect":
            raise GoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limits.max_bytes:
            raise _too_large(limits)
        if declared is None:
            held.take(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if time.monotonic() - start > limits.body_seconds + size / _LEAST_RATE:
            raise _slow()


def _too_large(limits: ServeLimits) -> TooLargeError:
    mib = limits.max_bytes >> 20
    size = f"{mib} MiB" if mib else f"{limits.max_bytes} bytes"
    return TooLargeError(f"is larger than {size}", where="body", fix="send fewer files at a time")


def _slow() -> SlowError:
    return SlowError("comes too slowly", where="body", fix="send it faster, or fewer files at a time")


def request_seconds(request: Request, limits: ServeLimits) -> float:
    """The service's time for a request that has arrived, or the shorter one that its head names."""
    text = request.headers.get("x-request-timeout")
    if text is None:
        return limits.timeout
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise UsageError("is not a number of seconds", where="X-Request-Timeout")
    return min(seconds, limits.timeout)


async def wait_for_answer(request: Request, future: Future[T], deadline: Deadline) -> T:
    """The answer to what was taken, for as long as the client waits for it and the deadline is not over."""
    answer = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request))
    both: set[asyncio.Future[Any]] = {answer, gone}
    try:
        done, _ = await asyncio.wait(both, timeout=deadline.left + 1.0, return_when=asyncio.FIRST_COMPLETED)
        if answer in done:
            return answer.result()
        deadline.cancel()  # so that what is left of it costs nothing
        answer.add_done_callback(_forget)
        if gone in done:
            raise GoneError
        raise LateError(f"was not done within {deadline.seconds:g} s", fix="send fewer or smaller images")
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _forget(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # nobody asks any more


def with_error_answers(service: Service, endpoint: Endpoint, form: ErrorForm = error_value) -> Endpoint:
    """The endpoint with its errors as answers of this form."""

    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except GoneError:
            request.scope["gms_rt.reason"] = "gone"
            service.counters.refusals.labels("gone").inc()
            return Response(status_code=499)
        except Exception as error:
            answer = await error_answer(request, service, error, form)
            forget_frames(error)
            return answer

    answered.__name__ = endpoint.__name__
    return answered


async def error_answer(
    request: Request, service: Service, error: BaseException, form: ErrorForm = error_value
) -> Response:
    """An error as an answer, counted by its reason; a small body that nobody has read yet is read first."""
    told = told_error(error)
    status, reason = status_from_error(told)
    request.scope["gms_rt.reason"] = reason
    service.counters.refusals.labels(reason).inc()
    if status == 500:  # the type and place only: messages of decoders may quote what they read
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        _LOG.error("%s at %s", type(error).__name__, place)
    headers = {}
    if isinstance(told, RefusedError) and told.retry_after is not None:
        headers["Retry-After"] = str(told.retry_after)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if not await _drained(request):
        headers["Connection"] = "close"
    body = json.dumps(form(told, status, reason), ensure_ascii=False).encode() + b"\n"
    return Response(body, status, headers, "application/json")


async def _drained(request: Request) -> bool:
    """Read a small body to its end; whether it is read."""
    if request.scope.get("gms_rt.read") or not request.headers.get(
        "content-length", "1" if "transfer-encoding" in request.headers else ""
    ):
        return True
    size, end = 0, time.monotonic() + _FORGIVEN_SECONDS
    if int(request.headers.get("content-length", "0")) > _FORGIVEN:
        return False
    try:
        while size <= _FORGIVEN:
            message = await asyncio.wait_for(request.receive(), max(0.01, end - time.monotonic()))
            if message["type"] == "http.disconnect":
                return False
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return True
    except asyncio.TimeoutError:
        pass
    return False
