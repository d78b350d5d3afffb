"""An INT8 recipe without images: the ranges that a student learned in training, which its graph carries.

The graph was trained with these very roundings, so nothing is evened out, searched or rounded otherwise. The first
convolution is not among them. On a GPU the last one stays in the remainder, as in every INT8 recipe, and residual
branches are quantised with the ranges of the convolutions that take the same tensor.
"""

from __future__ import annotations

import json
import math

from gms_rt.errors import ArtifactError
from gms_rt.graph.graph import LEARNED_RANGES, Graph
from gms_rt.precision.int8 import quantisable, residual_skips
from gms_rt.precision.recipe import PrecisionRecipe

LEARNED = "learned"  # what the recipe has in the place of a calibrator's name


def has_learned_ranges(graph: Graph) -> bool:
    """Whether a graph carries ranges of its own."""
    return LEARNED_RANGES in graph.metadata()


def recipe_from_learned_ranges(graph: Graph, graph_sha256: str) -> PrecisionRecipe:
    """The recipe of a graph that carries its ranges."""
    where = f"metadata {LEARNED_RANGES}"
    try:
        ranges = {name: float(high) for name, high in json.loads(graph.metadata()[LEARNED_RANGES]).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError("is not JSON of numbers", where=where, fix="export the graph again") from error
    taken = {node.name: node.input[0] for node in graph.nodes}
    nodes = [name for name in quantisable(graph) if taken[name] in ranges]
    used = {taken[name] for name in nodes}
    if not nodes or used != set(ranges) or not all(0 < high < math.inf for high in ranges.values()):
        raise ArtifactError("does not fit this graph", where=where, fix="export the graph again")
    return PrecisionRecipe(
        "int8",
        graph_sha256,
        int8=nodes,
        ranges=ranges,
        spans={name: [0.0, high] for name, high in ranges.items()},
        skips=[name for name in dict.fromkeys(residual_skips(graph).values()) if name in ranges],
        cpu_only=nodes[-1:],
        calibrator=LEARNED,
    )
