"""KServe's Open Inference Protocol v2 over HTTP, with the binary-data extension: what Triton's clients speak.

A model has one input, `image` (uint8, N×H×W×3 RGB of any size), and two outputs: `mask` (uint8, N×H×W×1, 0 and 255 at
the image's size, the pixels that `gms-rt infer` writes) and `probability` (uint8, 0-255, likewise).
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gms_rt import __version__
from gms_rt.arrays import U8
from gms_rt.errors import GmsError, TooLargeError, UsageError
from gms_rt.scan import check_size
from gms_rt.scan.mask import levels_from_probability
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.held import Held
from gms_rt.serve.http import read_body, request_seconds, wait_for_answer
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.model import ServedModel
from gms_rt.serve.refusals import UnknownError
from gms_rt.serve.service import Service

_HEAD = "Inference-Header-Content-Length"
_VERSION = "1"
OUTPUTS = ("mask", "probability")
_JSON = 32 << 20  # bytes of a JSON part
_OBJECTS = 24  # bytes that Python makes of one byte of JSON at most: `[[],[],…`
_AXES = 3  # levels of lists in lists


@dataclass(frozen=True)
class _Wanted:
    """One output that was asked for."""

    name: str
    binary: bool


@dataclass(frozen=True)
class _Call:
    """A request that was understood."""

    images: U8
    outputs: tuple[_Wanted, ...]
    id: str
    seconds: float | None  # that the client waits


def v2_error(error: BaseException, status: int, reason: str) -> dict[str, Any]:
    """An error as the protocol has it: one text."""
    return {"error": error.line() if isinstance(error, GmsError) and status != 500 else "the service failed"}


class KServeApi:
    """The endpoints below `/v2`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def v2_server(self, request: Request) -> Response:
        """What server this is."""
        return JSONResponse({"name": "gms-rt", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def v2_live(self, request: Request) -> Response:
        """The process answers."""
        return JSONResponse({"live": True})

    async def v2_ready(self, request: Request) -> Response:
        """The golden pictures have passed, and requests are taken."""
        return self._readiness({"ready": True})

    def _readiness(self, value: dict[str, Any]) -> Response:
        reason = self._service.reason_not_ready()
        if reason:
            return JSONResponse({"ready": False, "reason": reason}, 503)
        return JSONResponse(value)

    async def v2_models(self, request: Request) -> Response:
        """The names of the models."""
        return JSONResponse({"models": list(self._service.models)})

    async def v2_index(self, request: Request) -> Response:
        """The models as Triton lists its repository."""
        reason = self._service.reason_not_ready()
        state = "UNAVAILABLE" if reason else "READY"
        names = self._service.models
        return JSONResponse([{"name": name, "version": _VERSION, "state": state, "reason": reason} for name in names])

    async def v2_model(self, request: Request) -> Response:
        """A model's inputs and outputs."""
        model = self._model(request)
        return JSONResponse(
            {
                "name": model.name,
                "versions": [_VERSION],
                "platform": f"gms-rt_{model.identity['backend']}",
                "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
                "outputs": [{"name": name, "datatype": "UINT8", "shape": [-1, -1, -1, 1]} for name in OUTPUTS],
                "parameters": {"engine": model.identity, "notes": "Not for clinical use."},
            }
        )

    async def v2_model_ready(self, request: Request) -> Response:
        """Whether a model can be asked."""
        return self._readiness({"name": self._model(request).name, "ready": True})

    async def v2_config(self, request: Request) -> Response:
        """A model's configuration, as Triton's clients ask for it."""
        model = self._model(request)
        return JSONResponse(
            {
                "name": model.name,
                "platform": f"gms-rt_{model.identity['backend']}",
                "backend": "gms-rt",
                "max_batch_size": 0,
                "input": [{"name": "image", "data_type": "TYPE_UINT8", "dims": [-1, -1, -1, 3]}],
                "output": [{"name": name, "data_type": "TYPE_UINT8", "dims": [-1, -1, -1, 1]} for name in OUTPUTS],
            }
        )

    async def v2_infer(self, request: Request) -> Response:
        """Images in, masks out."""
        service = self._service
        service.check_ready()
        model = self._model(request)
        seconds = request_seconds(request, service.limits)
        service.desk.check_room()
        with Held(service.bytes) as held:
            body = await read_body(request, service.limits, held)
            request.scope["gms_rt.read"] = True
            deadline = Deadline(seconds)
            head = request.headers.get(_HEAD)

            def work() -> tuple[bytes, int | None]:
                call = _call_from_body(body, head, service.limits, held)
                shorter = deadline if call.seconds is None else Deadline(min(call.seconds, deadline.left))
                found = masks_from_images(model, call.images, shorter, [wanted.name for wanted in call.outputs])
                for _ in range(len(call.images)):
                    service.counters.frames.labels(model.name, "ok").inc()
                return _body_from_outputs(model, call, found)

            content, split = await wait_for_answer(request, service.take(work, deadline), deadline)
        if split is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={_HEAD: str(split)}, media_type="application/octet-stream")

    def _model(self, request: Request) -> ServedModel:
        version = request.path_params.get("version", _VERSION)
        if version != _VERSION:
            raise UnknownError("there is no such version", where=version[:20], fix=f"ask for version {_VERSION}")
        return self._service.model(request.path_params["model"])


def masks_from_images(
    model: ServedModel, images: U8, deadline: Deadline, names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The outputs of N images of one size, each as `infer` makes it."""
    count, height, width = images.shape[:3]
    found = {name: np.empty((count, height, width, 1), np.uint8) for name in names}
    tickets = []
    predictor = model.predictor
    for place in range(count + model.ahead):
        if place < count:
            tickets.append(model.queue.submit(predictor.prepare(images[place]), deadline, wait=True))
        done = place - model.ahead
        if done < 0:
            continue
        restored = predictor.restore(tickets[done].map(), (height, width))
        if "mask" in found:
            found["mask"][done, ..., 0] = predictor.mask(restored)
        if "probability" in found:
            found["probability"][done, ..., 0] = levels_from_probability(restored)
    return found


def _call_from_body(body: bytes, head: str | None, limits: ServeLimits, held: Held) -> _Call:
    split = len(body)
    if head is not None:
        if not head.isascii() or not head.isdigit() or len(head) > 15 or int(head) > len(body):
            raise UsageError("is not the length of the JSON part", where=_HEAD)
        split = int(head)
    if split > _JSON:
        raise TooLargeError(
            f"has more than {_JSON >> 20} MiB of JSON", where="body", fix="send the image as binary data"
        )
    held.take(split * _OBJECTS)  # what Python may make of it, before it does
    try:
        value = json.loads(body[:split])
    except (ValueError, RecursionError) as error:
        raise UsageError(f"is not JSON ({type(error).__name__})", where="body") from error
    if not isinstance(value, dict):
        raise _wrong("is not a JSON object")
    inputs = value.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _wrong("has not exactly one input")
    if inputs[0].get("name") != "image":
        raise _wrong("has no input named image")
    parameters = _parameters(value)
    timeout = parameters.get("timeout")  # microseconds
    if timeout is not None and (type(timeout) is not int or not 0 < timeout < 10**12):
        raise _wrong("has a timeout that is not a number of microseconds")
    images, outputs = _image(inputs[0], body[split:], limits), _outputs(value, parameters)
    if images.size // 3 > _JSON // 4 and not all(wanted.binary for wanted in outputs):  # four bytes a value
        raise TooLargeError(f"asks for more than {_JSON >> 20} MiB of JSON", where="body", fix="ask for binary data")
    return _Call(
        images,
        outputs,
        str(value.get("id") or "")[:256],
        None if timeout is None else timeout / 1e6,
    )


def _image(value: dict[str, Any], binary: bytes, limits: ServeLimits) -> U8:
    shape = value.get("shape")
    if value.get("datatype") != "UINT8":
        raise _wrong("has an image that is not UINT8")
    if not isinstance(shape, list) or len(shape) != 4 or any(type(n) is not int or n < 1 for n in shape):
        raise _wrong("has an image whose shape is not N, height, width, 3")
    count, height, width, channels = shape
    if channels != 3:
        raise _wrong(f"has an image of {channels} channels, not 3 (RGB)")
    if count > limits.max_frames:
        raise TooLargeError(f"has {count} images, the limit is {limits.max_frames}", where="image")
    check_size(width, height, limits.max_pixels)
    size = count * height * width * channels
    stated = _parameters(value).get("binary_data_size")
    if stated is not None:
        if stated != len(binary) or size != len(binary):
            raise _wrong(f"has {len(binary)} bytes of an image of shape {shape}, which are {size}")
        return np.frombuffer(binary, np.uint8).reshape(shape)
    return np.frombuffer(_bytes_from_list(value.get("data"), size), np.uint8).reshape(shape)


def _bytes_from_list(data: Any, size: int) -> bytes:
    """The image as JSON has it: whole numbers of 0 to 255, in one list or in lists of lists."""
    if not isinstance(data, list):
        raise _wrong("has an image without data")
    for _ in range(_AXES):
        if not data or not isinstance(data[0], list):
            break
        if any(type(each) is not list for each in data):
            raise _wrong("has an image whose data are lists and numbers")
        data = list(itertools.chain.from_iterable(data))
    if len(data) == size and set(map(type, data)) == {int}:
        with contextlib.suppress(ValueError):  # below 0, above 255
            return bytes(data)
    raise _wrong(f"has an image whose data are not {size} whole numbers from 0 to 255")


def _outputs(value: dict[str, Any], parameters: dict[str, Any]) -> tuple[_Wanted, ...]:
    binary = bool(parameters.get("binary_data_output", False))
    asked = value.get("outputs")
    if asked is None:
        return (_Wanted("mask", binary),)
    if not isinstance(asked, list) or not asked or any(not isinstance(each, dict) for each in asked):
        raise _wrong("has outputs that are not a list of objects")
    found = []
    for each in asked:
        if not isinstance(each.get("name"), str) or each["name"] not in OUTPUTS:
            raise _wrong(f"asks for an output that is not {' or '.join(OUTPUTS)}")
        found.append(_Wanted(each["name"], bool(_parameters(each).get("binary_data", binary))))
    if len({wanted.name for wanted in found}) != len(found):
        raise _wrong("asks for an output twice")
    return tuple(found)


def _parameters(value: dict[str, Any]) -> dict[str, Any]:
    found = value.get("parameters", {})
    if not isinstance(found, dict):
        raise _wrong("has parameters that are not an object")
    return found


def _body_from_outputs(model: ServedModel, call: _Call, found: dict[str, NDArray[Any]]) -> tuple[bytes, int | None]:
    """The answer, and the length of its JSON part where binary data follow."""
    outputs, chunks = [], []
    for wanted in call.outputs:
        values = found[wanted.name]
        output: dict[str, Any] = {"name": wanted.name, "datatype": "UINT8", "shape": list(values.shape)}
        if wanted.binary:
            output["parameters"] = {"binary_data_size": values.nbytes}
            chunks.append(values.tobytes())
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    value = {"model_name": model.name, "model_version": _VERSION, "outputs": outputs}
    text = json.dumps(value | ({"id": call.id} if call.id else {})).encode()
    return b"".join([text, *chunks]), len(text) if chunks else None


def _wrong(what: str) -> UsageError:
    return UsageError(what, where="request", fix="see the model's metadata")
