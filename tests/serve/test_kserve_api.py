"""KServe v2: Triton's own client, unmodified, and what the protocol says of wrong requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from support.serve_server import Running, picture, png, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("kserve") / "brightness") as found:
        yield found


def mask_by_segment(server: Running, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What `/v1/segment` answers, which test_segment_api compares with `infer`'s files."""
    body = server.segment(png(image), Accept="image/png").body
    return cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)


def infer(server: Running, value: dict[str, Any], binary: bytes = b"", **headers: str) -> Any:
    text = json.dumps(value).encode()
    more = {"Inference-Header-Content-Length": str(len(text))} if binary else {}
    return server.ask("POST", "/v2/models/brightness/infer", text + binary, **more, **headers)


def tensor(image: np.ndarray[Any, Any], **changes: Any) -> dict[str, Any]:
    value = {"name": "image", "datatype": "UINT8", "shape": list(image.shape), "data": image.ravel().tolist()}
    return {"inputs": [value | changes]}


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_works_unmodified(server: Running, binary: bool) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    images = np.stack([picture(1), picture(2)])
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("brightness")
        assert client.get_server_metadata()["name"] == "gms-rt"
        assert client.get_model_metadata("brightness")["inputs"][0]["shape"] == [-1, -1, -1, 3]
        assert client.get_model_config("brightness")["max_batch_size"] == 0
        assert client.get_model_repository_index()[0]["state"] == "READY"
        sent = triton.InferInput("image", images.shape, "UINT8")
        sent.set_data_from_numpy(images, binary_data=binary)
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("mask", "probability")]
        result = client.infer("brightness", [sent], outputs=wanted, request_id="7")
        plain = client.infer("brightness", [sent])
    masks = result.as_numpy("mask")
    assert result.get_response()["id"] == "7"
    assert (masks.shape, masks.dtype) == ((2, 90, 120, 1), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        assert np.array_equal(mask[..., 0], mask_by_segment(server, image))
    assert np.array_equal(masks == 255, result.as_numpy("probability") >= 128)
    assert np.array_equal(plain.as_numpy("mask"), masks)


def test_json_without_a_client(server: Running) -> None:
    image = picture(5, 30, 40)
    answer = infer(server, tensor(image[None])).json()
    (output,) = answer["outputs"]
    assert (answer["model_name"], output["name"], output["shape"]) == ("brightness", "mask", [1, 30, 40, 1])
    assert np.array_equal(np.reshape(output["data"], (30, 40)), mask_by_segment(server, image))


def test_the_models_are_listed(server: Running) -> None:
    assert server.ask("GET", "/v2/models").json() == {"models": ["brightness"]}
    assert server.ask("GET", "/v2/models/brightness/versions/1").json()["versions"] == ["1"]
    assert server.ask("GET", "/v2/models/brightness/versions/2").status == 404
    assert server.ask("GET", "/v2/models/other").status == 404


IMAGE = np.zeros((1, 4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({}, 400),
        ({"inputs": []}, 400),
        ({"inputs": [None]}, 400),
        (tensor(IMAGE, name="other"), 400),
        (tensor(IMAGE, datatype="FP32"), 400),
        (tensor(IMAGE, shape=[1, 4, 5]), 400),
        (tensor(IMAGE, shape=[1, 4, 5, 1]), 400),
        (tensor(IMAGE, shape=[1, 4, True, 3]), 400),
        (tensor(IMAGE, shape=[1, -4, -5, 3]), 400),
        (tensor(IMAGE, data=[1, 2]), 400),
        (tensor(IMAGE, data=[256] * 60), 400),
        (tensor(IMAGE, data=["x"] * 60), 400),
        (tensor(IMAGE, data=[[1], [2, 3]]), 400),
        (tensor(IMAGE, parameters={"binary_data_size": 60}), 400),
        (tensor(IMAGE, parameters=7), 400),
        (tensor(IMAGE, shape=[1, 60000, 60000, 3]), 413),
        (tensor(IMAGE, shape=[10**6, 4, 5, 3]), 413),
        (tensor(IMAGE) | {"outputs": [{"name": "other"}]}, 400),
        (tensor(IMAGE) | {"outputs": [{"name": "mask"}, {"name": "mask"}]}, 400),
        (tensor(IMAGE) | {"parameters": {"timeout": "x"}}, 400),
        (tensor(IMAGE) | {"parameters": {"timeout": 1}}, 504),
    ],
)
def test_wrong_requests_are_told_so(server: Running, value: dict[str, Any], status: int) -> None:
    answer = infer(server, value)
    assert answer.status == status, answer.body
    assert isinstance(answer.json()["error"], str)


def test_bytes_that_are_no_request(server: Running) -> None:
    path = "/v2/models/brightness/infer"
    for body, headers in (
        (b"", {}),
        (b"\xff\xfe", {}),
        (b"[" * 100_000, {}),
        (b"{}", {"Inference-Header-Content-Length": "99"}),
        (b"{}", {"Inference-Header-Content-Length": "-1"}),
    ):
        assert server.ask("POST", path, body, **headers).status == 400
