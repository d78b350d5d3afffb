"""What a model answers as it came: its own file in OpenVINO or ONNX Runtime in FP32, pixel arithmetic in numpy.

This is the reference that is stored with an adopted graph. It shares no code with the wrapping, so that comparing the
two shows whether the wrapping is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from gms_rt.adopt.foreign import ForeignModel
from gms_rt.adopt.options import GREY, RUNTIMES, AdoptOptions
from gms_rt.adopt.wrap import SMALLEST_DEVIATION, foreground_channels
from gms_rt.arrays import F32, U8
from gms_rt.errors import GmsError, MissingExtraError, UsageError, reason_from_error
from gms_rt.runtime.signal_stack import cpu_core
from gms_rt.scan.mask import levels_from_probability
from gms_rt.telemetry import quiet_module

Run = Callable[[Any], F32]  # the model's input to its output


class OriginalModel:
    """A model as it came, opened in a runtime; call `levels`."""

    def __init__(self, foreign: ForeignModel, options: AdoptOptions, runtime: str = "openvino") -> None:
        if runtime not in RUNTIMES:
            raise UsageError(f"unknown runtime '{runtime}'", where="--runtime", fix=f"use {' or '.join(RUNTIMES)}")
        self._foreign, self._options = foreign, options
        self._half = foreign.original.graph.input[0].type.tensor_type.elem_type != 1
        opened = _open_openvino if runtime == "openvino" else _open_onnxruntime
        self._run, self.runtime = opened(foreign.original.SerializeToString())

    def levels(self, images: U8) -> U8:
        """Levels of 0 to 255 for N pictures of the model's size."""
        count = self._options.batch
        found = []
        for start in range(0, len(images), count):
            block = images[start : start + count]
            filled = np.concatenate([block, np.repeat(block[-1:], count - len(block), axis=0)])
            output = self._run(self._input(filled))
            found += [levels_from_probability(self._probability(output[place])) for place in range(len(block))]
        return np.stack(found)

    def _input(self, images: U8) -> Any:
        options = self._options
        x: Any = images.astype(np.float32)
        if self._foreign.channels == 1:
            x = x @ np.asarray(GREY, np.float32)[:, None]
        elif options.colour == "bgr":
            x = x[..., ::-1]
        x = x / np.float32(options.scale)
        if options.z_score:
            x = x - x.mean(axis=(1, 2), keepdims=True)
            x = x / np.maximum(np.sqrt(np.square(x).mean(axis=(1, 2), keepdims=True)), np.float32(SMALLEST_DEVIATION))
        else:
            x = (x - np.asarray(options.mean, np.float32)) / np.asarray(options.std, np.float32)
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self._foreign.nchw else x)
        return x.astype(np.float16) if self._half else x

    def _probability(self, output: F32) -> F32:
        """Of one picture's output: C×H×W, H×W×C or H×W."""
        options, (height, width) = self._options, (self._foreign.height, self._foreign.width)
        maps = output[None] if output.ndim == 2 else output
        if output.ndim == 3 and not self._foreign.nchw and not (len(output) == 1 != output.shape[2]):
            maps = output.transpose(2, 0, 1)
        if options.activation == "labels":
            label = np.asarray(cv2.resize(maps[0], (width, height), interpolation=cv2.INTER_NEAREST), np.float32)
            drawn = np.isin(label, options.channels) if options.channels else label > 0
            return drawn.astype(np.float32)
        chosen = list(foreground_channels(options, len(maps)))
        large = [cv2.resize(np.ascontiguousarray(m), (width, height), interpolation=cv2.INTER_LINEAR) for m in maps]
        values = np.stack(large)
        if options.activation == "softmax":
            powers = np.exp(values - values.max(axis=0))
            return np.asarray(np.clip(powers[chosen].sum(axis=0) / powers.sum(axis=0), 0, 1), np.float32)
        if options.activation == "argmax":
            others = [channel for channel in range(len(maps)) if channel not in chosen]
            return _sigmoid(values[chosen].max(axis=0) - values[others].max(axis=0))
        best = values[chosen].max(axis=0)
        return _sigmoid(best) if options.activation == "sigmoid" else np.clip(best, 0, 1)


def _sigmoid(x: F32) -> F32:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, 80))), np.float32)


def _open_openvino(model: bytes) -> tuple[Run, str]:
    try:
        openvino = quiet_module("openvino")
    except ImportError as error:
        raise GmsError(f"OpenVINO cannot be loaded ({error})", fix="pip install openvino") from error
    try:
        core = cpu_core()
        compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise GmsError(f"OpenVINO cannot open the model ({reason})", fix="try --runtime onnxruntime") from error
    version = openvino.get_version().split("-")[0]
    return (lambda x: np.array(compiled([x])[0], np.float32)), f"OpenVINO {version}"


def _open_onnxruntime(model: bytes) -> tuple[Run, str]:
    try:
        runtime = quiet_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("a reference from ONNX Runtime", "dev") from error
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exception types are not public
        raise GmsError(f"ONNX Runtime cannot open the model ({reason_from_error(error)})") from error
    name = session.get_inputs()[0].name
    return (lambda x: np.asarray(session.run(None, {name: x})[0], np.float32)), f"ONNX Runtime {runtime.__version__}"
