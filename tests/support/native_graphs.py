"""Small ONNX graphs that keep the artefact's contract, or break it in one way, for the tests of the runners."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from support.graphs import FLOAT, UINT8, model_of


def mean_graph(
    path: Path,
    *,
    batch: int | str = 1,
    height: int = 8,
    width: int = 8,
    input_type: int = UINT8,
    output_type: int = UINT8,
    channels: int = 3,
    output_rank: int = 4,
) -> Path:
    """mask = round(mean over RGB): `expected_mean` gives the same with NumPy."""
    shape = [batch, height, width]
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], name="input/cast", to=FLOAT),
        helper.make_node("ReduceMean", ["f"], ["m"], name="lmm/mean", axes=[3], keepdims=1 if output_rank == 4 else 0),
        helper.make_node("Round", ["m"], ["r"], name="decoder/round"),
        helper.make_node("Cast", ["r"], ["mask"], name="output/cast", to=output_type),
    ]
    output = [*shape, 1] if output_rank == 4 else shape
    return save(path, nodes, [("image", input_type, [*shape, channels])], [("mask", output_type, output)])


def conv_graph(path: Path, *, batch: int = 1, size: int = 64, width: int = 16, depth: int = 4, seed: int = 0) -> Path:
    """A random convolutional network with real work in it, of the artefact's shape."""
    random = np.random.default_rng(seed)
    weights: list[Any] = []
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], name="input/cast", to=FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], name="input/transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["t", "scale"], ["x0"], name="input/scale"),
    ]
    weights.append(numpy_helper.from_array(np.float32(1 / 255).reshape(()), "scale"))
    channels = [3, *[width] * depth, 1]
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        kernel = random.normal(0, (2 / (9 * before)) ** 0.5, (after, before, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{i}"))
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], name=f"lmm/conv{i}", pads=[1, 1, 1, 1]))
        last = i == len(channels) - 2
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"c{i}"], [f"x{i + 1}"], name=f"lmm/act{i}"))
    weights.append(numpy_helper.from_array(np.float32(255).reshape(()), "full"))
    nodes += [
        helper.make_node("Mul", [f"x{len(channels) - 1}", "full"], ["s"], name="output/scale"),
        helper.make_node("Transpose", ["s"], ["n"], name="output/transpose", perm=[0, 2, 3, 1]),
        helper.make_node("Round", ["n"], ["r"], name="output/round"),
        helper.make_node("Cast", ["r"], ["mask"], name="output/cast", to=UINT8),
    ]
    return save(
        path,
        nodes,
        [("image", UINT8, [batch, size, size, 3])],
        [("mask", UINT8, [batch, size, size, 1])],
        weights,
    )


def varied_graph(path: Path) -> Path:
    """A small network of the operators that segmentation graphs are made of: 16x16 in, 16x16 out."""
    random = np.random.default_rng(5)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), name)

    def ints(name: str, *values: int) -> Any:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    weights = [
        numpy_helper.from_array(np.float32(1 / 255), "scale"), numpy_helper.from_array(np.float32(255), "full"),
        numpy_helper.from_array(np.float32(0.02), "step"), numpy_helper.from_array(np.int8(0), "zero"),
        numpy_helper.from_array(random.integers(-90, 90, (8, 4, 3, 3), np.int8), "w1"),
        numpy_helper.from_array(np.full(8, 0.01, np.float32), "w1step"),
        numpy_helper.from_array(np.zeros(8, np.int8), "w1zero"),
        weight("w0", 4, 3, 3, 3), weight("b0", 4), weight("gamma", 4), weight("beta", 4), weight("gamma8", 8),
        weight("beta8", 8), weight("mean8", 8), numpy_helper.from_array(np.ones(8, np.float32), "var8"),
        weight("wq", 8, 8), weight("wt", 8, 4, 2, 2), weight("wd", 8, 1, 3, 3), weight("w3", 1, 8, 3, 3),
        ints("tokens", 1, 8, 64), ints("map", 1, 8, 8, 8), ints("axis1", 1), ints("halves", 4, 4), ints("from", 0),
        ints("to", 4), ints("padding", 0, 0, 1, 1, 0, 0, 1, 1),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
    ]  # fmt: skip
    made = helper.make_node
    nodes = [
        made("Cast", ["image"], ["f"], name="input/cast", to=FLOAT),
        made("Transpose", ["f"], ["t"], name="input/transpose", perm=[0, 3, 1, 2]),
        made("Mul", ["t", "scale"], ["x"], name="input/scale"),
        made("Pad", ["x", "padding"], ["xp"], name="encoder/pad"),
        made("Conv", ["xp", "w0", "b0"], ["c0"], name="encoder/conv", strides=[2, 2]),
        made("InstanceNormalization", ["c0", "gamma", "beta"], ["n0"], name="encoder/norm"),
        made("Sigmoid", ["n0"], ["s0"], name="encoder/sigmoid"),
        made("Mul", ["n0", "s0"], ["a0"], name="encoder/swish"),
        made("QuantizeLinear", ["a0", "step", "zero"], ["q0"], name="encoder/quantise"),
        made("DequantizeLinear", ["q0", "step", "zero"], ["d0"], name="encoder/dequantise"),
        made("DequantizeLinear", ["w1", "w1step", "w1zero"], ["d1"], name="lmm/weights", axis=0),
        made("Conv", ["d0", "d1"], ["c1"], name="lmm/conv", pads=[1, 1, 1, 1], dilations=[1, 1]),
        made("BatchNormalization", ["c1", "gamma8", "beta8", "mean8", "var8"], ["n1"], name="lmm/norm"),
        made("Conv", ["n1", "wd"], ["c2"], name="lmm/depthwise", pads=[1, 1, 1, 1], group=8),
        made("Reshape", ["c2", "tokens"], ["r1"], name="lmm/tokens"),
        made("Transpose", ["r1"], ["r2"], name="lmm/rows", perm=[0, 2, 1]),
        made("MatMul", ["r2", "wq"], ["v"], name="lmm/project"),
        made("MatMul", ["v", "r1"], ["scores"], name="lmm/scores"),
        made("Softmax", ["scores"], ["p"], name="lmm/softmax", axis=-1),
        made("MatMul", ["p", "v"], ["o"], name="lmm/attend"),
        made("ReduceMean", ["o"], ["om"], name="lmm/mean", axes=[2], keepdims=1),
        made("Sub", ["o", "om"], ["oc"], name="lmm/centre"),
        made("Transpose", ["oc"], ["o2"], name="lmm/columns", perm=[0, 2, 1]),
        made("Reshape", ["o2", "map"], ["m"], name="lmm/map"),
        made("Split", ["m", "halves"], ["m1", "m2"], name="lmm/split", axis=1),
        made("Concat", ["m2", "m1"], ["mc"], name="lmm/concat", axis=1),
        made("ConvTranspose", ["mc", "wt"], ["u1"], name="decoder/up", strides=[2, 2]),
        made("Resize", ["m", "", "twice"], ["u2"], name="decoder/resize", mode="linear"),
        made("Slice", ["u2", "from", "to", "axis1"], ["u3"], name="decoder/slice"),
        made("Concat", ["u1", "u3"], ["u"], name="decoder/join", axis=1),
        made("MaxPool", ["u"], ["mp"], name="decoder/pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        made("Conv", ["mp", "w3"], ["y"], name="decoder/conv", pads=[1, 1, 1, 1]),
        made("Sigmoid", ["y"], ["ys"], name="decoder/sigmoid"),
        made("Mul", ["ys", "full"], ["yf"], name="output/scale"),
        made("Transpose", ["yf"], ["yn"], name="output/transpose", perm=[0, 2, 3, 1]),
        made("Round", ["yn"], ["yr"], name="output/round"),
        made("Cast", ["yr"], ["mask"], name="output/cast", to=UINT8),
    ]
    return save(path, nodes, [("image", UINT8, [1, 16, 16, 3])], [("mask", UINT8, [1, 16, 16, 1])], weights)


def crashing_graph(path: Path) -> Path:
    """A graph of sound structure that ends a process in OpenVINO 2026.4: a foreign operator without its weights."""
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], name="input/cast", to=FLOAT),
        helper.make_node("FusedConv", ["f"], ["c"], name="lmm/conv", domain="com.microsoft"),
        helper.make_node("Cast", ["c"], ["mask"], name="output/cast", to=UINT8),
    ]
    save(path, nodes, [("image", UINT8, [1, 8, 8, 3])], [("mask", UINT8, [1, 8, 8, 1])])
    model = onnx.load(str(path))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, str(path))
    return path


def save(
    path: Path,
    nodes: list[Any],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    weights: list[Any] | None = None,
) -> Path:
    """Write a graph of opset 13."""
    onnx.save(model_of(nodes, inputs, outputs, weights or [], opset=13, ir_version=8), str(path))
    return path


def images(count: int, height: int = 8, width: int = 8, seed: int = 1) -> NDArray[np.uint8]:
    """Random RGB images."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def expected_mean(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `mean_graph` computes; means of three bytes are never exactly half, so rounding is unambiguous."""
    return np.round(rgb.astype(np.float64).mean(-1)).astype(np.uint8)
