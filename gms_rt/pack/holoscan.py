"""NVIDIA Holoscan: an application with its configuration, for InferenceOp. Made from the documented parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import Host, PackOptions, shared_values, template, write_template


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    (folder / "model.onnx").write_bytes(contents.onnx)
    values = shared_values(contents)
    for name in ("app.yaml", "app.py"):
        write_template(f"holoscan/{name}", folder / name, values)
    write_template("onnxruntime/client.py", folder / "client.py", values)
    return values | {"steps": template("holoscan/steps.md")}


HOST = Host("holoscan", "NVIDIA Holoscan", _write, tried=False, refused=("bf16",))
