"""ONNX models by other runtimes: ONNX Runtime, and OpenVINO as its own Python package runs it.

On a processor each gets its best number of threads, unless one is asked for: a small network may lose more by waiting
for a second thread than it wins.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import GmsError, MissingExtraError, UsageError, reason_from_error
from gms_rt.peers.opened import OpenedPeer
from gms_rt.runtime.signal_stack import cpu_core
from gms_rt.telemetry import quiet_module

_SLOW_MS = 50.0  # a network that takes longer uses every thread
_TRIED_SECONDS = 0.5  # with each number of threads


def open_onnxruntime(path: Path, threads: int, device: str) -> OpenedPeer:
    """A model by ONNX Runtime, with all its optimisations, as is its default."""
    try:
        onnxruntime = quiet_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("a comparison with ONNX Runtime", "dev") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    wanted = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise UsageError(f"this onnxruntime has no {wanted}", where="--against", fix="pip install onnxruntime-gpu")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=[wanted])
    except Exception as error:  # the runtime's own exception types are not public
        raise UsageError(f"ONNX Runtime cannot open it ({reason_from_error(error)})", where=path) from error
    if session.get_providers()[0] != wanted:
        # It falls back to the processor by itself, which would be another peer than was asked for.
        raise GmsError(f"ONNX Runtime could not load {wanted} (are CUDA and cuDNN of its version installed?)")
    if len(session.get_inputs()) != 1:
        raise _no_image_model(path)
    entry = session.get_inputs()[0]
    shape = tuple(d if isinstance(d, int) else None for d in entry.shape)
    kinds = {"tensor(uint8)": "u8", "tensor(float)": "f32", "tensor(float16)": "f16"}
    access = _access(
        path, kinds.get(entry.type, entry.type), shape, lambda values: session.run(None, {entry.name: values})[0]
    )
    return OpenedPeer(
        access.run,
        access.height,
        access.width,
        f"ONNX Runtime {onnxruntime.__version__}",
        access.execution,
        "" if wanted.startswith("CPU") else device,
        threads or os.cpu_count() or 1,
        _parameters(path),
        notes=access.notes,
    )


def open_openvino(path: Path, threads: int, device: str) -> OpenedPeer:
    """A model by OpenVINO's Python package, tuned for latency, in the arithmetic that it chooses by itself."""
    if device.startswith("cuda"):
        raise UsageError("OpenVINO has no NVIDIA GPUs", where="--against", fix="leave openvino away, or --device cpu")
    core = cpu_core()
    try:
        model = core.read_model(str(path))
    except Exception as error:  # the runtime's own exception types are not public
        raise UsageError(f"OpenVINO cannot open it ({reason_from_error(error)})", where=path) from error
    if len(model.inputs) != 1 or len(model.inputs[0].partial_shape) != 4:
        raise _no_image_model(path)
    entry = model.inputs[0]
    kind = entry.element_type.get_type_name()
    shape = tuple(None if d.is_dynamic else d.get_length() for d in entry.partial_shape)
    if None in shape:
        places = ("batch", "height", "width", "channels") if kind == "u8" else ("batch", "channels", "height", "width")
        usual = {"batch": 1, "channels": 3, "height": 224, "width": 224}
        shape = tuple(usual[place] if d is None else d for place, d in zip(places, shape, strict=True))
        model.reshape(list(shape))
    how = {"PERFORMANCE_HINT": "LATENCY", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    compiled = core.compile_model(model, "CPU", how)
    request = compiled.create_infer_request()

    def run(values: NDArray[Any]) -> NDArray[Any]:
        request.infer([np.ascontiguousarray(values)], share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    access = _access(path, kind, shape, run)
    arithmetic = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    execution = f"i8+{arithmetic}" if _graph_types(path).startswith("i8") else arithmetic
    version = quiet_module("openvino").get_version().partition("-")[0]
    return OpenedPeer(
        access.run,
        access.height,
        access.width,
        f"OpenVINO {version}, Python",
        execution,
        "",
        threads or os.cpu_count() or 1,
        _parameters(path),
        notes=[*access.notes, "tuned for latency"],
    )


def best_threads(open_with: Callable[[int], OpenedPeer]) -> int:
    """The number of threads with which a model takes least time here; 0 leaves it to the runtime."""
    cores = os.cpu_count() or 1
    if cores == 1 or (all_ms := _milliseconds(open_with(0))) > _SLOW_MS:
        return 0
    found = {0: all_ms, **{count: _milliseconds(open_with(count)) for count in {1, cores // 2}}}
    return min(found, key=lambda count: found[count])


def _milliseconds(peer: OpenedPeer) -> float:
    image = np.zeros((1, peer.height, peer.width, 3), np.uint8)
    peer.run(image)
    samples: list[float] = []
    start = last = time.perf_counter()
    while last - start < _TRIED_SECONDS or len(samples) < 3:
        peer.run(image)
        now = time.perf_counter()
        samples.append((now - last) * 1e3)
        last = now
    return float(np.median(samples))


@dataclass(frozen=True)
class _Access:
    """How a foreign model's input and output are taken."""

    run: Callable[[U8], U8]
    height: int
    width: int
    execution: str
    notes: list[str]


def _access(
    path: Path, kind: str, shape: Sequence[int | None], infer: Callable[[NDArray[Any]], NDArray[Any]]
) -> _Access:
    if len(shape) != 4:
        raise _no_image_model(path)
    if kind == "u8" and shape[3] == 3:

        def run_bytes(images: U8) -> U8:
            return np.concatenate([infer(images[i : i + 1]) for i in range(len(images))])[..., 0]

        # A quantised graph runs int8 kernels where the runtime has them; the graph's own words are enough here.
        return _Access(run_bytes, shape[1] or 224, shape[2] or 224, _graph_types(path), [])
    if kind not in ("f32", "f16") or shape[1] not in (1, 3, None):
        raise UsageError(f"takes {kind} of shape {list(shape)}, which is not an image", where=path)
    height, width, channels = shape[2] or 224, shape[3] or 224, shape[1] or 3
    number = np.float16 if kind == "f16" else np.float32

    def run_float(images: U8) -> U8:
        maps = []
        for image in images:
            values = np.moveaxis(image, 2, 0)[None].astype(number) / number(255)
            values = values.mean(axis=1, keepdims=True, dtype=number) if channels == 1 else values
            maps.append(foreground_levels(np.asarray(infer(values), np.float32)[0]))
        return np.stack(maps)

    note = f"input N×{channels}×H×W in 0 to 1; one output channel is a probability or logit, more are classes"
    return _Access(run_float, height, width, kind, [note])


def foreground_levels(output: NDArray[np.float32]) -> U8:
    """The probability (0-255) of anything but background in one C×H×W output of a segmentation model."""
    if output.ndim == 2:
        output = output[None]
    if len(output) == 1:
        values = output[0]
        if values.min() < 0 or values.max() > 1:
            values = 1 / (1 + np.exp(-values))
    else:
        # Classes are compared by softmax; what is not class 0 is foreground.
        powers = np.exp(output - output.max(axis=0))
        values = 1 - powers[0] / powers.sum(axis=0)
    return np.asarray(np.rint(values * 255), np.uint8)


def _no_image_model(path: Path) -> UsageError:
    return UsageError("is not a model of one image input of four dimensions", where=path)


def _graph_types(path: Path) -> str:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
    names = {onnx.TensorProto.INT8: "i8", onnx.TensorProto.FLOAT16: "f16", onnx.TensorProto.FLOAT: "f32"}
    return "+".join(names[k] for k in names if k in kinds) or "f32"


def _parameters(path: Path) -> int:
    import onnx

    from gms_rt.graph.count import parameter_count

    return parameter_count(onnx.load(path, load_external_data=False))
