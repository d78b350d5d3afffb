"""Small ONNX graphs that keep the artefact's contract, or break it in one way, for the tests of the runners."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

UINT8 = TensorProto.UINT8
FLOAT = TensorProto.FLOAT


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


def save(
    path: Path,
    nodes: list[Any],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    weights: list[Any] | None = None,
) -> Path:
    """Write a graph of opset 13."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        weights or [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def images(count: int, height: int = 8, width: int = 8, seed: int = 1) -> NDArray[np.uint8]:
    """Random RGB images."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def expected_mean(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `mean_graph` computes; means of three bytes are never exactly half, so rounding is unambiguous."""
    return np.round(rgb.astype(np.float64).mean(-1)).astype(np.uint8)
