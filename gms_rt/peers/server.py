"""Another runtime in a process of its own, timed turn by turn with the engines: PyTorch, ONNX Runtime, OpenVINO.

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
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import GmsError, UsageError
from gms_rt.peers import GRAPH_KINDS, TORCH_KINDS
from gms_rt.peers.graphs import best_threads, open_onnxruntime, open_openvino
from gms_rt.peers.opened import OpenedPeer


def open_peer(
    kind: str, path: Path, *, threads: int = 0, device: str = "cpu", size: tuple[int, int] = (224, 224)
) -> OpenedPeer:
    """Open a peer by kind: a run folder for torch, a graph for the ONNX kinds."""
    if kind in TORCH_KINDS:
        return _torch(kind, path, threads, device, size)
    if kind in GRAPH_KINDS:
        return (open_openvino if kind == "openvino" else open_onnxruntime)(path, threads, device)
    known = ", ".join((*TORCH_KINDS, *GRAPH_KINDS))
    raise UsageError(f"unknown peer '{kind}'", where="--against", fix=f"choose {known} or FILE.onnx")


def _threads_of(kind: str, path: Path, device: str) -> int:
    """The number of threads that suits a graph best on the processor; torch and GPUs choose by themselves."""
    if kind not in GRAPH_KINDS or device != "cpu":
        return 0
    return best_threads(lambda count: open_peer(kind, path, threads=count))


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
                kind, path, device = command["kind"], Path(command["path"]), command["device"]
                threads = command["threads"] or _threads_of(kind, path, device)
                began = time.perf_counter()
                peer = open_peer(kind, path, threads=threads, device=device, size=tuple(command["size"]))
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
