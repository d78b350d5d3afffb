"""NVIDIA Triton Inference Server: a model repository for each backend that can run the engine.

    model_repository_openvino/NAME     OpenVINO backend, on a CPU
    model_repository_onnxruntime/NAME  ONNX Runtime backend, on a CPU or GPU
    model_repository_tensorrt/NAME     TensorRT backend, for each plan of full TensorRT

A plan runs only in the TensorRT that built it, so the README names the release of the container that has that one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gms_rt.engine.manifest import Plan, read_verified
from gms_rt.pack.contents import EngineContents
from gms_rt.pack.host import Host, PackOptions, fill_template, shared_values, template, write_template

# The newest release of the container with each TensorRT, by NVIDIA's support matrix.
CONTAINERS = {
    "10.0": "24.05",
    "10.1": "24.06",
    "10.2": "24.07",
    "10.3": "24.08",
    "10.4": "24.09",
    "10.5": "24.10",
    "10.6": "24.11",
    "10.7": "24.12",
    "10.8": "25.02",
    "10.9": "25.04",
    "10.10": "25.05",
    "10.11": "25.06",
    "10.13": "25.10",
    "10.14": "25.12",
}
_NEWEST = "26.07"  # for what does not depend on TensorRT
_WARMUPS = 2  # golden pictures that warm a model up


@dataclass(frozen=True)
class TritonVariant:
    """One model repository."""

    kind: str  # of its folder
    backend: str
    group: str  # KIND_CPU, KIND_GPU or KIND_AUTO
    container: str

    @property
    def plan(self) -> bool:
        """Whether it holds a plan."""
        return self.backend == "tensorrt"


def _write(contents: EngineContents, folder: Path, options: PackOptions) -> Mapping[str, str]:
    variants = [TritonVariant("openvino", "openvino", "KIND_CPU", _NEWEST)]
    if contents.manifest.precision != "bf16":
        variants.append(TritonVariant("onnxruntime", "onnxruntime", "KIND_AUTO", _NEWEST))
    plans = contents.plans("tensorrt")
    for each in plans:
        kind = "tensorrt" if len(plans) == 1 else f"tensorrt_sm{each.sm}"
        variants.append(TritonVariant(kind, "tensorrt", "KIND_GPU", container(each)))
    for variant in variants:
        plan = plans[[v.kind for v in variants if v.plan].index(variant.kind)] if variant.plan else None
        opened = contents.any_batch and plan is None
        place = folder / f"model_repository_{variant.kind}" / contents.name
        write_served_model(contents, place, variant, plan, (options.batch or 8) if opened else 0)
    values = shared_values(contents)
    write_template("triton/client.py", folder / "client.py", values)
    rows = [fill_template(template("triton/run.md"), values | vars(variant)) for variant in variants]
    return values | {"steps": template("triton/steps.md"), "rows": "\n".join(rows), "plans": _plans_text(contents)}


def write_served_model(
    contents: EngineContents, model: Path, variant: TritonVariant, plan: Plan | None, batch: int
) -> None:
    """A model's folder in a repository: the model, `config.pbtxt`, labels, pictures that warm it up."""
    (model / "1").mkdir(parents=True)
    if plan is not None:
        (model / "1/model.plan").write_bytes(read_verified(contents.folder, contents.manifest, plan.file))
    elif variant.backend == "openvino":
        contents.write_ir(model / "1/model.xml")
    else:
        (model / "1/model.onnx").write_bytes(contents.onnx)
    _write_warmup(contents, model / "warmup")
    (model / "labels.txt").write_text("".join(f"{label}\n" for label in contents.labels), encoding="utf-8")
    text = config_text(contents, variant.backend, variant.group, batch)
    (model / "config.pbtxt").write_text(text, encoding="utf-8")


def container(plan: Plan) -> str:
    """The release of Triton's container that has the TensorRT of a plan; XX.YY where we do not know it."""
    found = re.match(r"\d+\.\d+", plan.version)
    return CONTAINERS.get(found[0], "XX.YY") if found else "XX.YY"


def config_text(contents: EngineContents, backend: str, group: str, batch: int) -> str:
    """`config.pbtxt`; `batch` is what the server may join, 0 where the model's own batch is fixed."""
    manifest = contents.manifest
    shape = [manifest.height, manifest.width]
    before = [] if batch else [contents.batch]
    values = {
        "name": contents.name,
        "backend": backend,
        "max_batch_size": str(batch),
        "image": _dims([*before, *shape, 3]),
        "mask": _dims([*before, *shape, 1]),
        "group": group,
        "batching": "\ndynamic_batching { max_queue_delay_microseconds: 500 }" if batch else "",
        "parameters": "\n".join(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
            for key, value in contents.identity.items()
        ),
        "warmups": "\n".join(
            fill_template(
                template("triton/warmup.pbtxt"), {"number": str(number), "image": _dims([*before, *shape, 3])}
            ).rstrip()
            for number in range(min(_WARMUPS, len(contents.golden.images)))
        ),
    }
    return fill_template(template("triton/config.pbtxt"), values)


def _write_warmup(contents: EngineContents, folder: Path) -> None:
    folder.mkdir()
    for number, image in enumerate(contents.golden.images[:_WARMUPS]):
        (folder / f"golden{number}").write_bytes(image.tobytes() * (1 if contents.any_batch else contents.batch))


def _dims(values: list[int]) -> str:
    return f"[ {', '.join(map(str, values))} ]"


def _quoted(text: str) -> str:
    plain = "".join(c if c.isprintable() else " " for c in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plans_text(contents: EngineContents) -> str:
    plans = contents.plans("tensorrt")
    lines = [
        f"- the plan for compute capability {plan.sm / 10:.1f} was built by TensorRT {plan.version}"
        f"{f' on {plan.device}' if plan.device else ''}: "
        + (
            f"container {container(plan)}, or another with that very TensorRT (`dpkg -l | grep nvinfer` in it tells)"
            if container(plan) != "XX.YY"
            else "take the release whose TensorRT is that one in NVIDIA's support matrix"
        )
        for plan in plans
    ]
    if contents.plans("tensorrt-rtx"):
        lines.append("- its plans of TensorRT for RTX are left out: Triton's backend is full TensorRT")
    if not plans:
        lines.append("- it has no plan of full TensorRT: build one on the GPU with `gms-rt build --target tensorrt`")
    return "\n".join(lines)


HOST = Host("triton", "NVIDIA Triton", _write, tried=False)
