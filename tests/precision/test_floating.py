"""FP16 and BF16 typing: what stays FP32 and why, and whether the masks stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from support.precision_graphs import scenes, tiny_model

from gms_rt.graph.layer_counts import compute_type, layer_counts
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.precision.floating import (
    float_tensors,
    fp32_nodes,
    low_precision_graph,
    pixel_arithmetic_nodes,
    summed_tensors,
)
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.ranges import Extremes, extremes


def calibrate(graph, count=3):
    summed = summed_tensors(graph)
    names = list(dict.fromkeys([*float_tensors(graph), *summed]))
    return extremes(graph, names, scenes(count, seed=1), means=summed)


def in_onnxruntime(graph, images):
    """The graph as ONNX Runtime runs it node by node, FP16 kept as FP16 between nodes."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.bytes(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": image[None]})[0][..., 0] for image in images])


def test_a_harmless_graph_needs_no_fp32_nodes():
    graph = graph_from_model(tiny_model())
    assert fp32_nodes(graph, calibrate(graph)) == {}


def test_what_overflows_stays_fp32_and_saves_the_masks():
    graph = graph_from_model(tiny_model(blow_up=3e5))
    kept = fp32_nodes(graph, calibrate(graph))
    assert {"lmm/blow_up", "lmm/shrink"} <= set(kept)
    assert "magnitude" in kept["lmm/shrink"] or "constant" in kept["lmm/shrink"]
    assert "decoder/conv" not in kept
    images = scenes(4, seed=2)
    reference = Session(graph).probabilities(images)
    typed = low_precision_graph(graph, "fp16", kept)
    onnx.checker.check_model(typed.model, full_check=True)
    assert judge(in_onnxruntime(typed, images), reference, Gate()).passed
    # Without the FP32 nodes the same typing loses them: this is what the ranges are for.
    with np.errstate(all="ignore"):
        naive = low_precision_graph(graph, "fp16", ())
        assert not judge(in_onnxruntime(naive, images), reference, Gate()).passed


def test_large_sums_stay_fp32():
    graph = graph_from_model(tiny_model())
    ranges = calibrate(graph)
    norm = next(n for n in graph.nodes if n.op_type == "InstanceNormalization")
    loud = ranges | {norm.input[0]: Extremes(200.0, 2000.0, 40.0)}
    found = fp32_nodes(graph, loud)
    assert list(found) == [norm.name]
    assert "squares add up" in found[norm.name]


def test_typed_graph_is_fp16_between_grey_levels():
    graph = graph_from_model(tiny_model())
    typed = low_precision_graph(graph, "fp16", ())
    found = layer_counts(typed)
    assert found["compute"]["Conv"] == {"fp16": 11}
    assert found["compute"]["MatMul"] == {"fp16": 2}
    by_name = {n.name: n for n in typed.nodes}
    assert compute_type(typed, by_name["input/shift"]) == "fp32"
    assert compute_type(typed, by_name["output/round"]) == "fp32"
    assert {"input/cast", "output/round", "output/clamp"} <= pixel_arithmetic_nodes(graph)
    # One Cast in, one out, and the two of the uint8 input and output.
    assert sum(n.op_type == "Cast" for n in typed.nodes) == 4
    assert typed.initialisers["decoder/scales"].data_type == TensorProto.FLOAT


def test_fp16_masks_equal_fp32_masks():
    graph = graph_from_model(tiny_model())
    typed = low_precision_graph(graph, "fp16", ())
    images = scenes(6, seed=4)
    reference = Session(graph).probabilities(images)
    for found in (Session(typed).probabilities(images), in_onnxruntime(typed, images)):
        assert np.abs(found.astype(int) - reference).max() <= 3
        assert judge(found, reference, Gate(0.999, 0.995)).passed


def test_layout_between_two_fp32_nodes_is_not_cast_there_and_back():
    graph = graph_from_model(tiny_model())
    keep = {"lmm/down.0.norm/norm", "encoder/down"}
    typed = low_precision_graph(graph, "fp16", keep)
    by_name = {n.name: n for n in typed.nodes}
    assert compute_type(typed, by_name["lmm/down.0.norm/flat"]) == "fp32"
    assert compute_type(typed, by_name["lmm/down.0.norm/back"]) == "fp16"


def test_tiny_constants_are_not_flushed():
    model = tiny_model()
    tiny = next(t for t in model.graph.initializer if t.name == "lmm/tenth")
    tiny.CopyFrom(onnx.numpy_helper.from_array(np.float32(1e-6), "lmm/tenth"))
    graph = graph_from_model(model)
    assert "below FP16's normal range" in fp32_nodes(graph, calibrate(graph, 1))["lmm/attention.small"]


def test_a_tiny_bias_is_not_a_reason_to_stay_fp32():
    model = tiny_model()
    bias = next(t for t in model.graph.initializer if t.name == "decoder/conv_mid.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, 1e-6, np.float32), bias.name))
    graph = graph_from_model(model)
    assert fp32_nodes(graph, calibrate(graph, 1)) == {}


def test_bf16_constants_are_rounded_to_nearest_even():
    graph = graph_from_model(tiny_model())
    typed = low_precision_graph(graph, "bf16", ())
    name = "encoder/conv_in.weight"
    stored = next(t for t in typed.model.graph.initializer if t.name == f"{name}/bf16")
    upper = np.frombuffer(stored.raw_data, "<u2").astype(np.uint32) << 16
    back = upper.view(np.float32).reshape(graph.constant(name).shape)
    exact = graph.constant(name)
    assert np.abs(back - exact).max() <= np.abs(exact).max() * 2**-8
    assert layer_counts(typed)["compute"]["Conv"] == {"bf16": 11}
