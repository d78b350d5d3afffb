"""Quantisers that `benchmarks/precision.py` compares, this project's among them: each from a task to files in a folder.

Every one gets the same pictures: a sixth to take ranges from; those that look at what they cost (this project's search
and gate, NNCF's accuracy control) the rest to look at. And the runtimes that open the results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.graph.graph import INPUT
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.images import ImageSet
from gms_rt.telemetry import quiet_module

Images = np.ndarray
CONTROLLED = 50  # of the pictures: accuracy control asks for them again and again


@dataclass(frozen=True)
class Task:
    """What a system is given."""

    graph: Path  # with a batch of one
    calibration: Images
    validation: Images  # for systems that look at what they cost
    out: Path  # folder of the result


def ours(task: Task) -> None:
    """This project: `gms-rt build --precision int8 --calib`."""
    from gms_rt.engine.build import build_engine
    from gms_rt.engine.request import BuildRequest

    calibration = ImageSet(task.calibration, "calibration")
    request = BuildRequest(task.graph, task.out / "engine", "int8", ("cpu",), force=True)
    if len(task.validation) < 90:  # random weights: no mask to keep, one calibration and no search
        judges, gate = ImageSet(task.validation, "gate"), Gate(0.0, 0.0)
        request = replace(request, calibration=calibration, gate_images=judges, gate=gate, calibrator="minmax")
    else:  # dealt out so that `sixths` takes ranges from the calibration pictures
        parts = np.array_split(task.validation, 5)
        count = min(len(task.calibration), *map(len, parts))
        rows = [image for i in range(count) for image in (task.calibration[i], *(part[i] for part in parts))]
        request = replace(request, calibration=ImageSet(np.stack(rows), "calibration, search, gate"))
    build_engine(request)


def nncf_quantize(task: Task) -> None:
    """NNCF's `quantize` with its defaults."""
    _nncf(task)


def nncf_mixed(task: Task) -> None:
    """NNCF's `quantize` with its mixed preset: asymmetric activations."""
    nncf = quiet_module("nncf")
    _nncf(task, preset=nncf.QuantizationPreset.MIXED)


def nncf_accuracy_control(task: Task) -> None:
    """NNCF's `quantize_with_accuracy_control`: layers go back until the mean Dice drops by no more than 0.007."""
    nncf, openvino = quiet_module("nncf"), quiet_module("openvino")
    checked = task.validation[:: -(-len(task.validation) // CONTROLLED)]
    reference = Session(read_graph(task.graph)).probabilities(checked)

    def mean_dice(model: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        rows = list(items)
        masks = np.stack([np.asarray(model({INPUT: rows[i][None]})[0])[0, :, :, 0] for i in range(len(rows))])
        numbers = [next(i for i, v in enumerate(checked) if np.array_equal(v, row)) for row in rows]
        dice = judge(masks, reference[numbers], Gate()).dice
        return float(dice.mean()), [float(value) for value in dice]

    made = nncf.quantize_with_accuracy_control(
        openvino.Core().read_model(task.graph),
        nncf.Dataset(list(task.calibration), lambda image: {INPUT: image[None]}),
        nncf.Dataset(list(checked)),
        mean_dice,
        max_drop=0.007,
        subset_size=len(task.calibration),
    )
    openvino.save_model(made, task.out / "model.xml", compress_to_fp16=False)


def _nncf(task: Task, **options: Any) -> None:
    nncf, openvino = quiet_module("nncf"), quiet_module("openvino")
    data = nncf.Dataset(list(task.calibration), lambda image: {INPUT: image[None]})
    made = nncf.quantize(openvino.Core().read_model(task.graph), data, subset_size=len(task.calibration), **options)
    openvino.save_model(made, task.out / "model.xml", compress_to_fp16=False)


def ort_default(task: Task) -> None:
    """ONNX Runtime's `quantize_static`, Q/DQ, weights per channel, every kind of node that it quantises."""
    _ort(task)


def ort_convolutions(task: Task) -> None:
    """ONNX Runtime's `quantize_static`, Q/DQ, weights per channel, convolutions only."""
    _ort(task, op_types_to_quantize=["Conv", "ConvTranspose"])


def _ort(task: Task, **options: Any) -> None:
    quiet_module("onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(task.calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.rest, None)
            return None if image is None else {INPUT: image[None]}

    prepared = task.out / "prepared.onnx"
    quant_pre_process(str(task.graph), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(task.out / "model.onnx"), Reader(), per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, **options,
    )  # fmt: skip


def modelopt(task: Task) -> None:
    """NVIDIA ModelOpt's ONNX quantiser (max), its calibration on the CPU, the rest FP32."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(task.graph), quantize_mode="int8", calibration_data={INPUT: task.calibration}, calibration_method="max",
        calibration_eps=["cpu"], calibration_shapes=f"{INPUT}:{'x'.join(map(str, task.calibration[:1].shape))}",
        high_precision_dtype="fp32", output_path=str(task.out / "model.onnx"),
    )  # fmt: skip


SYSTEMS: dict[str, Callable[[Task], None]] = {
    "gms-rt": ours,
    "nncf quantize": nncf_quantize,
    "nncf quantize, mixed": nncf_mixed,
    "onnxruntime": ort_default,
    "onnxruntime, convolutions only": ort_convolutions,
    "modelopt": modelopt,
    "nncf with accuracy control": nncf_accuracy_control,  # the longest, by far
}


class OnnxRuntime:
    """A graph in ONNX Runtime, asked as `Session` is."""

    def __init__(self, path: Path) -> None:
        self._session = quiet_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def probabilities(self, images: Images) -> Images:
        """The graph's answer to N images."""
        return np.stack([self._session.run(None, {INPUT: image[None]})[0][0, :, :, 0] for image in images])


class OpenVino:
    """A model file in OpenVINO, with no option but the arithmetic."""

    def __init__(self, path: Path, execution: str = "f32") -> None:
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": execution, "ENABLE_CPU_PINNING": False}
        core, constants = quiet_module("openvino").Core(), path.with_name(f"{path.name}.bin")  # of our own engines
        model = core.read_model(path, constants) if constants.is_file() else path
        self._request = core.compile_model(model, "CPU", config).create_infer_request()

    def probabilities(self, images: Images) -> Images:
        """The graph's answer to N images."""
        found = np.empty(images.shape[:3], np.uint8)
        for number, image in enumerate(images):
            self._request.infer({INPUT: image[None]})
            found[number] = self._request.get_output_tensor(0).data[0, :, :, 0]
        return found


def opened(system: str, out: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What a system made, ready to run, by row of the table; and rows that a runtime refuses, with the reason."""
    folder = out / "engine"
    if folder.is_dir():
        manifest = json.loads((folder / "engine.json").read_text())
        ways = dict.fromkeys(["f32", manifest["execution"]])
        return {f"{system}, i8+{way}": OpenVino(folder / manifest["model"], way) for way in ways}, {}
    if (out / "model.xml").is_file():
        return {f"{system}, in OpenVINO": OpenVino(out / "model.xml")}, {}
    found: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for runtime, kind in (("ONNX Runtime", OnnxRuntime), ("OpenVINO", OpenVino)):
        row = f"{system}, in {runtime}"
        try:
            found[row] = kind(out / "model.onnx")
        except Exception as error:  # what a runtime refuses is a result too
            refused[row] = f"cannot be opened: {reason(error)}"
    return found, refused


def reason(error: BaseException) -> str:
    """The telling line of an error, short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return without_folders(lines[-1] if lines else type(error).__name__)[:160]


def without_folders(text: str) -> str:
    """A message as others may read it: where this machine keeps its files is nobody's business.

    >>> without_folders("Load model from /home/me/w/model.onnx failed: lmm/conv")
    'Load model from model.onnx failed: lmm/conv'
    """
    return re.sub(r"(?<![\w/])(?:/[\w.+-]+)+/", "", text)
