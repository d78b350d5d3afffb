"""Does this CPU's runtime compute a quantised convolution in INT8 at all? Asked of the runtime, with a tiny graph.

What a processor could do says little: OpenVINO on Arm takes the graph and computes its convolutions in FP32.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from gms_rt.errors import GmsError
from gms_rt.graph.graph import INPUT, OUTPUT, Graph
from gms_rt.graph.layer_counts import int8_layers
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.precision.int8 import Int8Values, int8_graph, quantisable

_SIDE, _CHANNELS = 32, 32


@functools.cache
def cpu_runs_int8() -> bool:
    """Whether at least one convolution of a small INT8 graph runs in INT8 on this machine's CPU."""
    graph = _convolutions()
    clips = {node.input[0]: 4.0 for node in graph.nodes if node.op_type == "Conv"}
    typed = int8_graph(graph, quantisable(graph), Int8Values(clips), "cpu", levels=64, skips=())
    try:
        return int8_layers(Session(typed).executed_layers()) > 0
    except (GmsError, ImportError):
        return False  # a runtime that cannot compile it, or is not there, does not run it


def _convolutions() -> Graph:
    """Three convolutions between a uint8 image and a uint8 mask, as in a fused graph."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    widths = (3, _CHANNELS, _CHANNELS, 1)
    weights = [
        numpy_helper.from_array(random.normal(0, 0.2, (out, taken, 3, 3)).astype(np.float32), f"weight{number}")
        for number, (taken, out) in enumerate(itertools.pairwise(widths))
    ]
    nodes = [
        helper.make_node("Cast", [INPUT], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    for number in range(len(weights)):
        pads = [1, 1, 1, 1]
        nodes.append(helper.make_node("Conv", [f"x{number}", f"weight{number}"], [f"y{number}"], pads=pads))
        nodes.append(helper.make_node("Relu", [f"y{number}"], [f"x{number + 1}"]))
    nodes += [
        helper.make_node("Transpose", [f"x{len(weights)}"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["last"], [OUTPUT], to=TensorProto.UINT8),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, _SIDE, _SIDE, channels])
        for name, channels in ((INPUT, 3), (OUTPUT, 1))
    ]
    made = helper.make_graph(nodes, "int8-probe", ends[:1], ends[1:], weights)
    return graph_from_model(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
