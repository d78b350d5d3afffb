"""Another runtime in a process of its own, timed turn by turn with the engines: PyTorch, ONNX Runtime, any ONNX model.

`python -m gms_rt.peers.server` reads one JSON object per line and answers each with one. A process of its own keeps
thread pools and memory of the runtimes apart, and keeps torch out of the measuring side. Commands: `open`, `images`,
`bench`, `infer`; the end of input ends it. Times follow the same rules as the C library's: whole inferences from
uint8 image to uint8 probability, milliseconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import GmsError, MissingExtraError, UsageError
from gms_rt.peers import KINDS, TORCH_KINDS
from gms_rt.telemetry import quiet_module


@dataclass(frozen=True)
class OpenedPeer:
    """An opened peer: `run` takes N×H×W×3 images and gives N×H×W probabilities (0-255)."""

    run: Callable[[U8], U8]
    height: int
    width: int
    runtime: str
    execution: str
    device: str  # "" for the processor
    threads: int
    parameters: int | None = None
    batch: int = 1
    notes: list[str] = field(default_factory=list)


def open_peer(
    kind: str, path: Path, *, threads: int = 0, device: str = "cpu", size: tuple[int, int] = (224, 224)
) -> OpenedPeer:
    """Open a peer by kind: a run folder for torch, a graph for the ONNX kinds."""
    if kind in TORCH_KINDS:
        return _torch(kind, path, threads, device, size)
    if kind in ("onnxruntime", "onnx"):
        return _onnx(path, threads, device)
    raise UsageError(f"unknown peer '{kind}'", where="--against", fix=f"choose {', '.join(KINDS)} or FILE.onnx")


def _torch(kind: str, path: Path, threads: int, device: str, size: tuple[int, int]) -> OpenedPeer:
    import torch

    from gms_rt.model.any_run import load_any_run

    if threads:
        torch.set_num_threads(threads)
    gms = load_any_run(path).to(device)
    if kind == "torch-channels-last":
        gms = gms.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    segment: Callable[[torch.Tensor], torch.Tensor] = gms.segment
    if kind == "torch-compile":
        segment = torch.compile(gms.segment)

    def run(images: U8) -> U8:
        with torch.inference_mode():
            probabilities = segment(torch.from_numpy(images).to(device))
            return np.asarray(probabilities.cpu().numpy(), np.uint8)

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    count = sum(p.numel() for p in gms.parameters())
    notes = ["FP32 weights, batch 1, uint8 image in and uint8 probability out"]
    if device.startswith("cuda"):
        notes.append("latency includes the copies to and from the GPU")
    return OpenedPeer(
        run, *size, f"PyTorch {torch.__version__}", "f32", name, torch.get_num_threads(), count, notes=notes
    )


def _onnx(path: Path, threads: int, device: str) -> OpenedPeer:
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
        reason = str(error).splitlines()[0]
        raise UsageError(f"ONNX Runtime cannot open it ({reason})", where=path) from error
    if session.get_providers()[0] != wanted:
        # It falls back to the processor by itself, which would be another peer than was asked for.
        raise GmsError(f"ONNX Runtime could not load {wanted} (are CUDA and cuDNN of its version installed?)")
    access = _access(session, path)
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


@dataclass(frozen=True)
class _Access:
    """How a foreign model's input and output are taken."""

    run: Callable[[U8], U8]
    height: int
    width: int
    execution: str
    notes: list[str]


def _access(session: Any, path: Path) -> _Access:
    entry = session.get_inputs()[0]
    name, shape = entry.name, [d if isinstance(d, int) else None for d in entry.shape]
    if len(session.get_inputs()) != 1 or len(shape) != 4:
        raise UsageError("is not a model of one image input of four dimensions", where=path)
    if entry.type == "tensor(uint8)" and shape[3] == 3:

        def run_bytes(images: U8) -> U8:
            maps = [session.run(None, {name: images[i : i + 1]})[0] for i in range(len(images))]
            return np.concatenate(maps)[..., 0]

        # A quantised graph runs int8 kernels where the runtime has them; the graph's own words are enough here.
        return _Access(run_bytes, shape[1] or 224, shape[2] or 224, _graph_types(path), [])
    if entry.type not in ("tensor(float)", "tensor(float16)") or shape[1] not in (1, 3, None):
        raise UsageError(f"takes {entry.type} of shape {entry.shape}, which is not an image", where=path)
    height, width, channels = shape[2] or 224, shape[3] or 224, shape[1] or 3
    kind = np.float16 if entry.type == "tensor(float16)" else np.float32

    def run_float(images: U8) -> U8:
        maps = []
        for image in images:
            values = np.moveaxis(image, 2, 0)[None].astype(kind) / kind(255)
            values = values.mean(axis=1, keepdims=True, dtype=kind) if channels == 1 else values
            maps.append(foreground_levels(np.asarray(session.run(None, {name: values})[0], np.float32)[0]))
        return np.stack(maps)

    note = f"input N×{channels}×H×W in 0 to 1; one output channel is a probability or logit, more are classes"
    return _Access(run_float, height, width, "f16" if kind is np.float16 else "f32", [note])


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


def _timed(peer: OpenedPeer, images: U8, seconds: float, iterations: int, warmup: float) -> dict[str, Any]:
    began = time.perf_counter()
    count = 0
    while time.perf_counter() - began < warmup or count == 0:
        peer.run(images[count % len(images)][None])
        count += 1
    samples: list[float] = []
    start = last = time.perf_counter()
    while last - start < seconds or len(samples) < iterations:
        peer.run(images[len(samples) % len(images)][None])
        now = time.perf_counter()
        samples.append((now - last) * 1e3)
        last = now
    return {"total": samples, "wall_seconds": last - start, "warmup_seconds": start - began}


def serve(lines: Any, answer: Callable[[dict[str, Any]], None]) -> None:
    """Answer commands until the input ends; a failure is an answer too."""
    peer: OpenedPeer | None = None
    images = np.zeros((1, 8, 8, 3), np.uint8)
    for line in lines:
        command = json.loads(line)
        try:
            if command["do"] == "open":
                began = time.perf_counter()
                peer = open_peer(
                    command["kind"],
                    Path(command["path"]),
                    threads=command["threads"],
                    device=command["device"],
                    size=tuple(command["size"]),
                )
                loaded = time.perf_counter()
                peer.run(np.zeros((1, peer.height, peer.width, 3), np.uint8))
                first = time.perf_counter()
                values = {k: v for k, v in vars(peer).items() if k != "run"}
                answer({**values, "load_ms": (loaded - began) * 1e3, "first_ms": (first - loaded) * 1e3})
            elif command["do"] == "images":
                images = np.load(command["file"], allow_pickle=False)
                answer({})
            elif peer is None:
                raise UsageError("the peer is not open", where="peer")
            elif command["do"] == "bench":
                answer(_timed(peer, images, command["seconds"], command["iterations"], command["warmup"]))
            else:
                np.save(command["file"], np.concatenate([peer.run(images[i][None]) for i in range(len(images))]))
                answer({})
        except GmsError as error:
            answer({"error": error.line(), "usage": error.exit_code == 2})
        except Exception as error:  # a peer's failure must reach the other side as a sentence
            answer({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})


def serve_streams() -> None:
    """Serve on the standard streams; what libraries print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        channel.write(json.dumps(value) + "\n")
        channel.flush()

    serve(sys.stdin, answer)


if __name__ == "__main__":
    serve_streams()
