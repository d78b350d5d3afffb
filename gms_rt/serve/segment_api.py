"""`POST /v1/segment`: scans in, masks out, in the format that `Accept` asks for."""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from gms_rt.errors import UsageError
from gms_rt.serve.accept import preferred_format
from gms_rt.serve.answer import FORMATS, JSON, NIFTI, AnswerParts, Rendered, options_for, render_answer
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.held import Held
from gms_rt.serve.http import read_body, request_seconds, wait_for_answer
from gms_rt.serve.intake import SentFile, Workspace, take_files
from gms_rt.serve.kept import keep_answer
from gms_rt.serve.model import ServedModel
from gms_rt.serve.multipart import parts_from_body
from gms_rt.serve.segment import Asked, SegmentJob
from gms_rt.serve.service import Service

_ALIASES = {"application/nifti": NIFTI, "application/gzip": NIFTI, "application/x-gzip": NIFTI}
_FLAGS = ("masks", "contours", "images")


def segment_files(
    service: Service, model: ServedModel, sent: list[SentFile], kind: str, parts: AnswerParts, deadline: Deadline,
    held: Held,
) -> Rendered:  # fmt: skip
    """Segment what was sent and render the answer, in the caller's thread: what the desk's threads do."""
    start = time.perf_counter()
    with Workspace(service.scratch) as workspace:
        taken = take_files(sent, workspace, service.limits, held)
        asked = Asked(options_for(kind, model.options, parts), parts.images and kind == JSON)
        job = SegmentJob(model, asked, deadline, service.limits, service.counters)
        job.spent.decode += time.perf_counter() - start
        found = job.run(taken, workspace)
        rendered = render_answer(kind, found, model, job.spent, parts, taken.skipped)
        if service.keep is not None:
            keep_answer(service.keep, found, rendered)
        return rendered


class SegmentApi:
    """The endpoint, with the service that it is a door to."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def segment(self, request: Request) -> Response:
        """Segment the body's scans."""
        service = self._service
        service.check_ready()
        model, parts = self._asked(request.query_params)
        accept = request.headers.get("accept")
        for alias, kind in _ALIASES.items():
            accept = accept.replace(alias, kind) if accept else accept
        kind = preferred_format(accept, FORMATS)
        seconds = request_seconds(request, service.limits)
        service.desk.check_room()
        with Held(service.bytes) as held:
            body = await read_body(request, service.limits, held)
            request.scope["gms_rt.read"] = True
            deadline = Deadline(seconds)
            sent = files_from_body(body, request.headers.get("content-type", ""), service.limits.max_files)
            work = service.take(lambda: segment_files(service, model, sent, kind, parts, deadline, held), deadline)
            rendered = await wait_for_answer(request, work, deadline)
        headers = dict(rendered.headers)
        if rendered.filename:
            headers["Content-Disposition"] = f'attachment; filename="{rendered.filename}"'
        return Response(rendered.body, 200, headers, rendered.kind)

    def _asked(self, query: Mapping[str, str]) -> tuple[ServedModel, AnswerParts]:
        unknown = next((key for key in query if key not in ("model", *_FLAGS)), None)
        if unknown is not None:
            raise UsageError("is not known", where=f"?{unknown[:40]}", fix=f"use model, {', '.join(_FLAGS)}")
        flags = {name: _flag(name, query[name]) for name in _FLAGS if name in query}
        return self._service.model(query.get("model")), AnswerParts(**flags)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in ("0", "1", "false", "true"):
        raise UsageError("is neither true nor false", where=f"?{name}")
    return text.lower() in ("1", "true")


def files_from_body(body: bytes, content_type: str, most: int) -> list[SentFile]:
    """The files of a body: itself, or those of a form."""
    if content_type.split(";")[0].strip().lower() not in ("multipart/form-data", "multipart/related"):
        return [SentFile(body, kind=content_type)]
    parts = parts_from_body(body, content_type, most)
    related = content_type.lower().startswith("multipart/related")
    files = [
        SentFile(part.data, part.filename or f"file-{number}", part.kind)
        for number, part in enumerate(parts, 1)
        if related or part.filename is not None
    ]
    if not files:
        raise UsageError("has no file", where="multipart body", fix="send one: curl -F file=@scan.png")
    return files
