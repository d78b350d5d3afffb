"""ONNX Runtime: the typed ONNX graph, a Python client and a C++ program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import Host, PackOptions, installed_version, shared_values, template, write_template


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    (folder / "model.onnx").write_bytes(contents.onnx)
    values = shared_values(contents) | {
        "onnxruntime": installed_version("onnxruntime", "1.22.0"),
    }
    for name in ("client.py", "segment.cpp", "CMakeLists.txt"):
        write_template(f"onnxruntime/{name}", folder / name, values)
    return values | {"steps": template("onnxruntime/steps.md")}


HOST = Host("onnxruntime", "ONNX Runtime", _write, tried=True, refused=("bf16",))
