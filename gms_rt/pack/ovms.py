"""OpenVINO Model Server: IR with its configuration, for RGB bytes and for pictures that the server decodes itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_json
from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import Host, PackOptions, installed_version, shared_values, template, write_template
from gms_rt.telemetry import quiet_module


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    name, decoded = contents.name, f"{contents.name}-jpeg"
    contents.write_ir(folder / "models" / name / "1/model.xml")
    _write_bgr(folder / "models" / name / "1/model.xml", folder / "models" / decoded / "1/model.xml")
    write_json(folder / "models/config.json", server_config([name, decoded], contents.manifest.execution))
    values = shared_values(contents) | {
        "decoded": decoded,
        "release": ".".join(installed_version("openvino", "2025.2.0").split(".")[:2]),
    }
    write_template("ovms/client.py", folder / "client.py", values)
    return values | {"steps": template("ovms/steps.md")}


def server_config(names: list[str], execution: str) -> dict[str, Any]:
    """The server's `config.json`."""
    return {
        "model_config_list": [
            {
                "config": {
                    "name": name,
                    "base_path": f"/models/{name}",
                    "target_device": "CPU",
                    "layout": {"image": "NHWC"},
                    "plugin_config": {"INFERENCE_PRECISION_HINT": execution, "PERFORMANCE_HINT": "LATENCY"},
                }
            }
            for name in names
        ]
    }


def _write_bgr(model: Path, place: Path) -> None:
    """The same model with its colours taken in the other order: the server decodes JPEG and PNG as BGR."""
    openvino = quiet_module("openvino")
    steps = openvino.preprocess.PrePostProcessor(openvino.Core().read_model(str(model)))
    steps.input().tensor().set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NHWC"))
    steps.input().tensor().set_color_format(openvino.preprocess.ColorFormat.BGR)
    steps.input().preprocess().convert_color(openvino.preprocess.ColorFormat.RGB)
    place.parent.mkdir(parents=True)
    openvino.save_model(steps.build(), str(place), compress_to_fp16=False)


HOST = Host("ovms", "OpenVINO Model Server", _write, tried=False)
