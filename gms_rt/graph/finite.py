"""Weights that are not numbers: a graph that has them is refused, and the tensor is named.

A NaN is wrong wherever it stands. An infinity is wrong in what is multiplied or added; as a bound (Clip) or in an
attention mask it means something.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gms_rt.errors import ArtifactError
from gms_rt.graph.graph import Graph

_WEIGHED = {
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "MatMul",
    "Mul",
    "PRelu",
}


def check_weights(graph: Graph, where: Path) -> None:
    """Refuse a graph with a NaN among its constants, or an infinity among its weights."""
    for name, tensor in graph.initialisers.items():
        values = graph.constant(tensor.name)
        if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
            continue
        weighs = any(node.op_type in _WEIGHED for node in graph.consumers.get(name, ()))
        if np.isnan(values).any() or weighs:
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise not_finite(name, bad, values.size, where)


def not_finite(name: str, bad: int, size: int, where: object) -> ArtifactError:
    """The error for a weight with NaN or infinity in it."""
    return ArtifactError(
        f"{bad} of {size} values of the weight '{name}' are NaN or infinite",
        where=where,
        fix="train it again, or take an earlier checkpoint",
    )
