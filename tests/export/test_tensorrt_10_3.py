"""Nothing in our graphs is missing from the ONNX parser of TensorRT 10.3, which JetPack 6 has.

The table is that of onnx-tensorrt 10.1-GA (docs/operators.md, commit 96e7811), the newest that was at hand; the
changelog of that project lists for 10.2 and 10.3 only additions (tensor `axes` of Slice, another plugin for
ScatterElements), so 10.3 takes all of it. The rules for Q/DQ are those of `QuantDequantLinearHelper` in its
onnxOpImporters.cpp. What this cannot show is that the builder has a kernel for each: that needs the device.
https://github.com/onnx/onnx-tensorrt/blob/release/10.1-GA/docs/operators.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.precision_graphs import tiny_model

from gms_rt.demo.bundled import demo_graph
from gms_rt.engine.build import recorded_recipe
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import graph_from_model, read_graph
from gms_rt.precision import PRECISIONS
from gms_rt.precision.int8 import quantisable
from gms_rt.precision.recipe import PrecisionRecipe

OPSETS = range(9, 21)
FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16")
WHOLE = ("INT32", "INT64")
_TABLE: dict[tuple[str, ...], str] = {
    (*FLOATS, *WHOLE): """Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max
        Min Mod Mul Neg Pad Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
        ReduceProd ReduceSum ReduceSumSquare Relu ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK""",
    FLOATS: """Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos
        Cosh CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
        GroupNormalization GRU HardSigmoid HardSwish Hardmax InstanceNormalization IsInf LayerNormalization
        LeakyRelu Log LogSoftmax LRN LSTM LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization
        Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reciprocal
        Resize RNN Round Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu
        Upsample""",
    ("BOOL",): "And Not Or Xor",
    (*FLOATS, *WHOLE, "UINT8", "BOOL"): "Cast",
    (*FLOATS, *WHOLE, "BOOL"): """Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND
        Identity If Loop OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze
        Where""",
    ("FLOAT", "FLOAT16"): "DeformConv GridSample Mish NonMaxSuppression NonZero RoiAlign",
    ("INT8",): "DequantizeLinear",  # of FP8, INT4 and INT8
    (*FLOATS, "INT8", *WHOLE): "Gelu",
}
TYPES = {name: types for types, names in _TABLE.items() for name in names.split()}
# Inputs that must be constants, by their place.
CONSTANT = {
    **dict.fromkeys(("Squeeze", "Unsqueeze"), (1,)),
    **dict.fromkeys((name for name in TYPES if name.startswith("Reduce")), (1,)),
    "Slice": (1, 2, 3),
    "Pad": (3,),
}
RESIZE = {
    "mode": (b"nearest", b"linear"),
    "coordinate_transformation_mode": (
        b"half_pixel", b"pytorch_half_pixel", b"tf_half_pixel_for_nn", b"asymmetric", b"align_corners",
    ),
    "nearest_mode": (b"floor", b"ceil", b"round_prefer_floor", b"round_prefer_ceil"),
}  # fmt: skip


class Parser:
    """As much of the parser as refuses a node."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        proto = graph.model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.initializer}
        self.types = {name: TensorProto.DataType.Name(kind) for name, kind in graph.dtype.items() if kind}
        self.types |= {tensor.name: TensorProto.DataType.Name(tensor.data_type) for tensor in proto.initializer}
        for node in graph.nodes:
            if node.op_type == "Cast":  # onnx does not infer a Cast to BF16 at this opset
                self.types[node.output[0]] = TensorProto.DataType.Name(_attributes(node)["to"])
            elif node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(_attributes(node)["value"])
        self.ends = {value.name for value in (*proto.input, *proto.output)}

    def objections(self) -> list[str]:
        found = [] if self.graph.opset in OPSETS else [f"opset {self.graph.opset}"]
        for node in self.graph.nodes:
            found += [f"{node.op_type} {node.name}: {what}" for what in self._node(node)]
        return found

    def _node(self, node: Any) -> list[str]:
        if node.domain not in ("", "ai.onnx") or node.op_type not in TYPES:
            return ["no such operator"]
        data = 1 if node.op_type == "Where" else 0
        kind = self.types.get(node.input[data]) if node.input else self.types.get(node.output[0])
        found = [] if kind in TYPES[node.op_type] else [f"does not take {kind}"]
        for name in (*node.input, *node.output):
            if self.types.get(name) == "UINT8" and (name not in self.ends or node.op_type != "Cast"):
                found.append(f"{name} is UINT8 and not between a Cast and an end of the network")
        for place in CONSTANT.get(node.op_type, ()):
            if len(node.input) > place and node.input[place] and node.input[place] not in self.constants:
                found.append(f"input {place} is not a constant")
        # A strongly typed network converts nothing by itself.
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Mul", "PRelu", "InstanceNormalization"):
            kinds = {self.types.get(name) for name in node.input if name}
            found += [f"operands of {sorted(map(str, kinds))}"] if len(kinds) > 1 else []
        if node.op_type == "Resize":
            given = _attributes(node)
            found += [
                f"{key} {given[key]!r}" for key, known in RESIZE.items() if key in given and given[key] not in known
            ]
        return found + (self._quantised(node) if node.op_type in ("QuantizeLinear", "DequantizeLinear") else [])

    def _quantised(self, node: Any) -> list[str]:
        scale, zero = self.constants.get(node.input[1]), None
        if scale is None:
            return ["the scale is not a constant"]
        found = [] if self.types[node.input[1]] in FLOATS and (scale > 0).all() else ["a scale that is not positive"]
        if node.op_type == "QuantizeLinear" and self.types[node.input[1]] != self.types.get(node.input[0]):
            found.append("the scale is not of the tensor's type")
        if len(node.input) > 2:
            zero = self.constants[node.input[2]]
            if self.types[node.input[2]] != "INT8" or zero.any() or zero.size != scale.size:
                found.append("a zero point that is not INT8, zero and of the scale's size")
        elif node.op_type == "QuantizeLinear" and _attributes(node).get("output_dtype") != TensorProto.INT8:
            found.append("becomes UINT8")
        shape = self.graph.shape.get(node.input[0]) or np.shape(self.constants.get(node.input[0]))
        axis = _attributes(node).get("axis", 1)
        if scale.size > 1 and (node.input[0] not in self.constants or shape[axis] != scale.size):
            found.append("several scales, and not one for each output channel of weights")
        return found


def _attributes(node: Any) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def typed(graph: Graph, precision: str) -> Graph:
    """The graph for TensorRT, every quantisable node in INT8 there."""
    if precision != "int8":
        return PrecisionRecipe(precision, "").apply(graph, "tensorrt")
    nodes = quantisable(graph)
    ranges = {node.input[0]: 4.0 for node in graph.nodes if node.name in nodes}
    return PrecisionRecipe("int8", "", int8=list(nodes), ranges=ranges).apply(graph, "tensorrt")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bundled_graph_is_taken(precision: str) -> None:
    graph = read_graph(demo_graph())
    recipe = recorded_recipe(demo_graph())
    assert recipe is not None
    made = recipe.apply(graph, "tensorrt") if precision == "int8" else typed(graph, precision)
    assert Parser(made).objections() == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_exported_graph_of_any_tokenizer_is_taken(exported: tuple[Any, Path], precision: str) -> None:
    graph = read_graph(exported[1])
    assert graph.opset == 18
    assert Parser(typed(graph, precision)).objections() == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_with_a_deconvolution_is_taken(precision: str) -> None:
    assert Parser(typed(graph_from_model(tiny_model()), precision)).objections() == []


def test_what_it_lacks_is_named() -> None:
    """Each refusal can happen: a graph with all of them."""
    scale, zeros = np.array([0.1, -0.1], np.float32), np.zeros(1, np.uint8)
    constants = [numpy_helper.from_array(a, n) for n, a in (("scale", scale), ("zero", zeros))]
    constants.append(numpy_helper.from_array(np.ones((2, 1, 1, 1), np.float16), "half"))
    nodes = [
        helper.make_node("Transpose", ["image"], ["turned"], "turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["x"], "cast", to=TensorProto.FLOAT),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantise"),
        helper.make_node("Attention", ["x", "x", "x"], ["a"], "attend"),
        helper.make_node("Unsqueeze", ["x", "axes"], ["u"], "unsqueeze"),
        helper.make_node("Resize", ["x", "", "sizes"], ["r"], "resize", mode="cubic"),
        helper.make_node("Conv", ["x", "half"], ["c"], "mixed"),
        helper.make_node("Cast", ["c"], ["mask"], "end", to=TensorProto.UINT8),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 1]),
        helper.make_tensor_value_info("axes", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("sizes", TensorProto.FLOAT, [4]),
    ]
    mask = helper.make_tensor_value_info("mask", TensorProto.UINT8, [1, 1, 8, 8])
    model = helper.make_model(
        helper.make_graph(nodes, "odd", inputs, [mask], constants), opset_imports=[helper.make_opsetid("", 21)]
    )
    found = "\n".join(Parser(graph_from_model(model)).objections())
    for words in (
        "opset 21", "Transpose turn: does not take UINT8", "turned is UINT8", "a scale that is not positive",
        "a zero point that is not INT8", "several scales", "Attention attend: no such operator",
        "Unsqueeze unsqueeze: input 1 is not a constant", "Resize resize: mode b'cubic'",
        "Conv mixed: operands of ['FLOAT', 'FLOAT16']",
    ):  # fmt: skip
        assert words in found, found
