"""The part of MONAI Label's REST interface that its 3D Slicer extension calls, so that Slicer works unmodified.

Slicer reads `/info/`, uploads a volume (to a session, or under a name to the datastore), asks `/infer/{model}` about it
and gets a label map as NIfTI. What is uploaded is held in memory for a while; with `--keep` submitted labels are kept.
There is no training and no active learning. With a token, Slicer's login takes any user name and the token as password.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gms_rt import __version__
from gms_rt.artifacts import write_bytes
from gms_rt.errors import GmsError, UsageError
from gms_rt.serve.answer import NIFTI, AnswerParts
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.held import Held
from gms_rt.serve.http import read_body, wait_for_answer
from gms_rt.serve.intake import SentFile
from gms_rt.serve.kept import kept_folder, kept_or_failed
from gms_rt.serve.model import ServedModel
from gms_rt.serve.multipart import Part, parts_from_body
from gms_rt.serve.refusals import UnauthorisedError, UnknownError
from gms_rt.serve.segment_api import segment_files
from gms_rt.serve.service import Service
from gms_rt.serve.shelf import Shelf, ShelfItem

_TOKEN_BODY = 4096  # bytes of a login
_SESSION = "session "  # before a session's name on the shelf; the datastore's names are the clients'
_IMAGE = "image "


def monai_error(error: BaseException, status: int, reason: str) -> dict[str, Any]:
    """An error as MONAI Label has it: one text."""
    return {"detail": error.line() if isinstance(error, GmsError) and status != 500 else "the service failed"}


class MonaiApi:
    """The endpoints, with what clients have uploaded."""

    def __init__(self, service: Service, token: str | None) -> None:
        self._service = service
        self._token = token
        self._shelf = Shelf(service.limits.shelf_bytes, service.limits.shelf_seconds)

    async def monai_info(self, request: Request) -> Response:
        """What the service is and can do."""
        models = {model.name: _model_info(model) for model in self._service.models.values()}
        labels = dict.fromkeys(label for info in models.values() for label in info["labels"])
        return JSONResponse(
            {
                "name": "gms-rt",
                "description": "Generative Medical Segmentation. Not for clinical use.",
                "version": __version__,
                "labels": list(labels),
                "models": models,
                "trainers": {},
                "strategies": {},
                "scoring": {},
                "train_stats": {},
                "datastore": self._statistics(),
            }
        )

    async def monai_auth(self, request: Request) -> Response:
        """Whether a login is needed."""
        return JSONResponse({"enabled": self._token is not None})

    async def monai_login(self, request: Request) -> Response:
        """A login whose password is the token."""
        limits = dataclasses.replace(self._service.limits, max_bytes=_TOKEN_BODY)  # anybody may try
        with Held(self._service.bytes) as held:
            form = parse_qs((await read_body(request, limits, held)).decode("utf-8", "replace"))
        request.scope["gms_rt.read"] = True
        given = form.get("password", [""])[0]
        if self._token is None or not hmac.compare_digest(given.encode(), self._token.encode()):
            raise UnauthorisedError("is not the token", where="password", fix="use the token as password")
        return JSONResponse({"access_token": self._token, "token_type": "bearer"})

    async def monai_valid(self, request: Request) -> Response:
        """Answers whoever comes this far: the token was right."""
        return JSONResponse({"valid": True})

    async def monai_infer(self, request: Request) -> Response:
        """The label map of a file in the request, of a session or of an image in the datastore."""
        service = self._service
        service.check_ready()
        model = service.model(request.path_params["model"])
        output = request.query_params.get("output", "all")
        if output not in ("all", "image", "json"):
            raise UsageError(f"is not given here: '{output[:40]}'", where="output", fix="ask for all, image or json")
        service.desk.check_room()
        with Held(service.bytes) as held:
            parts = await self._form(request, held)
            sent = [_sent(part) for part in parts if part.name == "file" and part.filename is not None]
            sent = sent or self._shelved(request.query_params).files
            deadline = Deadline(service.limits.timeout)
            work = service.take(
                lambda: segment_files(service, model, sent, NIFTI, AnswerParts(), deadline, held), deadline
            )
            rendered = await wait_for_answer(request, work, deadline)
        if output == "image":
            return Response(rendered.body, media_type=NIFTI)
        params = {"label_names": _label_names(model), "engine": model.identity, "notes": "Not for clinical use."}
        if output == "json":
            return JSONResponse(params)
        return _form_answer(json.dumps(params).encode(), rendered.body)

    async def monai_session(self, request: Request) -> Response:
        """Hold what is sent for this session."""
        parts = [part for part in await self._uploaded(request) if part.filename is not None]
        if not parts:
            raise UsageError("has no file", where="body")
        name = secrets.token_hex(16)
        self._shelf.put(_SESSION + name, [_sent(part) for part in parts])
        return JSONResponse({"session_id": name, "session_info": self._session_info(name)})

    async def monai_session_info(self, request: Request) -> Response:
        """Whether a session is still held."""
        return JSONResponse(self._session_info(request.path_params["name"]))

    async def monai_session_end(self, request: Request) -> Response:
        """Forget a session."""
        name = request.path_params["name"]
        info = self._session_info(name)
        self._shelf.remove(_SESSION + name)
        return JSONResponse(info)

    async def monai_datastore(self, request: Request) -> Response:
        """What is held, in numbers or in full."""
        output = request.query_params.get("output", "stats")
        if output == "train":
            return JSONResponse([])
        if output != "all":
            return JSONResponse(self._statistics())
        objects = {
            name.removeprefix(_IMAGE): {
                "image": {"ext": _ending(item.files[0].name), "info": {}},
                "labels": {tag: {"ext": _ending(label.name), "info": {}} for tag, label in item.labels.items()},
            }
            for name, item in self._shelf.items().items()
            if name.startswith(_IMAGE)
        }
        return JSONResponse({"name": "gms-rt", "description": "Held in memory, for a while", "objects": objects})

    async def monai_upload(self, request: Request) -> Response:
        """Hold an image under a name."""
        parts = [part for part in await self._uploaded(request) if part.name == "file"]
        name = request.query_params.get("image") or secrets.token_hex(8)
        if not parts:
            raise UsageError("has no file", where="body")
        self._shelf.put(_IMAGE + name, [_sent(parts[0])])
        return JSONResponse({"image": name})

    async def monai_image(self, request: Request) -> Response:
        """An image that was uploaded."""
        file = self._shelved(request.query_params).files[0]
        return _file_answer(file, f"image{_ending(file.name)}")

    async def monai_forget(self, request: Request) -> Response:
        """Forget an image."""
        self._shelf.remove(_IMAGE + request.query_params.get("id", ""))
        return JSONResponse({})

    async def monai_label(self, request: Request) -> Response:
        """A label that was submitted for an image."""
        query = request.query_params
        item = self._shelf.get(_IMAGE + query.get("label", ""))
        label = item.labels.get(query.get("tag", "final"))
        if label is None:
            raise UnknownError("there is no label of this tag", where="tag")
        return _file_answer(label, f"label{_ending(label.name)}")

    async def monai_submit(self, request: Request) -> Response:
        """Hold the label that a person has made of an image; with `--keep`, keep it."""
        query = request.query_params
        name, tag = query.get("image", ""), query.get("tag") or "final"
        parts = [part for part in await self._uploaded(request) if part.name == "label"]
        if not parts:
            raise UsageError("has no label", where="body")
        label = _sent(parts[0])
        self._shelf.get(_IMAGE + name)
        if self._service.keep is not None:
            place = kept_folder(self._service.keep) / f"label{_ending(label.name)}"
            with kept_or_failed():
                await asyncio.to_thread(write_bytes, place, label.data)
        self._shelf.add_label(_IMAGE + name, tag, label)
        return JSONResponse({"image": name, "label": name})

    async def _uploaded(self, request: Request) -> list[Part]:
        with Held(self._service.bytes) as held:
            return await self._form(request, held)

    async def _form(self, request: Request, held: Held) -> list[Part]:
        limits = self._service.limits
        body = await read_body(request, limits, held)
        request.scope["gms_rt.read"] = True
        return parts_from_body(body, request.headers.get("content-type", ""), limits.max_files)

    def _shelved(self, query: Mapping[str, str]) -> ShelfItem:
        if query.get("session_id"):
            return self._shelf.get(_SESSION + query["session_id"])
        return self._shelf.get(_IMAGE + query.get("image", ""))

    def _session_info(self, name: str) -> dict[str, Any]:
        item = self._shelf.get(_SESSION + name)
        return {"name": name, "files": len(item.files), "expiry": self._service.limits.shelf_seconds}

    def _statistics(self) -> dict[str, Any]:
        items = [item for name, item in self._shelf.items().items() if name.startswith(_IMAGE)]
        return {"total": len(items), "completed": sum("final" in item.labels for item in items), "label_tags": {}}


def _model_info(model: ServedModel) -> dict[str, Any]:
    return {
        "type": "segmentation",
        "labels": _label_names(model),
        "dimension": 3,  # volumes are taken; they are segmented slice by slice
        "description": f"{model.identity['engine']}, {model.identity['precision']}. Not for clinical use.",
        "config": {},
    }


def _label_names(model: ServedModel) -> dict[str, int]:
    return {each.name: value for value, each in enumerate(model.engine.manifest.segment_classes, 1)}


def _sent(part: Part) -> SentFile:
    return SentFile(part.data, part.filename or "scan", part.kind)


def _ending(name: str) -> str:
    """The ending of a name that a client gave, if it is one that we know."""
    return next((end for end in (".nii.gz", ".nii", ".dcm", ".png", ".jpg", ".zip") if name.lower().endswith(end)), "")


def _file_answer(file: SentFile, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(file.data, headers=headers, media_type="application/octet-stream")


def _form_answer(params: bytes, label: bytes) -> Response:
    mark = secrets.token_hex(16)
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\nContent-Type: %s\r\n\r\n'
    body = b"".join(
        [
            head % (mark.encode(), b"params", b"", b"application/json"),
            params,
            b"\r\n",
            head % (mark.encode(), b"image", b'; filename="label.nii.gz"', b"application/gzip"),
            label,
            b"\r\n--%s--\r\n" % mark.encode(),
        ]
    )
    return Response(body, media_type=f"multipart/form-data; boundary={mark}")
