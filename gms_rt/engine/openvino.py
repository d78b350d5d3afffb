"""The CPU's part of a build: compile the typed graph as the runtime will, and report what it executes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import GmsError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import check_int8_execution
from gms_rt.graph.run import Session
from gms_rt.runtime.device import cpu_execution, probe


def inspect_execution(graph: Graph, precision: str, quantised: int) -> dict[str, Any]:
    """Compile for this CPU and count its layers by arithmetic; refuse what is not the precision asked for."""
    asked = cpu_execution(precision)
    session = Session(graph, execution=asked)
    executed = session.executed_layers()
    found: dict[str, Any] = {"cpu": probe().processor, "asked": asked, "layers": executed}
    if precision == "int8":
        found["int8_layers"] = check_int8_execution(executed, quantised)
    if precision == "bf16" and not any("bf16" in types for types in executed.values()):
        raise GmsError("asked for bf16, but the CPU runtime runs no layer in bf16", fix="use --precision fp32")
    return found


def batch_stays_open(fixed: Graph, opened: Graph) -> bool:
    """Whether the graph with an open batch gives, for two pictures at once, what it gives for each alone."""
    _, height, width = fixed.size
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    alone = Session(fixed).probabilities(images)
    try:
        together = Session(opened, batch=2).probabilities(images)
    except GmsError:
        return False  # typed for one batch only: a shape inside is a constant
    return bool(np.abs(alone.astype(np.int16) - together).max() <= 1)


def latency(first: Graph, second: Graph, image: U8, *, rounds: int = 3) -> tuple[float, float]:
    """Median milliseconds of two graphs, taken in turn so that a busy machine disturbs both alike."""
    sessions = [Session(first), Session(second)]
    samples = [[session.milliseconds(image, runs=5) for session in sessions] for _ in range(rounds)]
    a, b = np.median(np.array(samples), axis=0)
    return float(a), float(b)
