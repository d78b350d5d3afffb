"""A stand-in for an edge student: a convolutional network of about 0.4 GFLOP at 224 with random weights.

    python benchmarks/edge_graph.py edge.onnx && gms-rt build edge.onnx --precision bf16 --out engines/edge

It costs what a student costs and is no better than a threshold: the mask is what is darker than its surroundings, so
that masks look like masks and cost their usual time outside the engine. Nothing about accuracy follows from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 224
WIDTHS = ((48, 2), (96, 2), (128, 2))  # channels and residual blocks at strides 8, 16 and 32
TINY = np.float32(1e-3)  # what the network adds to the threshold


class _Writer:
    """Nodes and random weights, one after the other."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [output or f"{name}/out"], name, **attributes))
        return output or f"{name}/out"

    def conv(self, name: str, source: str, before: int, after: int, *, stride: int = 1, relu: bool = True) -> str:
        scale = np.sqrt(2 / (9 * before))
        weight = self.constant(f"{name}/weight", self._random.normal(0, scale, (after, before, 3, 3)).astype("float32"))
        bias = self.constant(f"{name}/bias", np.zeros(after, np.float32))
        made = self.node("Conv", name, source, weight, bias, pads=[1] * 4, strides=[stride] * 2, kernel_shape=[3, 3])
        return self.node("Relu", f"{name}/relu", made) if relu else made

    def block(self, name: str, source: str, width: int) -> str:
        inner = self.conv(f"{name}/a", source, width, width)
        outer = self.conv(f"{name}/b", inner, width, width, relu=False)
        return self.node("Relu", f"{name}/out", self.node("Add", f"{name}/add", source, outer))


def _bilinear(factor: int) -> Any:
    """The filter whose channels, shuffled to pixels, are the bilinear enlargement of one plane."""
    offsets = (np.arange(factor) + 0.5) / factor - 0.5
    taps = np.stack([np.maximum(-offsets, 0), 1 - np.abs(offsets), np.maximum(offsets, 0)], axis=1)
    filters = np.einsum("ya,xb->yxab", taps, taps)
    return filters.reshape(factor * factor, 1, 3, 3).astype(np.float32)


def edge_graph() -> onnx.ModelProto:
    """The graph: image, uint8 N,H,W,3, to mask, uint8 N,H,W,1."""
    w = _Writer()
    image = w.node("Cast", "cast", "image", to=TensorProto.FLOAT)
    image = w.node("Mul", "scale", image, w.constant("scale/factor", np.float32(1 / 255)))
    image = w.node("Transpose", "planes", image, perm=[0, 3, 1, 2])
    value = w.conv("stem", w.node("SpaceToDepth", "unshuffle", image, blocksize=4), 48, 32)
    before, levels = 32, []
    for index, (width, blocks) in enumerate(WIDTHS):
        value = w.conv(f"down{index}", value, before, width, stride=2)
        for each in range(blocks):
            value = w.block(f"level{index}/{each}", value, width)
        levels.append(value)
        before = width
    for index in (1, 0):
        width = WIDTHS[index][0]
        value = w.conv(f"up{index}", value, before, 4 * width)
        value = w.node("DepthToSpace", f"shuffle{index}", value, blocksize=2)
        value = w.node("Add", f"join{index}", value, levels[index])
        before = width
    faint = w.node("Mul", "faint", w.conv("head", value, before, 64, relu=False), w.constant("faint/factor", TINY))
    grey = w.node("ReduceMean", "grey", image, w.constant("grey/axes", np.array([1], np.int64)), keepdims=1)
    near = w.node("AveragePool", "near", grey, kernel_shape=[8, 8], strides=[8, 8])
    around = w.node("ReduceMean", "around", near, w.constant("around/axes", np.array([2, 3], np.int64)), keepdims=1)
    dark = w.node("Mul", "dark", w.node("Sub", "lower", around, near), w.constant("dark/factor", np.float32(20)))
    weight = w.constant("smooth/weight", _bilinear(8))
    smooth = w.node("Conv", "smooth", dark, weight, pads=[1] * 4, kernel_shape=[3, 3])
    drawn = w.node("DepthToSpace", "draw", w.node("Add", "sum", smooth, faint), blocksize=8)
    chance = w.node("Sigmoid", "chance", drawn)
    chance = w.node("Transpose", "last", chance, perm=[0, 2, 3, 1])
    chance = w.node("Mul", "levels", chance, w.constant("levels/factor", np.float32(255)))
    w.node("Cast", "bytes", w.node("Round", "round", chance), output="mask", to=TensorProto.UINT8)
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, SIZE, SIZE, channels])]
        for name, channels in (("image", 3), ("mask", 1))
    ]
    graph = helper.make_graph(w.nodes, "edge-stand-in", *ports, w.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Write the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    onnx.save(edge_graph(), parser.parse_args().graph)


if __name__ == "__main__":
    main()
