"""The clients of model servers over the wire, against a stand-in that speaks KServe's protocol and runs the model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.packed_check import check

from gms_rt.runtime.signal_stack import cpu_core

pytest.importorskip("tritonclient.http")
NAME = "tiny-fp32"
# Each host's folder: where its model is, and what its client takes the address from.
MODELS = {
    "triton": (f"model_repository_openvino/{NAME}/1/model.xml", "TRITON_URL"),
    "ovms": (f"models/{NAME}/1/model.xml", "OVMS_URL"),
}


class _Handler(BaseHTTPRequestHandler):
    model: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""

    def do_POST(self) -> None:
        assert self.path == f"/v2/models/{NAME}/infer"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = int(self.headers["Inference-Header-Content-Length"])
        (entry,) = json.loads(body[:length])["inputs"]
        assert (entry["name"], entry["datatype"]) == ("image", "UINT8")
        image = np.frombuffer(body[length:], np.uint8).reshape(entry["shape"])
        mask = np.ascontiguousarray(self.model(image)[0])
        output = {"name": "mask", "datatype": "UINT8", "shape": list(mask.shape)}
        head = {"model_name": NAME, "outputs": [output | {"parameters": {"binary_data_size": mask.nbytes}}]}
        told = json.dumps(head).encode()
        self.send_response(200)
        self.send_header("Inference-Header-Content-Length", str(len(told)))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(told) + mask.nbytes))
        self.end_headers()
        self.wfile.write(told + mask.tobytes())


@pytest.fixture(params=MODELS)
def served(request: pytest.FixtureRequest, packed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host's folder, with its model served."""
    folder = packed / request.param
    place, variable = MODELS[request.param]
    core = cpu_core()
    model = core.compile_model(folder / place, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"model": staticmethod(model)}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv(variable, f"127.0.0.1:{server.server_address[1]}")
    yield folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_client_gives_what_the_server_answers(served: Path, monkeypatch: Any, capsys: Any) -> None:
    assert check(served, monkeypatch, "--exact") == 0
    assert "bytes: 12288 of 12288 equal to the engine's own" in capsys.readouterr().out
