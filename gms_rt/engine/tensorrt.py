"""Plans from a typed graph: one builder for `tensorrt` (10.3 to 11.x) and `tensorrt-rtx`.

Features are detected, versions never compared. Every network is strongly typed, so the plan has the graph's precision
or does not exist. TensorRT-RTX builds for the SMs it knows without a GPU; full TensorRT builds for the GPU it sees.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from gms_rt.engine import timing_cache
from gms_rt.engine.targets import check_ahead_of_time
from gms_rt.errors import DeviceError, GmsError
from gms_rt.graph.graph import INPUT, Graph
from gms_rt.progress import OnProgress
from gms_rt.runtime.cuda import current_device
from gms_rt.runtime.device import Gpu, Machine, probe
from gms_rt.runtime.tensorrt_module import Heard, TensorRtLog, load_tensorrt, tensorrt_log

_SHARE_OF_INTEGRATED = 2  # a half of the memory for what TensorRT tries out, the rest for the system and the network


@dataclass(frozen=True)
class BuiltPlan:
    """A serialised engine and what is known about it."""

    data: bytes
    sm: int
    version: str
    seconds: float
    driver: str | None
    cache: bytes
    network: dict[str, dict[str, int]]  # layers by type and output type, as the parser made them
    inspected: dict[str, int] | None  # layers of the finished engine, where a GPU let it be opened
    warnings: list[str]
    device: str | None = None  # what its kernels were timed on


def plan_name(flavour: str, version: str, sm: int) -> str:
    """The plan's file name.

    >>> plan_name("tensorrt-rtx", "1.7.1.116", 89)
    'tensorrt-rtx-1.7-sm89.plan'
    """
    return f"{flavour}-{'.'.join(version.split('.')[:2])}-sm{sm}.plan"


def build_plan(
    graph: Graph, flavour: str, sm: int, *, earlier: bytes = b"", progress: OnProgress | None = None
) -> BuiltPlan:
    """Build one plan. `earlier` is the timing cache of an earlier build, which goes before the user's shared one.

    Where this machine has a GPU of that SM, it is the current device meanwhile: full TensorRT times its kernels there.
    """
    trt = load_tensorrt(flavour, f"building for {flavour}")
    machine = probe()
    if flavour == "tensorrt-rtx":
        check_ahead_of_time(trt, sm)
    gpu = gpu_of_sm(machine, sm)
    log = tensorrt_log(trt)
    with log.listening() as heard, current_device(gpu.index) if gpu else nullcontext():
        return _built(trt, log, heard, _Order(graph, flavour, sm, earlier, progress, machine, gpu))


@dataclass(frozen=True)
class _Order:
    """What `build_plan` was asked for, and where."""

    graph: Graph
    flavour: str
    sm: int
    earlier: bytes
    progress: OnProgress | None
    machine: Machine
    gpu: Gpu | None  # the GPU of this machine that the plan is for


def _built(trt: Any, log: TensorRtLog, heard: Heard, order: _Order) -> BuiltPlan:
    flavour, sm, progress = order.flavour, order.sm, order.progress
    builder = trt.Builder(log.logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(order.graph.bytes()):
        first = parser.get_error(0) if parser.num_errors else None
        raise GmsError(f"{flavour} refuses the graph ({first.desc() if first else _tail(heard)})")
    config = builder.create_builder_config()
    _configure(trt, builder, config, network, order)
    version = str(trt.__version__)
    # TensorRT-RTX measures nothing at build: its kernels are chosen on the device, and it has no timings to keep.
    shared = timing_cache.shared_path(flavour, version, sm, order.machine) if flavour == "tensorrt" else None
    if shared is not None:
        cache = config.create_timing_cache(order.earlier or timing_cache.read_timing_cache(shared))
        config.set_timing_cache(cache, True)  # one of another version is set aside rather than refused
    if progress and hasattr(config, "progress_monitor"):
        config.progress_monitor = _monitor(trt, f"{flavour} SM{sm}", progress)
    start = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise GmsError(f"{flavour} could not build for SM{sm} ({_tail(heard)})")
    seconds = time.monotonic() - start
    kept = b""
    if shared is not None:
        kept = bytes(config.get_timing_cache().serialize())
        timing_cache.keep(shared, kept)
    data = bytes(plan)
    inspected = None if order.gpu is None else _inspected(trt, log.logger, data)
    return BuiltPlan(
        data, sm, version, seconds, order.machine.driver, kept, _layers(trt, network), inspected,
        list(heard.warnings), timed_on(order.machine, sm) if flavour == "tensorrt" else None,
    )  # fmt: skip


def gpu_of_sm(machine: Machine, sm: int) -> Gpu | None:
    """The first GPU of a machine that runs plans of an SM."""
    return next((gpu for gpu in machine.gpus if gpu.sm == sm), None)


def timed_on(machine: Machine, sm: int) -> str | None:
    """What full TensorRT times its kernels on: the board with its power mode, else the GPU of that SM."""
    gpu = gpu_of_sm(machine, sm)
    if gpu is None:
        return None
    return machine.board.in_words if machine.board and gpu.integrated else gpu.name


def check_network(plan: BuiltPlan, asked: str, remainder: str, quantised: int) -> None:
    """Refuse a plan whose network is not of the precision asked for."""
    convolutions = Counter(plan.network.get("CONVOLUTION", {})) + Counter(plan.network.get("DECONVOLUTION", {}))
    wanted = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}[remainder]
    pairs = sum(plan.network.get("QUANTIZE", {}).values())
    if not convolutions[wanted] or (asked == "int8" and (not quantised or not pairs)):
        raise GmsError(
            f"asked for {asked}, but TensorRT's network has convolutions of {dict(convolutions)} and {pairs} Q layers"
        )


def _network_flags(trt: Any) -> int:
    flags = 0
    kinds = trt.NetworkDefinitionCreationFlag
    for name in ("STRONGLY_TYPED", "EXPLICIT_BATCH"):
        # The second is gone or deprecated where the first exists, and implied by it.
        if hasattr(kinds, name):
            return flags | 1 << int(getattr(kinds, name))
    return flags


def _configure(trt: Any, builder: Any, config: Any, network: Any, order: _Order) -> None:
    if hasattr(trt, "ProfilingVerbosity"):
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if any(size < 0 for size in network.get_input(0).shape):
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, *[order.graph.shape[INPUT]] * 3)
        config.add_optimization_profile(profile)
    if order.gpu is not None and order.gpu.integrated:
        # The usual limit is all of the device's memory, which on such a board is the system's own.
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.gpu.memory_bytes // _SHARE_OF_INTEGRATED)
    if order.flavour == "tensorrt-rtx":
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
            # Without, the runtime allocates during an inference, which then cannot be captured into a CUDA graph.
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{order.sm}"), 0):
            raise DeviceError(f"TensorRT-RTX cannot build for SM{order.sm}", where="--sm")


def _tail(heard: Heard) -> str:
    lines = heard.errors or heard.warnings
    return "; ".join(" ".join(line.split()) for line in list(lines)[-2:]) or "it gave no reason"


def _monitor(trt: Any, label: str, progress: OnProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Phase names and steps as TensorRT reports them; they cover a part of the build, so no percentage."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            progress(f"{label}: {phase_name}", 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(f"{label}: {phase_name}", step + 1, self.steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            total = self.steps.pop(phase_name, 0)
            progress(f"{label}: {phase_name}", total, total)

    return Monitor()


def _layers(trt: Any, network: Any) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        if layer.num_outputs:
            found.setdefault(layer.type.name, Counter())[layer.get_output(0).dtype.name] += 1
    return {kind: dict(sorted(found[kind].items())) for kind in sorted(found)}


def _inspected(trt: Any, logger: Any, plan: bytes) -> dict[str, int] | None:
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        return None
    import json

    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return count_inspected(json.loads(text))


def count_inspected(report: dict[str, Any]) -> dict[str, int]:
    """Layers of a finished engine by their first output's type, from the inspector's JSON of any version.

    >>> count_inspected({"Layers": [{"Outputs": [{"Format/Datatype": "Row major Int8 format"}]}]})
    {'int8': 1}
    """
    found: Counter[str] = Counter()
    for layer in report.get("Layers", []):
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        if outputs:
            texts = [str(v) for k, v in outputs[0].items() if "datatype" in k.lower() or "type" in k.lower()]
            found[_arithmetic(" ".join(texts).lower())] += 1
    return dict(sorted(found.items()))


def _arithmetic(text: str) -> str:
    for name, words in {
        "int8": ("int8",),
        "bf16": ("bf16", "bfloat16"),
        "fp16": ("half", "fp16", "float16"),
        "fp32": ("float", "fp32"),
    }.items():
        if any(word in text for word in words):
            return name
    return "other"
