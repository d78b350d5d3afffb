"""Weights rounded together: each rounding error is made good in the weights that are not rounded yet.

Rounding every weight to its nearest step leaves each output with the sum of many small errors. What an output loses by
one weight can be given back by others that see similar inputs: with H the second moments of the inputs over
calibration images, the columns are rounded one after the other, and what is left of each is spread over the rest by
the inverse of H (Optimal Brain Quantization in GPTQ's order; Frantar et al. 2022). A closed form: no training, no
random choice but the places that are looked at. Scales stay those of the nearest rounding, and no weight leaves the
range of its type, so the result is an INT8 graph like any other.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F32, F64
from gms_rt.errors import ArtifactError
from gms_rt.graph.graph import Graph, attribute
from gms_rt.precision.int8 import quantise_weights

# Windows looked at per image and convolution: with 64 images a few thousand, more than any convolution has columns.
_FEWEST_WINDOWS, _MOST_WINDOWS = 16, 64
_TOGETHER = 512  # windows whose moments are computed at once
# Columns above which the inverse takes longer than it is worth; such a convolution keeps the nearest rounding.
_MOST_COLUMNS = 2560
_DAMPING = 0.01  # of the mean of H's diagonal
_BLOCK = 64  # columns whose errors are spread at once
_WHOLE = 96  # columns of a triangle that is inverted as any matrix


class InputMoments:
    """Second moments of what convolutions take, gathered tensor by tensor and image by image."""

    def __init__(self, graph: Graph, nodes: Collection[str]) -> None:
        self._graph = graph
        self._groups: dict[str, dict[tuple[Any, ...], list[Any]]] = {}  # by tensor and window: convolutions that share
        self._moments: dict[tuple[Any, ...], F32] = {}
        self._waiting: dict[tuple[Any, ...], list[F32]] = {}  # windows that are not in the moments yet
        self._seen: dict[str, int] = {}
        for node in graph.nodes:
            if node.name in nodes and _fits(graph, node):
                window = _window(graph, node)
                self._groups.setdefault(node.input[0], {}).setdefault(window, []).append(node)

    def look(self, tensor: str, value: NDArray[Any]) -> None:
        """Take some windows of a tensor's value for one image."""
        number = self._seen.get(tensor, 0)
        self._seen[tensor] = number + 1
        for window in self._groups.get(tensor, ()):
            waiting = self._waiting.setdefault((tensor, *window), [])
            waiting.append(_windows(value, window, np.random.default_rng(number)))
            if len(waiting) * len(waiting[0]) >= _TOGETHER:
                self._count((tensor, *window))

    def rounded(self, levels: int) -> dict[str, NDArray[np.int8]]:
        """The weights of each convolution that was looked at, rounded together."""
        found = {}
        for tensor, windows in self._groups.items():
            for window, nodes in windows.items():
                self._count((tensor, *window))
                moments = self._moments.get((tensor, *window))
                if moments is None or not np.isfinite(moments).all():
                    continue
                order, factor = _spread(moments)
                for node in nodes:
                    axis = 1 if node.op_type == "ConvTranspose" else 0
                    weights = self._graph.constant(node.input[1])
                    found[node.name] = _round(weights, axis, levels, order, factor)
        return found

    def _count(self, key: tuple[Any, ...]) -> None:
        waiting = self._waiting.pop(key, [])
        if waiting:
            rows = np.concatenate(waiting)
            self._moments[key] = self._moments.get(key, np.float32(0)) + rows.T @ rows


def differences(graph: Graph, rounded: Mapping[str, NDArray[np.int8]], levels: int) -> dict[str, str]:
    """How far rounded weights are from the nearest rounding, as text for the recipe; most do not differ."""
    found = {}
    nodes = {node.name: node for node in graph.nodes}
    for name, values in rounded.items():
        nearest = nearest_weights(graph, nodes[name], levels)
        apart = values.astype(np.int16) - nearest
        if apart.any():
            packed = zlib.compress(np.clip(apart, -127, 127).astype(np.int8).tobytes(), 9)
            found[name] = base64.b64encode(packed).decode()
    return found


def weights_from_differences(graph: Graph, texts: Mapping[str, str], levels: int) -> dict[str, NDArray[np.int8]]:
    """The rounded weights that `differences` describes."""
    found = {}
    nodes = {node.name: node for node in graph.nodes}
    for name, text in texts.items():
        try:
            nearest = nearest_weights(graph, nodes[name], levels)
            apart = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.int8).reshape(nearest.shape)
        except (KeyError, ValueError, zlib.error) as error:
            raise ArtifactError(f"the recipe's rounding of '{name}' does not fit the graph") from error
        found[name] = np.clip(nearest.astype(np.int16) + apart, -levels, levels).astype(np.int8)
    return found


def nearest_weights(graph: Graph, node: Any, levels: int) -> NDArray[np.int8]:
    """Each weight of a convolution at its nearest step."""
    return quantise_weights(graph.constant(node.input[1]), 1 if node.op_type == "ConvTranspose" else 0, levels)[0]


def _fits(graph: Graph, node: Any) -> bool:
    """Whether a convolution's windows can be cut out here, and are not too many columns."""
    plain = attribute(node, "group", 1) == 1 and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
    dense = all(step == 1 for step in attribute(node, "dilations", []))
    shape = graph.shape[node.input[1]]
    columns = shape[0] if node.op_type == "ConvTranspose" else int(np.prod(shape[1:]))
    return plain and dense and len(shape) == 4 and columns <= _MOST_COLUMNS


def _window(graph: Graph, node: Any) -> tuple[Any, ...]:
    """Kernel, strides and padding of what one output value is made from; a deconvolution takes single pixels."""
    if node.op_type == "ConvTranspose":
        return (1, 1), (1, 1), (0, 0, 0, 0)
    kernel = tuple(graph.shape[node.input[1]][2:])
    return kernel, tuple(attribute(node, "strides", [1, 1])), tuple(attribute(node, "pads", [0, 0, 0, 0]))


def _windows(value: NDArray[Any], window: tuple[Any, ...], random: np.random.Generator) -> F32:
    """Some windows of a tensor, a row each, in the order of a convolution's weights."""
    (high, wide), (down, right), (top, left, bottom, end) = window
    channels, height, width = value[0].shape
    count = int(np.clip(channels * high * wide // 16, _FEWEST_WINDOWS, _MOST_WINDOWS))
    rows = random.integers(0, (height + top + bottom - high) // down + 1, count) * down - top
    columns = random.integers(0, (width + left + end - wide) // right + 1, count) * right - left
    found = np.zeros((count, channels, high, wide), np.float32)  # beyond the edge it stays zero
    for number, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        up, near = max(row, 0), max(column, 0)
        part = value[0][:, up : max(row + high, 0), near : max(column + wide, 0)]
        found[number, :, up - row : up - row + part.shape[1], near - column : near - column + part.shape[2]] = part
    return found.reshape(count, -1)


def _spread(moments: F32) -> tuple[NDArray[np.intp], F64]:
    """The order in which columns are rounded, and how an error spreads: the Cholesky factor of the inverse."""
    wide = moments.astype(np.float64)
    wide[np.diag_indices_from(wide)] += max(_DAMPING * float(np.diag(wide).mean()), 1e-12)
    order = np.argsort(-np.diag(wide), kind="stable")  # what weighs most has the most to spread to
    # With H = U Uᵀ, U upper triangular, the inverse of U is that factor; U is the lower one of H turned about.
    turned = order[::-1]
    lower = np.linalg.cholesky(wide[np.ix_(turned, turned)])
    return order, _inverse_of_upper(np.ascontiguousarray(lower[::-1, ::-1]))


def _inverse_of_upper(upper: F64) -> F64:
    """The inverse of an upper triangular matrix, by halves: a fraction of the work of a general inverse."""
    size = len(upper)
    if size <= _WHOLE:
        return np.triu(np.linalg.inv(upper))
    half = size // 2
    first, last = _inverse_of_upper(upper[:half, :half]), _inverse_of_upper(upper[half:, half:])
    found = np.zeros_like(upper)
    found[:half, :half], found[half:, half:] = first, last
    found[:half, half:] = -first @ (upper[:half, half:] @ last)
    return found


def _round(weights: NDArray[Any], axis: int, levels: int, order: NDArray[np.intp], factor: F64) -> NDArray[np.int8]:
    _, scale = quantise_weights(weights, axis, levels)
    outputs_first = weights if axis == 0 else weights.transpose(1, 2, 3, 0)
    flat = outputs_first.reshape(-1, len(order)).astype(np.float64)
    step = np.repeat(scale.astype(np.float64), len(flat) // len(scale))
    left, done = flat[:, order] / step[:, None], np.zeros(flat.shape, np.int8)  # in steps
    for start in range(0, len(order), _BLOCK):
        end = min(start + _BLOCK, len(order))
        errors = np.zeros((len(flat), end - start))
        for column in range(start, end):
            near = np.clip(np.rint(left[:, column]), -levels, levels)
            done[:, order[column]] = near
            error = (left[:, column] - near) / factor[column, column]
            left[:, column + 1 : end] -= error[:, None] * factor[column, column + 1 : end]
            errors[:, column - start] = error
        left[:, end:] -= errors @ factor[start:end, end:]
    shaped = done.reshape(outputs_first.shape)
    return np.ascontiguousarray(shaped if axis == 0 else shaped.transpose(3, 0, 1, 2))
