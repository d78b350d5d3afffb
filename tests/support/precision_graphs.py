"""A small fused graph written by hand, so that precision and building are tested without torch and without assets.

It has what the real ones have: a strided encoder, group normalisation as InstanceNormalization, residual blocks,
attention, a transposed convolution, and grey-level arithmetic at both ends. Its mask follows dark regions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from support.graphs import FLOAT, UINT8, GraphWriter

SIZE = 64
UPSAMPLING_SIDE = 18


class _Writer(GraphWriter):
    def conv(
        self, name: str, x: str, inputs: int, outputs: int, *, size: int = 3, stride: int = 1, gain: float = 1.0
    ) -> str:
        # Brightness travels through channel 0; the other channels are random features that leak into it a little.
        weights = self.random.normal(0, 0.3 / np.sqrt(inputs * size * size), (outputs, inputs, size, size))
        weights[0] *= 0.05
        weights[0, 0] += gain / size**2 if stride > 1 else 0
        weights[0, 0, size // 2, size // 2] += 0 if stride > 1 else gain
        w = self.constant(f"{name}.weight", weights.astype(np.float32))
        b = self.constant(f"{name}.bias", np.zeros(outputs, np.float32))
        pads = [size // 2] * 4
        return self.node("Conv", name, x, w, b, strides=[stride] * 2, pads=pads, kernel_shape=[size] * 2)

    def norm(self, name: str, x: str, channels: int, side: int) -> str:
        groups = channels // 4
        split = self.constant(f"{name}/split", np.array([0, groups, -1], np.int64))
        joined = self.constant(f"{name}/joined", np.array([0, channels, side, side], np.int64))
        one = self.constant(f"{name}/one", np.ones(groups, np.float32))
        nil = self.constant(f"{name}/nil", np.zeros(groups, np.float32))
        flat = self.node("Reshape", f"{name}/flat", x, split)
        normed = self.node("InstanceNormalization", f"{name}/norm", flat, one, nil, epsilon=1e-6)
        return self.node("Reshape", f"{name}/back", normed, joined)


def tiny_model(
    seed: int = 0, *, size: int = SIZE, channels: int = 8, blow_up: float = 1.0, batch: int | str = 1
) -> Any:
    """The graph as a model; `blow_up` scales the middle so far that FP16 would overflow (and scales it back)."""
    w = _Writer(seed)
    x = w.node("Cast", "input/cast", "image", to=FLOAT)
    x = w.node("Transpose", "input/transpose", x, perm=[0, 3, 1, 2])
    x = w.node("Mul", "input/scale", x, w.constant("input/by", np.float32(1 / 127.5)))
    x = w.node("Sub", "input/shift", x, w.constant("input/one", np.float32(1)))
    x = w.conv("encoder/conv_in", x, 3, channels, stride=2)
    x = w.node("LeakyRelu", "encoder/act", x, alpha=0.7)
    x = w.conv("encoder/down", x, channels, channels, stride=2)
    side = size // 4
    for block in ("lmm/down.0", "lmm/down.1"):
        h = w.norm(f"{block}.norm", x, channels, side)
        h = w.node("PRelu", f"{block}.act", h, w.constant(f"{block}.slope", np.full((1, 1, 1), 0.25, np.float32)))
        h = w.conv(f"{block}.conv1", h, channels, channels, gain=0.1)
        h = w.conv(f"{block}.conv2", h, channels, channels, gain=0.1)
        x = w.node("Add", f"{block}.add", x, h)
    tokens = w.constant("lmm/tokens", np.array([0, channels, -1], np.int64))
    spatial = w.constant("lmm/image", np.array([0, channels, side, side], np.int64))
    q = w.node("Reshape", "lmm/attention.q_flat", w.conv("lmm/attention.q", x, channels, channels, size=1), tokens)
    v = w.node("Reshape", "lmm/attention.v_flat", w.conv("lmm/attention.v", x, channels, channels, size=1), tokens)
    scores = w.node("MatMul", "lmm/attention.scores", w.node("Transpose", "lmm/attention.t", q, perm=[0, 2, 1]), q)
    mixed = w.node("MatMul", "lmm/attention.mix", v, w.node("Softmax", "lmm/attention.softmax", scores, axis=-1))
    mixed = w.node("Mul", "lmm/attention.small", mixed, w.constant("lmm/tenth", np.float32(0.1)))
    x = w.node("Add", "lmm/attention.add", x, w.node("Reshape", "lmm/attention.back", mixed, spatial))
    if blow_up != 1:
        x = w.node("Mul", "lmm/blow_up", x, w.constant("lmm/up_by", np.float32(blow_up)))
        x = w.node("Mul", "lmm/shrink", x, w.constant("lmm/down_by", np.float32(1 / blow_up)))
    x = w.conv("decoder/conv", x, channels, channels)
    up = np.zeros((channels, channels, 2, 2), np.float32)
    up[np.arange(channels), np.arange(channels)] = 1
    up += w.random.normal(0, 0.02, up.shape).astype(np.float32)
    up_weights = w.constant("decoder/up.weight", up)
    up_bias = w.constant("decoder/up.bias", np.zeros(channels, np.float32))
    x = w.node("ConvTranspose", "decoder/up", x, up_weights, up_bias, strides=[2, 2], kernel_shape=[2, 2])
    x = w.node("LeakyRelu", "decoder/act", x, alpha=0.7)
    scales = w.constant("decoder/scales", np.array([1, 1, 2, 2], np.float32))
    x = w.node("Resize", "decoder/resize", x, "", scales, mode="nearest")
    x = w.conv("decoder/conv_mid", x, channels, channels)
    x = w.conv("decoder/conv_out", x, channels, 1, gain=-8.0)
    low, high = w.constant("output/low", np.float32(0)), w.constant("output/high", np.float32(1))
    x = w.node("Clip", "output/clamp", x, low, high)
    x = w.node("Mul", "output/scale", x, w.constant("output/by", np.float32(255)))
    x = w.node("Transpose", "output/transpose", w.node("Round", "output/round", x), perm=[0, 2, 3, 1])
    w.result("Cast", "output/cast", x, "mask", to=UINT8)
    image, mask = [batch, size, size, 3], [batch, size, size, 1]
    model = w.model([("image", UINT8, image)], [("mask", UINT8, mask)], name="tiny")
    about = {"format": "1", "name": "tiny", "tokenizer": json.dumps({"name": "tiny"}), "source": "{}"}
    helper.set_model_props(model, {f"gms_rt.{key}": value for key, value in about.items()})
    onnx.checker.check_model(model)
    return model


def upsampling_model(*, joined: bool = True, concat_axis: int = 1, **deconvolution: Any) -> Any:
    """Image, two activations of one convolution joined, upsampled by a deconvolution of these attributes, and drawn."""
    w = GraphWriter()

    def constant(name: str, value: Any) -> str:
        return w.constant(name, np.asarray(value, np.float32))

    def conv(name: str, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        weights = constant(f"{name}/w", w.random.normal(0, 1 / np.sqrt(9 * inputs), (outputs, inputs, 3, 3)))
        bias = constant(f"{name}/b", w.random.normal(0, 0.3, outputs))
        return w.node("Conv", name, x, weights, bias, pads=[1] * 4, strides=[stride] * 2)

    x = w.node("Transpose", "input/t", w.node("Cast", "input/c", "image", to=FLOAT), perm=[0, 3, 1, 2])
    x = w.node("Mul", "input/m", x, constant("input/by", 1 / 64))
    options = {"strides": [2, 2], "kernel_shape": [2, 2], **deconvolution}
    x = conv("first", x, 3, 8, stride=options["strides"][0])
    parts = [w.node("LeakyRelu", "left", x, alpha=0.1), w.node("Sigmoid", "right", x)]
    if joined:
        x = w.node("Concat", "join", *parts, axis=concat_axis)
        x = conv("mix", x, 16 if concat_axis in (1, -3) else 8, 8)
    x = w.node("LeakyRelu", "mixed", x, alpha=0.1)
    kernel, group = options["kernel_shape"], options.get("group", 1)
    weights = constant("up/w", w.random.normal(0, 0.3, (8, 8 // group, *kernel)))
    x = w.node("ConvTranspose", "up", x, weights, constant("up/b", w.random.normal(0, 0.3, 8)), **options)
    x = conv("draw", w.node("LeakyRelu", "act", x, alpha=0.01), 8, 1)
    x = w.node("Add", "grey", w.node("Mul", "contrast", x, constant("gain", 80)), constant("middle", 128))
    x = w.node("Clip", "clip", x, constant("low", 0), constant("high", 255))
    w.result("Cast", "cast", w.node("Transpose", "out", x, perm=[0, 2, 3, 1]), "mask", to=UINT8)
    side = UPSAMPLING_SIDE
    return w.model([("image", UINT8, [1, side, side, 3])], [("mask", UINT8, None)], name="small")


def tiny_graph(folder: Path, **options: Any) -> Path:
    """The graph as a file."""
    path = folder / "tiny.onnx"
    onnx.save(tiny_model(**options), path)
    return path


def scenes(count: int, *, seed: int = 0, size: int = SIZE) -> np.ndarray:
    """Smooth bright images with a dark blob: what the tiny graph segments."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    images = []
    for _ in range(count):
        y, x, r = [*random.uniform(0.35, 0.65, 2).tolist(), random.uniform(0.15, 0.3)]
        blob = 1 / (1 + np.exp(((rows - y) ** 2 + (columns - x) ** 2 - r**2) * 60))
        grey = 200 - 160 * blob + random.normal(0, 4, (size, size))
        images.append(np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2))
    return np.stack(images)
