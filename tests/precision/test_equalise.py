"""Evening out channels before quantisation: exact in FP32, and worth it in INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from support.graphs import FLOAT, model_of
from support.precision_graphs import scenes, tiny_model

from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.precision.equalise import equalise, exponents, links
from gms_rt.precision.int8 import qdq_graph, quantisable
from gms_rt.precision.ranges import extremes
from gms_rt.precision.recipe import PrecisionRecipe


@pytest.fixture(scope="module")
def graph():
    return graph_from_model(tiny_model())


def block(*, shared=False, transposed=False, slope=0.25):
    """The end of a group normalisation, PReLU and a convolution; `shared` lets a sum take the activation too."""
    random = np.random.default_rng(3)
    weights = random.normal(0, 1, (4, 5, 2, 2) if transposed else (5, 4, 3, 3)).astype(np.float32)
    constants = {
        "gain": random.uniform(0.5, 40, (4, 1, 1)).astype(np.float32),
        "offset": random.normal(0, 3, (4, 1, 1)).astype(np.float32),
        "slope": np.full((1, 1, 1), slope, np.float32),
        "weights": weights,
    }
    nodes = [
        helper.make_node("Mul", ["image", "gain"], ["m"], "lmm/gain"),
        helper.make_node("Add", ["m", "offset"], ["a"], "lmm/offset"),
        helper.make_node("PRelu", ["a", "slope"], ["p"], "lmm/act"),
        helper.make_node("ConvTranspose" if transposed else "Conv", ["p", "weights"], ["mask"], "lmm/conv"),
    ]
    outputs = [("mask", FLOAT, None)]
    if shared:
        nodes.append(helper.make_node("Add", ["p", "image"], ["sum"], "lmm/sum"))
        outputs.append(("sum", FLOAT, None))
    return graph_from_model(model_of(nodes, [("image", FLOAT, [1, 4, 6, 6])], outputs, constants))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-6, 6), min_size=4, max_size=4), st.booleans(), st.sampled_from([0.25, -0.5, 2.0]))
def test_an_affine_and_its_convolution_are_scaled_exactly(steps, transposed, slope):
    graph = block(transposed=transposed, slope=slope)
    assert [link.tensor for link in links(graph, ["lmm/conv"])] == ["p"]
    even = equalise(graph, {"p": steps})
    image = np.random.default_rng(0).normal(0, 1, (1, 4, 6, 6)).astype(np.float32)
    first, second = (ReferenceEvaluator(g.model).run(None, {"image": image})[0] for g in (graph, even))
    assert np.array_equal(first, second)
    if any(steps):
        assert not np.array_equal(graph.constant("gain"), even.constant(even.nodes[0].input[1]))


def test_a_tensor_that_something_else_takes_stays_as_it_is():
    assert links(block(shared=True), ["lmm/conv"]) == []


def test_links_of_a_pipeline(graph):
    found = {link.tensor: link for link in links(graph, quantisable(graph))}
    assert set(found) == {
        "encoder/act/out",
        "lmm/down.0.conv1/out",
        "lmm/down.1.conv1/out",
        "decoder/conv/out",
        "decoder/resize/out",
        "decoder/conv_mid/out",
    }
    assert found["decoder/resize/out"].takers == ("decoder/conv_mid",)
    assert found["decoder/resize/out"].makers[0] == ("decoder/up", 1, 1)


def test_masks_of_the_evened_graph_are_the_same(graph):
    images = scenes(3, seed=11)
    steps = exponents(graph, links(graph, quantisable(graph)), images)
    assert steps
    even = equalise(graph, steps)
    onnx.checker.check_model(even.model, full_check=True)
    assert np.array_equal(Session(graph).probabilities(images), Session(even).probabilities(images))
    assert [n.name for n in even.nodes] == [n.name for n in graph.nodes]


def test_a_small_channel_survives_int8():
    """One channel is made 64 times larger, and smaller again by the next convolution: INT8 would lose the others."""
    model = tiny_model()
    for tensor in model.graph.initializer:
        if tensor.name in ("decoder/conv_mid.weight", "decoder/conv_out.weight", "decoder/conv_mid.bias"):
            value = numpy_helper.to_array(tensor).copy()
            if tensor.name == "decoder/conv_out.weight":
                value[:, 3] /= 64
            else:
                value[3] *= 64
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    graph = graph_from_model(model)
    images = scenes(4, seed=2)
    reference = Session(graph).probabilities(images).astype(int)

    def error(candidate):
        name = next(n for n in candidate.nodes if n.name == "decoder/conv_out").input[0]
        clips = {name: extremes(candidate, [name], images)[name].magnitude}
        typed = qdq_graph(candidate, ["decoder/conv_out"], clips, levels=64)
        return np.abs(Session(typed).probabilities(images) - reference).mean()

    even = equalise(graph, exponents(graph, links(graph, quantisable(graph)), images))
    assert error(even) < 0.6 * error(graph)


def test_recipe_carries_channels_and_what_only_a_cpu_quantises(graph):
    images = scenes(3, seed=4)
    steps = exponents(graph, links(graph, quantisable(graph)), images)
    nodes = ["decoder/conv_mid", "decoder/conv_out"]
    taken = [next(n for n in graph.nodes if n.name == name).input[0] for name in nodes]
    even = equalise(graph, steps)
    ranges = {name: seen.magnitude for name, seen in extremes(even, taken, images).items()}
    channels = {name: " ".join(map(str, values)) for name, values in steps.items()}
    recipe = PrecisionRecipe(
        "int8", "0" * 64, int8=nodes, ranges=ranges, cpu_only=["decoder/conv_out"], channels=channels
    )
    assert recipe.int8_nodes("cpu") == nodes
    assert recipe.int8_nodes("tensorrt") == ["decoder/conv_mid"]
    cpu, other = recipe.apply(graph, "cpu"), recipe.apply(graph, "tensorrt-rtx")
    kinds = [{n.name for n in g.nodes if n.name.endswith("/weights/dq")} for g in (cpu, other)]
    assert kinds == [{f"{name}/weights/dq" for name in nodes}, {"decoder/conv_mid/weights/dq"}]
    assert np.abs(Session(cpu).probabilities(images).astype(int) - Session(graph).probabilities(images)).mean() < 4
