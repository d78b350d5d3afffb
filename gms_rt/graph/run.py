"""Run a graph from memory on this machine's CPU, for calibration and for the accuracy gate.

OpenVINO does the arithmetic. This is not a runner for users (see `gms_rt.runtime`): it opens graphs that were never
written to disk, as often as the search needs, and can return tensors from the middle.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import GmsError
from gms_rt.graph.graph import INPUT, Graph
from gms_rt.graph.openvino_ir import IrModel
from gms_rt.runtime.signal_stack import cpu_core
from gms_rt.telemetry import quiet_module

_REPORTED = ("layerType", "runtimePrecision", "originalLayersNames")
_PROFILED_SECONDS = 5.0
_NO_WORK = ("Input", "Output", "Const", "Constant", "Result", "Parameter")


@dataclass(frozen=True)
class ExecutedLayer:
    """One layer as the runtime runs it."""

    name: str
    kind: str  # OpenVINO's name: Convolution, MatMul, MVN, …
    arithmetic: str  # f32, bf16, f16, u8, i8, …
    parts: tuple[str, ...]  # the layers of the model that were fused into it


class Session:
    """A compiled graph that all cores serve, one batch after the other.

    Several batches at once would gain nothing here, and a pinned thread waits for whatever else runs on its core.
    `batch` gives a graph whose batch is open its size; a graph in OpenVINO's form may keep nodes in f32. With `profile`
    the time of each layer is measured. `inputs` are those that the graph has beside its image, the same for every one.
    `threads` are all cores if 0.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        execution: str = "f32",
        batch: int = 0,
        form: IrModel | None = None,
        profile: bool = False,
        inputs: Mapping[str, NDArray[Any]] | None = None,
        threads: int = 0,
    ) -> None:
        try:
            core = cpu_core()
        except ImportError as error:
            raise GmsError(
                f"running a graph on the CPU needs OpenVINO, which cannot be loaded ({error})",
                fix="pip install openvino",
            ) from error
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": execution,
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": profile,
        }
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(graph.bytes()) if form is None else _read_form(core, form)
            if batch:
                model.reshape([batch, *model.input(0).partial_shape[1:]])
            self._compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
            raise GmsError(f"OpenVINO cannot compile the graph ({reason.strip()})") from error
        self.batch = batch or graph.size[0]
        names = {name for port in self._compiled.inputs for name in port.get_names()}
        self._inputs = {name: value for name, value in (inputs or {}).items() if name in names}

    def probabilities(self, images: U8) -> U8:
        """The graph's answer to N images of its size: uint8 N×H×W."""
        result = np.empty(images.shape[:3], np.uint8)
        request = self._compiled.create_infer_request()
        for start, block, count in _batches(images, self.batch):
            request.infer({INPUT: block, **self._inputs}, share_inputs=True)
            result[start : start + count] = request.get_output_tensor(0).data[:count, :, :, 0]
        return result

    def outputs(self, image: NDArray[Any]) -> list[NDArray[Any]]:
        """Every output of the graph for one batch, in order."""
        answer = self._compiled({INPUT: image, **self._inputs}, share_inputs=True, share_outputs=True)
        return [answer[i] for i in range(len(self._compiled.outputs))]

    def milliseconds(self, image: U8, *, runs: int = 15, warmup: int = 3) -> float:
        """Median latency of one batch after warming up."""
        request = self._compiled.create_infer_request()
        samples = []
        for number in range(runs + warmup):
            start = time.perf_counter()
            request.infer({INPUT: image, **self._inputs}, share_inputs=True)
            if number >= warmup:
                samples.append(time.perf_counter() - start)
        return float(np.median(samples)) * 1e3

    def executed_layers(self) -> dict[str, dict[str, int]]:
        """How many layers of each type run in which arithmetic, as the compiled model reports."""
        found: dict[str, Counter[str]] = {}
        for layer in self.layer_report():
            found.setdefault(layer.kind, Counter())[layer.arithmetic] += 1
        return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}

    def layer_report(self) -> list[ExecutedLayer]:
        """What the compiled model reports of each layer that it runs, in the order in which they run."""
        found = []
        for op in self._compiled.get_runtime_model().get_ordered_ops():
            info = {key: str(value.astype(str)) for key, value in op.get_rt_info().items() if key in _REPORTED}
            if "layerType" not in info or "runtimePrecision" not in info or info["layerType"] in _NO_WORK:
                continue
            parts = tuple(name for name in info.get("originalLayersNames", "").split(",") if name)
            name = op.get_friendly_name()
            found.append(ExecutedLayer(name, info["layerType"], info["runtimePrecision"], parts))
        return found

    def layer_milliseconds(self, image: U8, *, runs: int = 15) -> dict[str, float]:
        """Median time of each layer for one batch, by the layer's name; for a session with `profile`.

        Fewer runs where they take longer than some seconds altogether.
        """
        request = self._compiled.create_infer_request()
        samples: dict[str, list[float]] = {}
        began = time.perf_counter()
        for number in range(runs + 3):
            request.infer({INPUT: image, **self._inputs}, share_inputs=True)
            for entry in request.get_profiling_info() if number >= 3 else ():
                samples.setdefault(entry.node_name, []).append(entry.real_time.total_seconds() * 1e3)
            if samples and time.perf_counter() - began > _PROFILED_SECONDS:
                break
        return {name: float(np.median(times)) for name, times in samples.items()}


def _read_form(core: Any, form: IrModel) -> Any:
    constants = np.frombuffer(form.constants, np.uint8)
    return core.read_model(form.xml, quiet_module("openvino").Tensor(constants))


def _batches(images: U8, size: int) -> list[tuple[int, U8, int]]:
    blocks = []
    for start in range(0, len(images), size):
        block = images[start : start + size]
        count = len(block)
        if count < size:  # the last batch is filled with its own last image and the surplus dropped
            block = np.concatenate([block, np.repeat(block[-1:], size - count, axis=0)])
        blocks.append((start, np.ascontiguousarray(block), count))
    return blocks
