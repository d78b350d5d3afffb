"""Every fold is exact, image borders included, and what would not be exact is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from support.graphs import FLOAT, model_of

from gms_rt.graph.fold import fold_exactly
from gms_rt.graph.graph import Graph

RNG = np.random.default_rng(0)
CONV3 = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}


def build(nodes, constants, outputs=1, inputs=3):
    """A model from `x` to `y`."""
    made = [helper.make_node(op, ins, outs, name=f"node{i}", **at) for i, (op, ins, outs, at) in enumerate(nodes)]
    typed = {
        k: np.asarray(v, np.int64 if np.asarray(v).dtype.kind == "i" else np.float32) for k, v in constants.items()
    }
    ends = [("x", FLOAT, [1, inputs, 7, 9])], [("y", FLOAT, [1, outputs, None, None])]
    model = model_of(made, *ends, typed, ir_version=9)
    onnx.checker.check_model(model)
    return model


def run(model, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def folds_exactly(model, operators):
    """Fold, check the operators that are left, and compare everywhere; borders apart, because they are the danger."""
    x = RNG.normal(size=(1, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value, 7, 9)).astype(np.float32)
    before = run(model, x)
    fold_exactly(Graph(model))
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node] == operators
    after = run(model, x)
    tolerance = 1e-5 * max(1.0, np.abs(before).max())
    border = np.ones(before.shape[2:], bool)
    border[1:-1, 1:-1] = False
    assert np.abs(before - after)[..., border].max() < tolerance
    assert np.abs(before - after).max() < tolerance
    used = {name for node in model.graph.node for name in node.input}
    assert all(t.name in used for t in model.graph.initializer)


def normal(*shape):
    return RNG.normal(size=shape)


def test_rgb_mean_and_affine_join_the_decoders_last_convolution():
    nodes = [
        ("Conv", ["x", "w", "b"], ["a"], CONV3),
        ("Mul", ["a", "two"], ["c"], {}),
        ("Sub", ["c", "one"], ["d"], {}),
        ("ReduceMean", ["d", "axis"], ["e"], {"keepdims": 1}),
        ("Add", ["e", "one"], ["f"], {}),
        ("Div", ["f", "two"], ["y"], {}),
    ]
    constants = {"w": normal(3, 3, 3, 3), "b": normal(3), "two": 2.0, "one": 1.0, "axis": [1]}
    model = build(nodes, constants)
    folds_exactly(model, ["Conv"])
    assert [d for t in model.graph.initializer for d in t.dims] == [1, 3, 3, 3, 1]


def test_quant_conv_joins_the_encoders_last_convolution_without_the_variance():
    nodes = [
        ("Conv", ["x", "w", "b"], ["a"], CONV3),
        ("Conv", ["a", "q", "qb"], ["c"], {"kernel_shape": [1, 1]}),
        ("Slice", ["c", "start", "end", "axis"], ["d"], {}),
        ("Sub", ["d", "shift"], ["e"], {}),
        ("Mul", ["e", "scale"], ["y"], {}),
    ]
    constants = {
        "w": normal(8, 3, 3, 3),
        "b": normal(8),
        "q": normal(8, 8, 1, 1),
        "qb": normal(8),
        "start": [0],
        "end": [4],
        "axis": [1],
        "shift": 0.3,
        "scale": 0.18215,
    }
    model = build(nodes, constants, outputs=4)
    folds_exactly(model, ["Conv"])
    assert [list(t.dims) for t in model.graph.initializer] == [[4, 3, 3, 3], [4]]


def test_post_quant_conv_joins_the_convolution_before_it_not_the_padded_one_behind():
    nodes = [
        ("Conv", ["x", "w"], ["a"], CONV3),
        ("Div", ["a", "scale"], ["c"], {}),
        ("Conv", ["c", "q", "qb"], ["d"], {"kernel_shape": [1, 1]}),
        ("Conv", ["d", "v", "vb"], ["y"], CONV3),
    ]
    constants = {
        "w": normal(3, 3, 3, 3),
        "scale": 0.18215,
        "q": normal(3, 3, 1, 1),
        "qb": normal(3),
        "v": normal(2, 3, 3, 3),
        "vb": normal(2),
    }
    folds_exactly(build(nodes, constants, outputs=2), ["Conv", "Conv"])


def test_a_mix_passes_sums_resizing_and_transposed_convolutions():
    scales = [1.0, 1.0, 2.0, 2.0]
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    nodes = [
        ("Conv", ["x", "w", "b"], ["a"], CONV3),
        ("Resize", ["a", "", "scales"], ["c"], linear),
        ("ConvTranspose", ["x", "t", "tb"], ["d"], {"strides": [2, 2], "kernel_shape": [2, 2]}),
        ("Sum", ["c", "d"], ["e"], {}),
        ("ReduceMean", ["e", "axis"], ["f"], {"keepdims": 1}),
        ("Add", ["f", "one"], ["y"], {}),
    ]
    constants = {
        "w": normal(4, 3, 3, 3),
        "b": normal(4),
        "t": normal(3, 4, 2, 2),
        "tb": normal(4),
        "scales": scales,
        "axis": [1],
        "one": 1.0,
    }
    folds_exactly(build(nodes, constants), ["Conv", "Resize", "ConvTranspose", "Sum"])


def test_pixel_scaling_joins_the_padded_convolution_when_no_offset_is_left():
    nodes = [
        ("Div", ["x", "max"], ["a"], {}),
        ("Mul", ["a", "two"], ["c"], {}),
        ("Sub", ["c", "one"], ["d"], {}),
        ("Add", ["d", "one"], ["e"], {}),
        ("Div", ["e", "two"], ["f"], {}),
        ("Conv", ["f", "w", "b"], ["y"], CONV3),
    ]
    constants = {"max": 255.0, "two": 2.0, "one": 1.0, "w": normal(2, 3, 3, 3), "b": normal(2)}
    folds_exactly(build(nodes, constants, outputs=2), ["Conv"])


def test_an_offset_stays_in_front_of_a_padded_convolution():
    nodes = [
        ("Div", ["x", "max"], ["a"], {}),
        ("Mul", ["a", "two"], ["c"], {}),
        ("Sub", ["c", "one"], ["d"], {}),
        ("Conv", ["d", "w"], ["y"], CONV3),
    ]
    constants = {"max": 255.0, "two": 2.0, "one": 1.0, "w": normal(2, 3, 3, 3)}
    folds_exactly(build(nodes, constants, outputs=2), ["Mul", "Sub", "Conv"])


def test_an_offset_joins_an_unpadded_convolution():
    nodes = [
        ("Mul", ["x", "two"], ["c"], {}),
        ("Sub", ["c", "one"], ["d"], {}),
        ("Conv", ["d", "w"], ["y"], {"kernel_shape": [3, 3]}),
    ]
    constants = {"two": 2.0, "one": [[[1.0]], [[2.0]], [[3.0]]], "w": normal(2, 3, 3, 3)}
    folds_exactly(build(nodes, constants, outputs=2), ["Conv"])


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        # The convolution's result is read twice.
        ([("Conv", ["x", "w"], ["a"], CONV3), ("Mul", ["a", "k"], ["c"], {}), ("Add", ["c", "a"], ["y"], {})],
         ["Conv", "Mul", "Add"]),
        # The mean is over rows, not channels.
        ([("Conv", ["x", "w"], ["a"], CONV3), ("ReduceMean", ["a", "rows"], ["y"], {"keepdims": 1})],
         ["Conv", "ReduceMean"]),
        # One summand is not a convolution.
        ([("Conv", ["x", "w"], ["a"], CONV3), ("Add", ["a", "x"], ["c"], {}), ("Mul", ["c", "k"], ["y"], {})],
         ["Conv", "Add", "Mul"]),
        # Something nonlinear lies between.
        ([("Conv", ["x", "w"], ["a"], CONV3), ("Relu", ["a"], ["c"], {}), ("Sub", ["c", "k"], ["y"], {})],
         ["Conv", "Relu", "Sub"]),
        # The constant varies over the picture.
        ([("Conv", ["x", "w"], ["a"], CONV3), ("Mul", ["a", "map"], ["y"], {})], ["Conv", "Mul"]),
        # A constant minus the value is not the value minus a constant.
        ([("Conv", ["x", "w"], ["a"], CONV3), ("Sub", ["k", "a"], ["y"], {})], ["Conv", "Sub"]),
    ],
)  # fmt: skip
def test_what_is_not_exact_is_left_alone(nodes, left):
    constants = {"w": normal(3, 3, 3, 3), "k": 3.0, "rows": [2], "map": normal(1, 1, 7, 9)}
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    model = build(nodes, {k: v for k, v in constants.items() if k in used}, outputs=3)
    folds_exactly(model, left)
