"""DICOMweb: a study comes in by STOW-RS, its masks go out as DICOM SEG, in the answer or by WADO-RS and QIDO-RS.

The images that are sent are segmented and forgotten. The answer says of each whether it was; with `Accept:
multipart/related; type="application/dicom"` it is the SEG objects themselves. With `--keep` the objects, and nothing
else, are kept, searched for and retrieved below `/dicom-web/studies`.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gms_rt.errors import UsageError
from gms_rt.serve.accept import preferred_format
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.dicom_query import search_store
from gms_rt.serve.dicom_store import DicomStore
from gms_rt.serve.dicom_study import MadeObject, Receipt, StudyResult, check_seg, is_uid, segment_study
from gms_rt.serve.held import Held
from gms_rt.serve.http import read_body, request_seconds, wait_for_answer
from gms_rt.serve.intake import DICOM_KIND
from gms_rt.serve.model import ServedModel
from gms_rt.serve.multipart import parts_from_body
from gms_rt.serve.refusals import NotAcceptableError, UnknownError, UnsupportedError
from gms_rt.serve.service import Service

ROOT = "/dicom-web"
DICOM_JSON, RELATED = "application/dicom+json", "multipart/related"
_PRIVATE = "GMS_RT"  # the creator of the private elements of an answer
_SYNTAX = "1.2.840.10008.1.2.1"  # of all that is made here
_RANGE = re.compile(r'(?:[^,"]|"[^"]*")+')
_PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^;\s]*))')


class DicomWebApi:
    """The endpoints, with the store that `--keep` makes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._store = None if service.keep is None else DicomStore(service.keep)

    async def dicomweb_store(self, request: Request) -> Response:
        """Segment the instances of the body."""
        service = self._service
        service.check_ready()
        check_seg()
        model = service.model(request.query_params.get("model"))
        study = _place(request).get("study")
        kind = _acceptable(request, (DICOM_JSON, "application/json", RELATED))
        seconds = request_seconds(request, service.limits)
        _check_content(request)
        service.desk.check_room()
        with Held(service.bytes) as held:
            body = await read_body(request, service.limits, held)
            request.scope["gms_rt.read"] = True
            deadline = Deadline(seconds)
            sent = _instances(body, request.headers.get("content-type", ""), service.limits.max_files)
            work = service.take(lambda: self._segment(model, sent, study, deadline, held), deadline)
            result = await wait_for_answer(request, work, deadline)
        failed = sum(receipt.reason != 0 for receipt in result.receipts)
        status = 200 if not failed else 409 if failed == len(result.receipts) else 202
        if kind == RELATED and result.objects:
            mark = secrets.token_hex(16)
            parts = b"".join(_part_head(mark) + each.data + b"\r\n" for each in result.objects)
            headers = {"X-Failed-Instances": str(failed), "X-Not-For-Clinical-Use": "1"}
            return Response(parts + f"--{mark}--\r\n".encode(), status, headers, _related(mark))
        value = stow_answer(result, None if self._store is None else _base(request))
        return _json(value, status, "application/json" if kind == "application/json" else DICOM_JSON)

    async def dicomweb_search(self, request: Request) -> Response:
        """QIDO-RS at the level that the address ends with."""
        store, place = self._kept(), _place(request)
        kind = _acceptable(request, (DICOM_JSON, "application/json"))
        level = request.url.path.rpartition("/")[2]
        pairs = request.query_params.multi_items()
        study, series = place.get("study"), place.get("series")
        found = await asyncio.to_thread(search_store, store, level, pairs, study, series)
        base = _base(request)
        for each in found:
            path = f"{base}/studies/{_first(each, '0020000D')}"
            for name, tag in (("series", "0020000E"), ("instances", "00080018")):
                path += f"/{name}/{_first(each, tag)}" if tag in each else ""
            each["00081190"] = {"vr": "UR", "Value": [path]}
        return _json(found, 200, kind)

    async def dicomweb_retrieve(self, request: Request) -> Response:
        """WADO-RS: the objects of a study or series, or one of them."""
        paths = self._found(request)
        one = "instance" in request.path_params
        kind = _acceptable(request, (RELATED, DICOM_KIND) if one else (RELATED,))
        if kind == DICOM_KIND:
            return Response(await asyncio.to_thread(paths[0].read_bytes), 200, {}, DICOM_KIND)
        mark = secrets.token_hex(16)
        return StreamingResponse(_parts(paths, mark), 200, {}, _related(mark))

    async def dicomweb_metadata(self, request: Request) -> Response:
        """WADO-RS: all attributes of the objects but their pixels."""
        paths, store = self._found(request), self._kept()
        kind = _acceptable(request, (DICOM_JSON, "application/json"))

        def headers() -> bytes:
            found = [header for header in map(store.header, paths) if header is not None]
            return json.dumps([header.to_json_dict(suppress_invalid_tags=True) for header in found]).encode()

        return Response(await asyncio.to_thread(headers), 200, {}, kind)

    def _segment(
        self, model: ServedModel, sent: Sequence[bytes], study: str | None, deadline: Deadline, held: Held
    ) -> StudyResult:
        result = segment_study(self._service, model, sent, study, deadline, held)
        if self._store is None:
            return result
        kept = [MadeObject(made.name, self._store.put(made)) for made in result.objects]
        return StudyResult(result.receipts, kept)

    def _kept(self) -> DicomStore:
        if self._store is None:
            raise UnknownError("nothing is kept here", fix="start the service with --keep DIR")
        return self._store

    def _found(self, request: Request) -> list[Path]:
        place = _place(request)
        paths = self._kept().paths(place.get("study"), place.get("series"), place.get("instance"))
        if not paths:
            raise UnknownError("nothing is kept under this address")
        return paths


def stow_answer(result: StudyResult, base: str | None) -> dict[str, Any]:
    """The answer to STOW-RS as DICOM JSON (PS3.18, I.2). `base` is the address of what is kept."""
    answer: dict[str, Any] = {}
    studies = {made.name.study for made in result.objects}
    address = [f"{base}/studies/{studies.pop()}"] if base and len(studies) == 1 else []
    answer["00081190"] = _element("UR", address)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    other: list[dict[str, Any]] = []
    for receipt in result.receipts:
        (done if not receipt.reason else failed if receipt.name.instance else other).append(_receipt(receipt))
    for tag, items in (("00081198", failed), ("00081199", done), ("0008119A", other)):
        if items:
            answer[tag] = _element("SQ", items)
    if result.objects:
        answer["00710010"] = _element("LO", [_PRIVATE])
        answer["00711002"] = _element("SQ", [_made(made, base) for made in result.objects])
    return answer


def _receipt(receipt: Receipt) -> dict[str, Any]:
    item: dict[str, Any] = {}
    if receipt.name.instance:
        item["00081150"] = _element("UI", [receipt.name.sop_class] if receipt.name.sop_class else [])
        item["00081155"] = _element("UI", [receipt.name.instance])
    if receipt.reason:
        item["00081197"] = _element("US", [receipt.reason])
        item["00710010"] = _element("LO", [_PRIVATE])
        item["00711001"] = _element("UT", [receipt.words])
    return item


def _made(made: MadeObject, base: str | None) -> dict[str, Any]:
    name = made.name
    address = f"{base}/studies/{name.study}/series/{name.series}/instances/{name.instance}"
    return {
        "00081150": _element("UI", [name.sop_class]),
        "00081155": _element("UI", [name.instance]),
        "00081190": _element("UR", [address] if base else []),
        "0020000D": _element("UI", [name.study]),
        "0020000E": _element("UI", [name.series]),
    }


def _element(kind: str, values: list[Any]) -> dict[str, Any]:
    return {"vr": kind, "Value": values} if values else {"vr": kind}


def _first(value: dict[str, Any], tag: str) -> str:
    return str(value[tag]["Value"][0])


def _json(value: Any, status: int, kind: str) -> Response:
    return Response(json.dumps(value, ensure_ascii=False).encode(), status, {}, kind)


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/") + ROOT


def _place(request: Request) -> dict[str, str]:
    """The identifiers in an address."""
    for name, value in request.path_params.items():
        if not is_uid(value):
            raise UsageError("is not a DICOM identifier", where=name)
    return dict(request.path_params)


def _said(text: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters."""
    kind = text.partition(";")[0].strip().lower()
    return kind, {key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(text)}


def _check_content(request: Request) -> None:
    kind, said = _said(request.headers.get("content-type", ""))
    if kind == DICOM_KIND or (kind == RELATED and said.get("type", DICOM_KIND).lower() == DICOM_KIND):
        return
    raise UnsupportedError(
        "is not of the kind that STOW-RS takes", where="Content-Type", fix=f'send {RELATED}; type="{DICOM_KIND}"'
    )


def _instances(body: bytes, content_type: str, most: int) -> list[bytes]:
    if _said(content_type)[0] == DICOM_KIND:
        return [body]
    parts = parts_from_body(body, content_type, most)
    if not parts:
        raise UsageError("has no parts", where="multipart body")
    for part in parts:
        if part.kind and _said(part.kind)[0] != DICOM_KIND:
            raise UnsupportedError("has a part that is not application/dicom", where="multipart body")
    return [part.data for part in parts]


def _acceptable(request: Request, ours: Sequence[str]) -> str:
    """The format that a client prefers. Of multipart/related and DICOM, only what is made here will do."""
    accept = request.headers.get("accept")
    if not accept:
        return ours[0]
    wanted = []
    for text in _RANGE.findall(accept)[:64]:
        kind, said = _said(text)
        right = said.get("type", DICOM_KIND).lower() == DICOM_KIND
        syntax = said.get("transfer-syntax", "*") in ("*", _SYNTAX)
        if kind not in (RELATED, DICOM_KIND) or (right and syntax):
            wanted.append(f"{kind};q={said.get('q', '1')}")
    if not wanted:
        raise NotAcceptableError(
            "no answer in a format that the client accepts", fix=f"ask for {', '.join(ours)}, transfer syntax {_SYNTAX}"
        )
    return preferred_format(",".join(wanted), ours)


def _related(mark: str) -> str:
    return f'{RELATED}; type="{DICOM_KIND}"; boundary={mark}'


def _part_head(mark: str) -> bytes:
    return f"--{mark}\r\nContent-Type: {DICOM_KIND}; transfer-syntax={_SYNTAX}\r\n\r\n".encode()


async def _parts(paths: Sequence[Path], mark: str) -> AsyncIterator[bytes]:
    """One object at a time, so that a large study needs no more memory than its largest object."""
    for path in paths:
        yield _part_head(mark)
        yield await asyncio.to_thread(path.read_bytes)
        yield b"\r\n"
    yield f"--{mark}--\r\n".encode()
