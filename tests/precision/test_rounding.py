"""Weights rounded together, and how a recipe remembers them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from support.precision_graphs import scenes, tiny_model

from gms_rt.errors import ArtifactError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import layer_counts
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.precision import rounding
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.int8 import Int8Values, int8_graph, qdq_graph, quantisable, quantise_weights
from gms_rt.precision.ranges import extremes, histograms, with_outputs
from gms_rt.precision.recipe import PrecisionRecipe
from gms_rt.precision.rounding import InputMoments, differences, weights_from_differences


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_from_model(tiny_model())


@pytest.fixture(scope="module")
def measured(graph: Graph) -> tuple[Int8Values, dict[str, Any]]:
    """What calibration finds out about the inner convolutions, and their rounded weights."""
    names = quantisable(graph)[1:-1]
    sources = list(dict.fromkeys(node.input[0] for node in graph.nodes if node.name in set(names)))
    tops = {name: found.magnitude for name, found in extremes(graph, sources, scenes(4, seed=1)).items()}
    moments = InputMoments(graph, names)
    counts = histograms(graph, tops, scenes(4, seed=1), look=moments.look)
    spans = {name: seen.span for name, seen in counts.items() if seen.span is not None}
    rounded = moments.rounded(64)
    return Int8Values(tops, spans, rounded), rounded


def test_outputs_keep_closer_than_with_the_nearest_steps(graph: Graph, measured: Any) -> None:
    """On pictures that gave no moments, each convolution by itself, its input untouched."""
    _, rounded = measured
    assert set(rounded) == set(quantisable(graph)[1:-1])
    nodes = {node.name: node for node in graph.nodes}
    outputs = [nodes[name].output[0] for name in rounded]

    def values(name: str, weights: Any) -> Any:
        changed = graph.copy()
        for tensor in changed.model.graph.initializer:
            if tensor.name == nodes[name].input[1]:
                tensor.raw_data = weights.astype(np.float32).tobytes()
        session = Session(with_outputs(graph_from_model(changed.model), [nodes[name].output[0]]))
        return np.stack([session.outputs(image[None])[1].copy() for image in scenes(3, seed=7)])

    errors = []
    for name in rounded:
        weights = graph.constant(nodes[name].input[1])
        axis = 1 if nodes[name].op_type == "ConvTranspose" else 0
        nearest, scale = quantise_weights(weights, axis, 64)
        shaped = scale.reshape([-1 if place == axis else 1 for place in range(4)])
        true = values(name, weights)
        errors.append([np.square(values(name, w * shaped) - true).mean() for w in (nearest, rounded[name])])
    near, together = np.array(errors).T
    assert len(outputs) > 5
    assert (together < near).mean() > 0.8
    assert np.exp(np.log(together / near).mean()) < 0.6


def test_rounded_weights_stay_within_the_steps(graph: Graph, measured: Any) -> None:
    _, rounded = measured
    assert max(int(np.abs(values.astype(int)).max()) for values in rounded.values()) <= 64
    assert all(values.dtype == np.int8 for values in rounded.values())


def test_a_recipe_remembers_the_rounding(graph: Graph, measured: Any) -> None:
    values, rounded = measured
    texts = differences(graph, rounded, 64)
    again = weights_from_differences(graph, texts, 64)
    assert texts and all(np.array_equal(again[name], rounded[name]) for name in texts)
    nodes = {node.name: node for node in graph.nodes}
    for name in set(rounded) - set(texts):  # what is at its nearest steps is not written
        axis = 1 if nodes[name].op_type == "ConvTranspose" else 0
        assert np.array_equal(rounded[name], quantise_weights(graph.constant(nodes[name].input[1]), axis, 64)[0])
    recipe = PrecisionRecipe(
        "int8",
        "",
        int8=list(rounded),
        ranges=dict(values.clips),
        spans={name: list(ends) for name, ends in values.spans.items()},
        rounding=texts,
    )
    wanted = int8_graph(graph, list(rounded), values, "cpu", levels=64, skips=())
    assert recipe.apply(graph, "cpu").bytes() == wanted.bytes()


@pytest.mark.parametrize("text", ["", "not base64!", "eJw=", "eJxjYGAAAAADAAE="])
def test_a_damaged_rounding_is_named(graph: Graph, text: str) -> None:
    with pytest.raises(ArtifactError, match=r"rounding of 'lmm/down\.1\.conv2' does not fit"):
        weights_from_differences(graph, {"lmm/down.1.conv2": text}, 64)
    with pytest.raises(ArtifactError, match="rounding of 'elsewhere'"):
        weights_from_differences(graph, {"elsewhere": text}, 64)


def test_one_sided_tensors_are_unsigned_on_a_cpu_and_nowhere_else(graph: Graph, measured: Any) -> None:
    values, rounded = measured
    cpu = int8_graph(graph, list(rounded), values, "cpu", levels=64, skips=())
    zeros = {n.output[0]: cpu.constant(n.input[2]) for n in cpu.nodes if n.op_type == "QuantizeLinear"}
    kinds = {str(zero.dtype) for zero in zeros.values()}
    assert "uint8" in kinds
    assert layer_counts(cpu)["compute"]["Conv"]["int8"] >= len(rounded) - 1
    other = int8_graph(graph, list(rounded), values, "tensorrt", levels=64, skips=())
    for node in other.nodes:
        if node.op_type == "QuantizeLinear":
            assert other.constant(node.input[2]).dtype == np.int8
            assert not other.constant(node.input[2]).any()


def test_unsigned_tensors_come_closer_to_fp32(graph: Graph, measured: Any) -> None:
    values, rounded = measured
    images = scenes(6, seed=11)
    true = Session(graph).probabilities(images).astype(int)

    def error(found: Int8Values) -> float:
        typed = int8_graph(graph, list(rounded), found, "cpu", levels=64, skips=())
        return float(np.square(Session(typed).probabilities(images) - true).mean())

    assert error(Int8Values(values.clips, values.spans)) < error(Int8Values(values.clips))


def test_onnxruntime_and_openvino_agree_on_unsigned_tensors(graph: Graph, measured: Any) -> None:
    values, rounded = measured
    typed = qdq_graph(graph, list(rounded), values, levels=64)
    images = scenes(4, seed=9)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    other = onnxruntime.InferenceSession(typed.bytes(), options, providers=["CPUExecutionProvider"])
    theirs = np.concatenate([other.run(None, {"image": image[None]})[0][..., 0] for image in images])
    form = int8_graph(graph, list(rounded), values, "cpu", levels=64, skips=())
    for ours in (Session(typed).probabilities(images), Session(form).probabilities(images)):
        assert np.abs(ours.astype(int) - theirs).mean() < 1
        assert judge(ours, theirs, Gate()).passed


@pytest.mark.parametrize("window", [((3, 3), (1, 1), (1, 1, 1, 1)), ((3, 3), (2, 2), (0, 0, 1, 1)),
                                    ((2, 3), (1, 2), (3, 0, 2, 4)), ((1, 1), (1, 1), (0, 0, 0, 0))])  # fmt: skip
def test_windows_are_those_of_the_padded_tensor(window: Any) -> None:
    (high, wide), (down, right), (top, left, bottom, end) = window
    value = np.random.default_rng(0).normal(size=(1, 5, 9, 7)).astype(np.float32)
    padded = np.pad(value[0], ((0, 0), (top, bottom), (left, end)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (high, wide), axis=(1, 2))[:, ::down, ::right]
    every = {window.tobytes() for window in view.transpose(1, 2, 0, 3, 4).reshape(-1, 5 * high * wide)}
    found = rounding._windows(value, window, np.random.default_rng(1))
    assert {row.tobytes() for row in found} <= every
    assert len({row.tobytes() for row in found}) > 5, "it looks at several places"


def test_an_error_spreads_by_the_cholesky_factor_of_the_inverse() -> None:
    inputs = np.random.default_rng(0).normal(size=(900, 250)) * np.linspace(0.1, 4, 250)
    moments = (inputs.T @ inputs).astype(np.float32)
    order, factor = rounding._spread(moments)
    wide = moments.astype(np.float64)
    wide[np.diag_indices_from(wide)] += 0.01 * np.diag(wide).mean()
    assert np.allclose(factor, np.triu(factor)) and np.all(np.diff(np.diag(wide)[order]) <= 0)
    assert np.allclose(factor.T @ factor @ wide[np.ix_(order, order)], np.eye(250), atol=1e-8)
