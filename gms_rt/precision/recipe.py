"""`precision.json`: which node has which precision and why. Applied to its graph it yields the typed graph of a target.

- fp32: the graph as it is
- fp16: FP16, with the `kept` nodes in FP32
- bf16: BF16 for TensorRT; for a CPU the FP32 graph, whose runtime lowers it but for the `returned` nodes
- int8: Q/DQ on the `int8` nodes, the remainder FP16 for TensorRT and FP32 for a CPU, which may lower all of it but the
  `returned` nodes
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gms_rt.artifacts import check_format, read_json, write_json
from gms_rt.errors import ArtifactError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import check_layer_counts
from gms_rt.precision import PRECISIONS
from gms_rt.precision.equalise import equalise
from gms_rt.precision.floating import low_precision_graph, pixel_arithmetic_nodes
from gms_rt.precision.int8 import Int8Values, int8_graph
from gms_rt.precision.rounding import weights_from_differences

RECIPE_FILE = "precision.json"
RECIPE_FORMAT = "gms-rt-precision"
RECIPE_VERSION = 3  # 2 added `channels` and `cpu_only`, 3 `spans` and `rounding`
# Seven bits for weights. Processors without VNNI add pairs of u8·s8 products in 16 bits: 255·64·2 is the most that
# cannot saturate. With it a graph gives the same masks on every processor, and those are the ones the gate has seen.
WEIGHT_LEVELS = 64


@dataclass(frozen=True)
class PrecisionRecipe:
    """Precision by node."""

    precision: str  # one of PRECISIONS
    graph_sha256: str  # of the graph that it is for
    int8: list[str] = field(default_factory=list)  # nodes in INT8
    kept: dict[str, str] = field(default_factory=dict)  # node kept in FP32 among FP16: the reason
    ranges: dict[str, float] = field(default_factory=dict)  # clipping magnitude of each tensor that is quantised
    spans: dict[str, list[float]] = field(default_factory=dict)  # lowest and highest value of a tensor, for a CPU
    rounding: dict[str, str] = field(default_factory=dict)  # weights by node, as differences from the nearest rounding
    skips: list[str] = field(default_factory=list)  # tensors quantised on their way around a residual
    cpu_only: list[str] = field(default_factory=list)  # of `int8`, those that TensorRT keeps in its remainder
    channels: dict[str, str] = field(default_factory=dict)  # powers of two that even out a tensor: "0 -1 3"
    calibrator: str | None = None  # by name, INT8 only
    calibration: dict[str, Any] | None = None  # which images gave the ranges: source, count, hash
    blocks: list[dict[str, Any]] = field(default_factory=list)  # the search's table
    weight_levels: int = WEIGHT_LEVELS  # steps of a weight on one side of zero
    # Nodes that a CPU runs in f32 among bf16 or f16: of `kept`, or of an INT8 graph's remainder.
    returned: list[str] = field(default_factory=list)
    plan_kept: dict[str, str] = field(default_factory=dict)  # like `kept`, in the graph of GPU plans alone
    format: str = RECIPE_FORMAT
    version: int = RECIPE_VERSION

    def remainder(self, target: str) -> str:
        """The type of what is not INT8."""
        if self.precision == "int8":
            return "fp32" if target == "cpu" else "fp16"
        return "fp32" if self.precision == "bf16" and target == "cpu" else self.precision

    def apply(self, graph: Graph, target: str) -> Graph:
        """The typed graph for "cpu", "tensorrt" or "tensorrt-rtx", checked against this recipe."""
        remainder, nodes = self.remainder(target), self.int8_nodes(target)
        even = typed = equalise(graph, steps_from_text(self.channels))
        if nodes:
            typed = int8_graph(even, nodes, self.values(even), target, levels=self.weight_levels, skips=self.skips)
        kept = set(self.kept) | pixel_arithmetic_nodes(even) | (set() if target == "cpu" else set(self.plan_kept))
        if remainder != "fp32":
            typed = low_precision_graph(typed, remainder, kept)
        asked = remainder if self.precision == "bf16" else self.precision
        check_layer_counts(typed, asked, remainder, kept=kept, quantised=nodes)
        return typed

    def values(self, even: Graph) -> Int8Values:
        """What the INT8 graph takes from this recipe; `even` is the graph with its channels evened out."""
        spans = {name: (float(low), float(high)) for name, (low, high) in self.spans.items()}
        return Int8Values(self.ranges, spans, weights_from_differences(even, self.rounding, self.weight_levels))

    def int8_nodes(self, target: str) -> list[str]:
        """The nodes that are INT8 on a target."""
        return self.int8 if target == "cpu" else [name for name in self.int8 if name not in set(self.cpu_only)]


def steps_from_text(channels: dict[str, str]) -> dict[str, list[int]]:
    """The exponents of each tensor's channels, as the recipe's file writes them.

    >>> steps_from_text({"x": "0 -1 3"})
    {'x': [0, -1, 3]}
    """
    return {name: [int(step) for step in text.split()] for name, text in channels.items()}


def write_recipe(folder: Path, recipe: PrecisionRecipe) -> None:
    """Write `precision.json`."""
    value = dataclasses.asdict(recipe)
    for later in ("returned", "plan_kept"):
        if not value[later]:
            del value[later]  # programs from before there was such a key refuse what they do not know
    write_json(folder / RECIPE_FILE, value)


def read_recipe(place: Path) -> PrecisionRecipe:
    """Read and check a recipe: a file, or the `precision.json` of a folder."""
    path = place / RECIPE_FILE if place.is_dir() else place
    data = read_json(path)
    check_format(data, RECIPE_FORMAT, RECIPE_VERSION, where=path, fix="build the engine again")
    try:
        recipe = PrecisionRecipe(**data)
    except TypeError as error:
        raise ArtifactError(f"has missing or unknown keys ({error})", where=path) from error
    if recipe.precision not in PRECISIONS:
        raise ArtifactError(f"has unknown precision {recipe.precision!r}", where=path)
    return recipe
