"""FP16 and BF16 as a property of the graph: typed constants, and Casts where the type changes.

What stays FP32 is found out, not listed: `fp32_nodes` looks at the ranges that the calibration images produced. Two
things are FP32 by structure: the arithmetic before the first convolution works on grey levels, and that after the last
one rounds to grey levels (`pixel_arithmetic_nodes`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from gms_rt.graph.edit import drop_unused, replace_nodes
from gms_rt.graph.graph import INPUT, OUTPUT, Graph, attribute
from gms_rt.graph.read import graph_from_model
from gms_rt.precision.ranges import Extremes

# A quarter of FP16's largest number: calibration images are a sample, patients go beyond it.
FP16_LIMIT = 65504 / 4
# Below this FP16 loses digits (subnormal) or everything.
FP16_SMALLEST_NORMAL = 2.0**-14

LAYOUT = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Slice", "Split")
_ELEMENTWISE = ("Cast", "Mul", "Add", "Sub", "Div", "Clip", "Round", "Min", "Max", *LAYOUT)
_NORMS = ("InstanceNormalization", "GroupNormalization", "LayerNormalization", "BatchNormalization")
_SUMS = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "GlobalAveragePool", "Softmax")
# A picture's own mean and deviation, by which an adopted model's pixels are normalised, belong to the pixels.
_PIXEL_STATISTICS = ("ReduceMean", "Sqrt")
# What makes no value larger than its input's largest, or than one.
_BOUNDED = ("Relu", "LeakyRelu", "Sigmoid", "Softmax", "Tanh", "MaxPool", "AveragePool", "Resize", "Concat")
# Float inputs that ONNX types apart from the data.
_APART = {"Resize": (1, 2), "Upsample": (1,)}


def float_tensors(graph: Graph) -> list[str]:
    """The FP32 activations that must be watched, in order: those whose values no other watched tensor bounds."""
    from onnx import TensorProto

    return [
        name
        for node in graph.nodes
        if node.op_type not in (*LAYOUT, *_BOUNDED)
        for name in node.output
        if name and graph.dtype.get(name) == TensorProto.FLOAT and name in graph.shape
    ]


def summed_tensors(graph: Graph) -> list[str]:
    """The tensors whose sum or sum of squares a node forms."""
    from onnx import TensorProto

    sources = [node.input[0] for node in graph.nodes if node.op_type in (*_NORMS, *_SUMS)]
    return [name for name in dict.fromkeys(sources) if graph.dtype.get(name) == TensorProto.FLOAT]


def fp32_nodes(graph: Graph, ranges: Mapping[str, Extremes]) -> dict[str, str]:
    """The nodes that FP16 cannot represent, each with the reason."""
    found = {}
    for node in graph.nodes:
        reason = _reason(graph, node, ranges)
        if reason:
            found[node.name] = reason
    return found


def pixel_arithmetic_nodes(graph: Graph) -> set[str]:
    """Nodes between the input or output and the first or last real computation: grey-level arithmetic."""
    found: set[str] = set()
    reached = {INPUT}
    for node in graph.nodes:
        inputs = [name for name in node.input if name and name not in graph.initialisers]
        own = node.op_type in _PIXEL_STATISTICS and node.name.startswith("input/")
        if (node.op_type in _ELEMENTWISE or own) and inputs and all(name in reached for name in inputs):
            found.add(node.name)
            reached.update(node.output)
    wanted = {OUTPUT}
    for node in reversed(graph.nodes):
        if node.op_type in _ELEMENTWISE and any(name in wanted for name in node.output):
            found.add(node.name)
            wanted.update(name for name in node.input if name not in graph.initialisers)
    return found


def low_precision_graph(graph: Graph, kind: str, keep: Collection[str]) -> Graph:
    """A copy typed "fp16" or "bf16", with the nodes in `keep` and the pixel arithmetic at both ends in FP32."""
    from onnx import TensorProto, helper

    low = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[kind]
    high = _high_nodes(graph, set(keep) | pixel_arithmetic_nodes(graph))
    typed = graph.copy().model
    if kind == "fp16" and graph.opset < 19 and any(node.op_type == "QuantizeLinear" for node in graph.nodes):
        # Opset 19 is the first whose Q/DQ may have FP16 scales; it changes nothing else that these graphs use.
        next(o for o in typed.opset_import if o.domain in ("", "ai.onnx")).version = 19
    kept_type = {name: dtype for name, dtype in graph.dtype.items() if dtype != TensorProto.FLOAT}
    now: dict[str, int] = {}
    nodes: list[Any] = []
    made: dict[tuple[str, int], str] = {}
    for node in typed.graph.node:
        wanted = TensorProto.FLOAT if node.name in high else low
        for place, name in enumerate(node.input):
            if not name or name in kept_type or place in _APART.get(node.op_type, ()) or node.op_type == "Cast":
                continue
            current = now.get(name, TensorProto.FLOAT)
            if current == wanted:
                continue
            if (name, wanted) not in made:
                made[name, wanted] = f"{name}/{'f32' if wanted == TensorProto.FLOAT else kind}"
                if name in graph.initialisers:
                    typed.graph.initializer.append(_constant_as(graph, name, made[name, wanted], wanted))
                else:
                    label = f"{graph.producer[name].name}/cast_{'f32' if wanted == TensorProto.FLOAT else kind}"
                    nodes.append(helper.make_node("Cast", [name], [made[name, wanted]], f"{label}#{place}", to=wanted))
            node.input[place] = made[name, wanted]
        for name in node.output:
            if name and name not in kept_type:
                now[name] = TensorProto.FLOAT if node.op_type == "Cast" else wanted
        nodes.append(node)
    replace_nodes(typed, nodes)
    return _infer_types(typed, now, kind)


def _infer_types(model: Any, now: dict[str, int], kind: str) -> Graph:
    drop_unused(model)
    if kind == "fp16":
        return graph_from_model(model)
    # Before opset 22 ONNX's own rules know no BF16 convolution, though TensorRT does: state the types ourselves.
    for value in model.graph.value_info:
        value.type.tensor_type.elem_type = now.get(value.name, value.type.tensor_type.elem_type)
    return Graph(model)


def _high_nodes(graph: Graph, keep: set[str]) -> set[str]:
    """`keep`, and layout nodes between two FP32 nodes, which a Cast there and back would only slow down."""
    high = set(keep)
    for node in reversed(graph.nodes):
        takers = [taker for name in node.output for taker in graph.consumers.get(name, [])]
        producer = graph.producer.get(node.input[0]) if node.input else None
        between = producer is not None and producer.name in high and takers and all(t.name in high for t in takers)
        if node.op_type in LAYOUT and between:
            high.add(node.name)
    return high


def _reason(graph: Graph, node: Any, ranges: Mapping[str, Extremes]) -> str:
    touched = [name for name in (*node.input, *node.output) if name in ranges]
    if not touched:
        return ""
    worst = max(touched, key=lambda name: ranges[name].magnitude)
    if not ranges[worst].magnitude <= FP16_LIMIT:
        return f"magnitude {ranges[worst].magnitude:.0f} at {worst}"
    source = ranges.get(node.input[0])
    if source is not None and node.op_type in (*_NORMS, *_SUMS):
        count = _elements_per_result(graph, node)
        squares = node.op_type in _NORMS or node.op_type in ("ReduceSumSquare", "ReduceL2")
        total = count * (source.mean_square if squares else 1.0 if node.op_type == "Softmax" else source.mean_magnitude)
        if total > FP16_LIMIT:
            return f"{'squares' if squares else 'values'} add up to {total:.0f} over {count} elements"
    return _constant_reason(graph, node, ranges)


def _constant_reason(graph: Graph, node: Any, ranges: Mapping[str, Extremes]) -> str:
    from onnx import TensorProto

    for place, name in enumerate(node.input):
        stored = graph.initialisers.get(name)
        if stored is None or stored.data_type != TensorProto.FLOAT or place in _APART.get(node.op_type, ()):
            continue
        values = np.abs(graph.constant(name))
        peak = float(values.max(initial=0))
        if peak > FP16_LIMIT:
            return f"constant {peak:.3g}"
        # What is added to a result a thousand times larger is below FP16's rounding of that result anyway.
        added = node.op_type in ("Add", "Sub") or (place == 2 and node.op_type in ("Conv", "ConvTranspose", "Gemm"))
        result = ranges.get(node.output[0])
        if added and result is not None and peak <= result.magnitude * 2.0**-11:
            continue
        if 0 < peak < FP16_SMALLEST_NORMAL:
            return f"constant {peak:.3g} below FP16's normal range"
    return ""


def _elements_per_result(graph: Graph, node: Any) -> int:
    """How many elements one result of a reduction is made of."""
    shape = graph.shape[node.input[0]]
    if node.op_type in ("InstanceNormalization", "BatchNormalization", "GlobalAveragePool"):
        return math.prod(shape[2:])
    if node.op_type == "GroupNormalization":
        return math.prod(shape[1:]) // int(attribute(node, "num_groups", 1))
    if node.op_type == "LayerNormalization":
        return math.prod(shape[int(attribute(node, "axis", -1)) :])
    if node.op_type == "Softmax":
        return shape[int(attribute(node, "axis", -1))]
    return math.prod(shape) // max(1, math.prod(graph.shape[node.output[0]]))


def _constant_as(graph: Graph, name: str, fresh: str, kind: int) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    values = graph.constant(name)
    if kind == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), fresh)
    # BF16 is the upper half of FP32, rounded to nearest even.
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return helper.make_tensor(fresh, kind, values.shape, rounded.tobytes(), raw=True)
