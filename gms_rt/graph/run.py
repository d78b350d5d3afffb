"""Run a graph from memory on this machine's CPU, for calibration and for the accuracy gate.

OpenVINO does the arithmetic. This is not a runner for users (see `gms_rt.runtime`): it opens graphs that were never
written to disk, as often as the search needs, and can return tensors from the middle.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import GmsError
from gms_rt.graph.graph import INPUT, Graph
from gms_rt.runtime.signal_stack import keep_signal_stack
from gms_rt.telemetry import quiet_module


class Session:
    """A compiled graph that all cores serve, one batch after the other.

    Several batches at once would gain nothing here, and a pinned thread waits for whatever else runs on its core.
    `batch` gives a graph whose batch is open its size.
    """

    def __init__(self, graph: Graph, *, execution: str = "f32", batch: int = 0) -> None:
        try:
            core = quiet_module("openvino").Core()
        except ImportError as error:
            raise GmsError(
                f"running a graph on the CPU needs OpenVINO, which cannot be loaded ({error})",
                fix="pip install openvino",
            ) from error
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": execution,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            model = core.read_model(graph.bytes())
            if batch:
                model.reshape([batch, *model.input(0).partial_shape[1:]])
            with keep_signal_stack():
                self._compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
            raise GmsError(f"OpenVINO cannot compile the graph ({reason.strip()})") from error
        self.batch = batch or graph.size[0]

    def probabilities(self, images: U8) -> U8:
        """The graph's answer to N images of its size: uint8 N×H×W."""
        result = np.empty(images.shape[:3], np.uint8)
        request = self._compiled.create_infer_request()
        for start, block, count in _batches(images, self.batch):
            request.infer({INPUT: block}, share_inputs=True)
            result[start : start + count] = request.get_output_tensor(0).data[:count, :, :, 0]
        return result

    def outputs(self, image: U8) -> list[NDArray[Any]]:
        """Every output of the graph for one batch, in order."""
        answer = self._compiled({INPUT: image}, share_inputs=True, share_outputs=True)
        return [answer[i] for i in range(len(self._compiled.outputs))]

    def milliseconds(self, image: U8, *, runs: int = 15) -> float:
        """Median latency of one batch after warming up."""
        request = self._compiled.create_infer_request()
        samples = []
        for number in range(runs + 3):
            start = time.perf_counter()
            request.infer({INPUT: image}, share_inputs=True)
            if number >= 3:
                samples.append(time.perf_counter() - start)
        return float(np.median(samples)) * 1e3

    def executed_layers(self) -> dict[str, dict[str, int]]:
        """How many layers of each type run in which arithmetic, as the compiled model reports."""
        found: dict[str, Counter[str]] = {}
        for op in self._compiled.get_runtime_model().get_ops():
            info = op.get_rt_info()
            if "layerType" not in info or "runtimePrecision" not in info:
                continue
            kind = str(info["layerType"].astype(str))
            if kind not in ("Input", "Output", "Const", "Constant", "Result", "Parameter"):
                found.setdefault(kind, Counter())[str(info["runtimePrecision"].astype(str))] += 1
        return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def _batches(images: U8, size: int) -> list[tuple[int, U8, int]]:
    blocks = []
    for start in range(0, len(images), size):
        block = images[start : start + size]
        count = len(block)
        if count < size:  # the last batch is filled with its own last image and the surplus dropped
            block = np.concatenate([block, np.repeat(block[-1:], size - count, axis=0)])
        blocks.append((start, np.ascontiguousarray(block), count))
    return blocks
