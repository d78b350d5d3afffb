"""The roofline counts what the runtime executed, and no made profile exceeds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bench_runner import fused_graph
from support.precision_graphs import tiny_graph
from support.small_builds import built

from gms_rt.bench.executed import UNKNOWN, executed_flop, shortest_milliseconds
from gms_rt.engine.layers import session_from_engine
from gms_rt.graph.count import counted_graph, node_flop, work_from_file
from gms_rt.graph.graph import Graph
from gms_rt.graph.run import ExecutedLayer
from gms_rt.precision.gate import Gate

CEILINGS = {"f32": 100.0, "bf16": 200.0, "i8": 400.0}


def made_profile(graph: Graph, arithmetic: dict[str, str], speed: float) -> tuple[list[ExecutedLayer], float]:
    """Layers as a runtime would report them, and their time at a share of each kind's ceiling."""
    layers, milliseconds = [], 0.0
    for node in graph.nodes:
        kind = arithmetic.get(node.name)
        if kind is not None:
            layers.append(ExecutedLayer(node.name, "Convolution", kind, (f"{node.name}/WithoutBiases",)))
            gflops = CEILINGS["i8" if kind in ("u8", "i8") else kind] * speed
            milliseconds += node_flop(graph, node) / gflops / 1e6
    return layers, milliseconds


@pytest.mark.parametrize("kinds", [("u8",), ("i8", "f32"), ("u8", "bf16", "i8"), ("f32",)])
@pytest.mark.parametrize("speed", [1.0, 0.6])
def test_the_achieved_share_of_a_made_profile_is_what_it_was_made_with(tmp_path, kinds, speed):
    graph = counted_graph(tiny_graph(tmp_path))
    computing = [node.name for node in graph.nodes if node_flop(graph, node)]
    arithmetic = {name: kinds[number % len(kinds)] for number, name in enumerate(computing)}
    layers, milliseconds = made_profile(graph, arithmetic, speed)
    work = executed_flop(graph, layers)
    share = shortest_milliseconds(work, CEILINGS) / milliseconds
    assert share <= 1 + 1e-12 and share == pytest.approx(speed)
    assert sum(work.values()) == work_from_file(tmp_path / "tiny.onnx").flop


def test_what_no_layer_claims_is_allowed_the_highest_ceiling(tmp_path):
    """A fused attention does not name its products: a limit that took them for f32 could be exceeded."""
    graph = counted_graph(tiny_graph(tmp_path))
    computing = [node.name for node in graph.nodes if node_flop(graph, node)]
    layers, milliseconds = made_profile(graph, dict.fromkeys(computing, "u8"), 1.0)
    work = executed_flop(graph, layers[::2])
    assert work[UNKNOWN] > 0 and shortest_milliseconds(work, CEILINGS) <= milliseconds + 1e-12


def test_an_int8_engine_is_counted_by_what_this_cpu_runs(tmp_path):
    made = built(tiny_graph(tmp_path), tmp_path / "e", "int8", gate=Gate(0.5, 0.5))
    session = session_from_engine(made.folder, made.manifest)
    graph = counted_graph(made.folder / "model.onnx")
    work = executed_flop(graph, session.layer_report())
    claimed = [layer for layer in session.layer_report() if layer.kind == "Convolution"]
    flop = {node.name: node_flop(graph, node) for node in graph.nodes}
    wanted = sum(
        flop.get(part.removesuffix("/WithoutBiases"), 0)
        for layer in claimed
        if layer.arithmetic in ("u8", "i8")
        for part in {layer.name, *layer.parts}
        if not part.endswith("/WithoutBiases") or part.removesuffix("/WithoutBiases") not in layer.parts
    )
    assert work["i8"] == pytest.approx(wanted) and work["i8"] > sum(flop.values()) / 2


def test_a_graph_whose_batch_is_open_is_counted_for_its_batch(tmp_path: Path) -> None:
    graph = fused_graph(tmp_path / "g.onnx", side=16)
    assert executed_flop(counted_graph(graph), []).get(UNKNOWN, 0.0) == work_from_file(graph).flop
