"""Rounding as FP16 and BF16 hardware does it, in FP32 arithmetic that no runtime can leave out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.graphs import FLOAT, UINT8, GraphWriter
from support.node_by_node import values_node_by_node
from support.precision_graphs import scenes, tiny_model

from gms_rt.errors import GmsError
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.precision.emulation import emulated_graph, low_type, rounding_inputs, tensor_types
from gms_rt.precision.int8 import quantisable, residual_skips
from gms_rt.precision.ranges import extremes
from gms_rt.precision.recipe import PrecisionRecipe
from gms_rt.runtime.signal_stack import cpu_core

ONNX = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
NUMPY: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
STEP = 8.0  # of the small net's quantised tensor
HOSTILE = [0.0, -0.0, 65504, 65519.996, 65520, -65520, 1e6, np.inf, -np.inf, np.nan, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25,
           2.0**-14, 1 + 2.0**-11, 1 + 3 * 2.0**-11, 2.0**-14 - 2.0**-25, 3e38]  # fmt: skip


def numbers() -> Any:
    """Every 257th finite FP32 number of any size, every kind of tie, and what is at the ends of FP16's range."""
    spread = np.arange(0, 2**32, 257 * 64, dtype=np.uint64).astype(np.uint32).view(np.float32)
    ties = (np.arange(2**20, dtype=np.uint32) << 12).view(np.float32)
    return np.concatenate([spread, ties, np.array(HOSTILE, np.float32)])


def by_openvino(graph: Graph, given: dict[str, Any]) -> Any:
    core = cpu_core()
    compiled = core.compile_model(core.read_model(graph.bytes()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(given)[0]


def by_onnxruntime(graph: Graph, given: dict[str, Any]) -> Any:
    """With every optimisation that it has."""
    session = onnxruntime.InferenceSession(graph.bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, given)[0]


@pytest.mark.parametrize("run", [by_openvino, by_onnxruntime])
@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_a_number_is_rounded_bit_for_bit_as_numpy_does(kind: str, run: Any) -> None:
    x = numbers()
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], "there", to=ONNX[kind]),
        helper.make_node("Cast", ["low"], ["y"], "back", to=FLOAT),
    ]
    ends = [helper.make_tensor_value_info(name, FLOAT, [len(x)]) for name in "xy"]
    opsets = [helper.make_opsetid("", 19)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=opsets, ir_version=10)
    graph = emulated_graph(Graph(model))
    inputs = {value.name for value in graph.model.graph.input}
    found = run(graph, {"x": x, **{name: value for name, value in rounding_inputs().items() if name in inputs}})
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = x.astype(NUMPY[kind]).astype(np.float32)
    if kind == "bf16":  # outside of this it leaves numbers as they are
        usual = (np.abs(x) > 2.0**-100) & (np.abs(x) < 2.0**100)
        found, wanted = found[usual], wanted[usual]
    assert len(found) > 700_000
    assert (found != wanted)[~np.isnan(wanted)].sum() == 0
    assert np.isnan(found[np.isnan(wanted)]).all()
    assert kind == "bf16" or np.isinf(found).sum() > 1000


def small_net() -> Any:
    """Two convolutions, the second around a residual, whose sums FP32 holds exactly, and FP16 does not."""
    w = GraphWriter()
    random = np.random.default_rng(5)
    x = w.node("Transpose", "input/t", w.node("Cast", "input/c", "image", to=FLOAT), perm=[0, 3, 1, 2])
    first = w.constant("first/w", (random.integers(-7, 8, (8, 3, 3, 3)) / 8).astype(np.float32))
    x = w.node("Conv", "first", x, first, w.constant("first/b", np.zeros(8, np.float32)), pads=[1] * 4)
    x = w.node("LeakyRelu", "act", x, alpha=0.25)
    steps = random.integers(-64, 65, (8, 8, 3, 3))
    steps[:, 0, 0, 0] = 64  # so the scale of every channel is a power of two
    second = w.constant("second/w", (steps / 64).astype(np.float32))
    y = w.node("Conv", "second", x, second, w.constant("second/b", np.zeros(8, np.float32)), pads=[1] * 4)
    x = w.node("Add", "add", x, y)
    last = w.constant("last/w", np.full((1, 8, 1, 1), 2.0**-12, np.float32))
    x = w.node("Conv", "last", x, last, w.constant("last/b", np.zeros(1, np.float32)))
    low, high = w.constant("low", np.float32(0)), w.constant("high", np.float32(1))
    x = w.node("Mul", "scale", w.node("Clip", "clip", x, low, high), w.constant("by", np.float32(255)))
    w.result(
        "Cast", "cast", w.node("Transpose", "out", w.node("Round", "round", x), perm=[0, 2, 3, 1]), "mask", to=UINT8
    )
    return w.model([("image", UINT8, [1, 12, 12, 3])], [("mask", UINT8, [1, 12, 12, 1])], name="small")


def by_hand(image: Any, model: Any, *, skip: bool) -> Any:
    """What the last convolution of that net gives, the second in INT8 and the rest in FP16: exact sums, then FP16."""
    stored = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}

    def half(values: Any) -> Any:
        return values.astype(np.float16).astype(np.float64)

    def conv(x: Any, weights: Any) -> Any:
        edge = weights.shape[2] // 2
        padded = np.pad(x, [(0, 0), (edge, edge), (edge, edge)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], axis=(1, 2))
        return half(np.einsum("chwij,ocij->ohw", windows, weights))

    x = conv(image[0].astype(np.float64).transpose(2, 0, 1), stored["first/w"])
    x = half(np.where(x < 0, x * 0.25, x))
    steps = np.clip(np.rint(x / STEP), -128, 127) * STEP
    x = half((steps if skip else x) + conv(steps, stored["second/w"]))
    return conv(x, stored["last/w"])


@pytest.mark.parametrize("skip", [True, False])
def test_a_small_net_is_what_numpy_makes_of_it_by_hand(skip: bool) -> None:
    model = small_net()
    graph = graph_from_model(model)
    source = graph.producer["act/out"].output[0]
    recipe = PrecisionRecipe("int8", "x", int8=["second"], ranges={source: STEP * 127}, skips=[source] * skip)
    emulated = emulated_graph(recipe.apply(graph, "tensorrt"))
    emulated.model.graph.output.append(helper.make_tensor_value_info("last/out", FLOAT, None))
    image = np.random.default_rng(6).integers(0, 256, (1, 12, 12, 3), np.uint8)
    mask, last = Session(emulated, inputs=rounding_inputs()).outputs(image)
    wanted = by_hand(image, model, skip=skip)
    assert len(np.unique(wanted)) > 100 and not np.array_equal(wanted, by_hand(image, model, skip=not skip))
    assert np.array_equal(last[0], wanted)
    assert np.array_equal(mask[0, ..., 0], np.rint(np.clip(wanted[0], 0, 1) * 255).astype(np.uint8))


def recipe_of(kind: str, graph: Graph) -> PrecisionRecipe:
    """Everything low; in INT8 with quantised skips and one convolution that a GPU keeps in its remainder."""
    if kind != "int8":
        return PrecisionRecipe(kind, "x")
    names = quantisable(graph)[1:]
    skips = list(residual_skips(graph).values())
    sources = [node.input[0] for node in graph.nodes if node.name in names]
    found = extremes(graph, list(dict.fromkeys([*sources, *skips])), scenes(4))
    ranges = {name: each.magnitude for name, each in found.items()}
    return PrecisionRecipe("int8", "x", int8=names, ranges=ranges, skips=skips, cpu_only=names[-1:])


@pytest.mark.parametrize("kind", ["fp16", "bf16", "int8"])
def test_masks_are_those_of_the_nodes_run_one_by_one(kind: str) -> None:
    graph = graph_from_model(tiny_model())
    typed = recipe_of(kind, graph).apply(graph, "tensorrt")
    images = scenes(3, seed=3)
    full = Session(graph).probabilities(images).astype(int)
    found = Session(emulated_graph(typed), inputs=rounding_inputs()).probabilities(images).astype(int)
    wanted = np.stack([values_node_by_node(typed, image[None])["mask"][0, ..., 0] for image in images])
    # In another order of summation a value may round to its neighbour; otherwise they are the same.
    assert np.abs(found - wanted).mean() < 0.1 * np.abs(found - full).mean()


@pytest.mark.parametrize("kind", ["fp16", "bf16", "int8"])
def test_no_tensor_has_digits_that_its_type_lacks(kind: str) -> None:
    graph = graph_from_model(tiny_model())
    typed = recipe_of(kind, graph).apply(graph, "tensorrt")
    low = low_type(typed)
    assert low == ("bf16" if kind == "bf16" else "fp16")
    emulated = emulated_graph(typed)
    made = {name for node in emulated.nodes for name in node.output}
    watched = [name for name, type_ in tensor_types(typed).items() if type_ == ONNX[low] and name in made]
    assert len(watched) > 30
    emulated.model.graph.output.extend(helper.make_tensor_value_info(name, FLOAT, None) for name in watched)
    for name, values in zip(watched, Session(emulated, inputs=rounding_inputs()).outputs(scenes(1))[1:], strict=True):
        assert np.array_equal(values, values.astype(NUMPY[low]).astype(np.float32)), name


def test_an_emulated_quantised_graph_has_the_pairs_of_the_plan_and_no_integers() -> None:
    graph = graph_from_model(tiny_model())
    recipe = recipe_of("int8", graph)
    typed = recipe.apply(graph, "tensorrt")
    pairs = [node.output[0] for node in typed.nodes if node.op_type == "QuantizeLinear"]
    bare = replace(recipe, skips=[]).apply(graph, "tensorrt")
    assert len(pairs) > sum(node.op_type == "QuantizeLinear" for node in bare.nodes)
    emulated = emulated_graph(typed)
    made = {node.output[0]: node.op_type for node in emulated.nodes}
    assert {made[name] for name in pairs} == {"Clip"}
    kinds = {node.op_type for node in emulated.nodes}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
    assert {tensor.data_type for tensor in emulated.model.graph.initializer} <= {FLOAT, TensorProto.INT64}


def test_an_fp32_graph_is_left_as_it_is_and_two_low_types_are_refused() -> None:
    graph = graph_from_model(tiny_model())
    assert low_type(graph) == ""
    assert [n.op_type for n in emulated_graph(graph).nodes] == [n.op_type for n in graph.nodes]
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], "a", to=ONNX["fp16"]),
        helper.make_node("Cast", ["a"], ["y"], "b", to=ONNX["bf16"]),
    ]
    ends = [helper.make_tensor_value_info(name, kind, [3]) for name, kind in (("x", FLOAT), ("y", ONNX["bf16"]))]
    both = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]))
    with pytest.raises(GmsError, match="both FP16 and BF16"):
        emulated_graph(Graph(both))
