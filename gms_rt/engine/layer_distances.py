"""How far what each layer of a typed graph puts out is from what the same layer puts out in FP32.

A distance is the root mean square of the difference, divided by that of the FP32 values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.engine.layer_profile import Distances
from gms_rt.errors import GmsError
from gms_rt.graph.edit import drop_unused, replace_nodes
from gms_rt.graph.graph import Graph
from gms_rt.graph.openvino_ir import IrGraph
from gms_rt.graph.read import graph_from_model, read_graph
from gms_rt.graph.run import Session
from gms_rt.precision.emulation import emulated_graph, rounding_inputs
from gms_rt.precision.ranges import with_outputs


@dataclass(frozen=True)
class TypedRun:
    """A typed graph as it runs on this CPU."""

    graph: Graph
    execution: str  # the arithmetic of its floating point here
    quantised: bool  # whether it has quantised activations
    returned: Sequence[str] = ()  # nodes that OpenVINO's form keeps in f32
    emulated: bool = False  # whether results are rounded to the graph's types, as a GPU would


def layer_distances(run: TypedRun, image: U8, layers: Sequence[tuple[str, ...]], reference: Path | None) -> Distances:
    """The distance at the last node of each layer, by that node, to the FP32 graph in the file `reference`.

    Without one, to the typed graph in f32, and without quantised activations.
    """
    graph = run.graph
    if reference is not None:
        plain, compared = read_graph(reference, batch=graph.size[0]), f"the FP32 graph {reference.name}"
    elif run.quantised:
        plain, compared = without_quantised_activations(graph), "this graph without quantised activations, in f32"
    else:
        plain, compared = graph, "this graph in f32, its weights as stored"
    made = {node.name: node.output[0] for node in graph.nodes}
    ends = _ends(graph, plain, made, layers)
    if not ends:
        return Distances({}, compared)
    tensors = [made[name] for name in ends]
    here = _session(run, tensors).outputs(image)[1:]
    there = Session(with_outputs(plain, tensors)).outputs(image)[1:]
    found = {}
    for name, value, expected in zip(ends, here, there, strict=True):
        wanted = np.asarray(expected, np.float64)
        size = float(np.sqrt(np.mean(wanted**2)))
        off = float(np.sqrt(np.mean((np.asarray(value, np.float64) - wanted) ** 2)))
        found[name] = off / size if size > 0 else float(off > 0)  # relative to nothing: all of it
    return Distances(found, compared)


def _session(run: TypedRun, tensors: list[str]) -> Session:
    """The typed graph with tensors as further outputs."""
    from onnx import TensorProto, helper

    if run.emulated:
        graph = emulated_graph(run.graph)
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, run.graph.shape[name]) for name in tensors]
        graph.model.graph.output.extend(infos)
        return Session(graph, inputs=rounding_inputs())
    probed = with_outputs(run.graph, tensors)
    form = IrGraph(probed).keeping(list(run.returned)) if run.returned else None
    return Session(probed, execution=run.execution, form=form)


def _ends(graph: Graph, plain: Graph, made: dict[str, str], layers: Sequence[tuple[str, ...]]) -> list[str]:
    """The last node of each layer, where both graphs have what it puts out, as floating-point numbers."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    return [
        name
        for name in dict.fromkeys(nodes[-1] for nodes in layers if nodes)
        if made[name] in plain.producer and all(
            each.dtype.get(made[name]) in floats and made[name] in each.shape for each in (graph, plain)
        )
    ]  # fmt: skip


def without_quantised_activations(graph: Graph) -> Graph:
    """The same graph with Q/DQ pairs on activations left out; weights stay as they are stored."""
    plain = graph.copy()
    instead = {}
    for node in graph.nodes:
        maker = graph.producer.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker is not None and maker.op_type == "QuantizeLinear":
            instead[node.output[0]] = maker.input[0]
    if not instead:
        raise GmsError("the graph has no quantised activation to leave out")
    for node in plain.nodes:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
    gone = set(instead) | {graph.producer[name].input[0] for name in instead}
    replace_nodes(plain.model, [node for node in plain.nodes if not set(node.output) <= gone])
    drop_unused(plain.model)
    return graph_from_model(plain.model)
