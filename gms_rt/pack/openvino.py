"""OpenVINO: the model in its own form (IR), a Python client and a C++ program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import Host, PackOptions, installed_version, shared_values, template, write_template


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    contents.write_ir(folder / "model.xml")
    values = shared_values(contents) | {
        "openvino": installed_version("openvino", "2025.2.0"),
    }
    for name in ("client.py", "segment.cpp", "CMakeLists.txt"):
        write_template(f"openvino/{name}", folder / name, values)
    return values | {"steps": template("openvino/steps.md")}


HOST = Host("openvino", "OpenVINO", _write, tried=True)
