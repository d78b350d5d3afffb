"""NVIDIA DeepStream: Gst-nvinferserver's configuration and a Triton model repository. From the documented schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import Host, PackOptions, shared_values, template, write_template
from gms_rt.pack.triton import TritonVariant, container, write_served_model


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    plan = next(iter(contents.plans("tensorrt")), None)
    backend = "tensorrt" if plan is not None else "onnxruntime"
    variant = TritonVariant(backend, backend, "KIND_GPU", container(plan) if plan is not None else "")
    write_served_model(contents, folder / "model_repository" / contents.name, variant, plan, 0)
    values = shared_values(contents) | {
        "model": f"a plan of TensorRT {plan.version}" if plan is not None else "the ONNX graph, for ONNX Runtime",
    }
    write_template("deepstream/nvinferserver.txt", folder / "nvinferserver.txt", values)
    write_template("triton/client.py", folder / "client.py", values)
    return values | {"steps": template("deepstream/steps.md")}


HOST = Host("deepstream", "NVIDIA DeepStream", _write, tried=False, refused=("bf16",))
