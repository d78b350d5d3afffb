"""The job of `POST /v1/segment` in LitServe, for `benchmarks/serve.py`: a picture in, its mask as PNG out.

    python benchmarks/serve_litserve.py --engine engines/demo-fp16 --port 8100 --workers 1

Decoding, engine, resizing and PNG are the code of `gms-rt infer`, so the masks are the same bytes and what differs is
the server. LitServe takes and gives JSON here, with picture and mask in base64.
"""

from __future__ import annotations

import argparse
import base64
from pathlib import Path
from typing import Any

import litserve
from serve_infer import InferOne


class Segment(litserve.LitAPI):  # type: ignore[misc]
    """One worker: an engine of its own."""

    def __init__(self, engine: Path) -> None:
        super().__init__()
        self._folder = engine

    def setup(self, device: str) -> None:
        """Open the engine, as `gms-rt serve` does."""
        self._infer = InferOne(self._folder)

    def decode_request(self, request: dict[str, str], **more: Any) -> bytes:
        """The picture's bytes."""
        return base64.b64decode(request["image"])

    def predict(self, x: bytes, **more: Any) -> bytes:
        """The picture's mask."""
        return self._infer.mask(x)

    def encode_response(self, output: bytes, **more: Any) -> dict[str, str]:
        """The mask's bytes."""
        return {"mask": base64.b64encode(output).decode()}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    server = litserve.LitServer(
        Segment(arguments.engine), accelerator="cpu", workers_per_device=arguments.workers, timeout=60
    )
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main()
