"""Blocks of a graph: the units in which the search gives precision back, and what each costs.

A block is a group of convolutions that belong together: those of one module, as the weights' names tell
(`lmm/down.0.conv1.weight` and `lmm/down.0.conv2.weight`), or a single convolution where names do not tell.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from gms_rt.graph.count import node_flop
from gms_rt.graph.graph import Graph, stage

# Time of an INT8 operation in FP32 operations: a cost model, not a measurement.
INT8_COST = 0.35


@dataclass(frozen=True)
class PrecisionBlock:
    """Some convolutions that change their precision together."""

    name: str
    nodes: tuple[str, ...]  # the convolutions, in graph order
    flop: int
    saves: float  # FLOP that INT8 saves, by the cost model above


def convolution_blocks(graph: Graph, candidates: Collection[str]) -> list[PrecisionBlock]:
    """The candidates in blocks, in graph order."""
    wanted = set(candidates)
    groups: dict[str, list[Any]] = {}
    for node in graph.nodes:
        if node.name in wanted:
            groups.setdefault(_module(node), []).append(node)
    found = []
    for name, nodes in groups.items():
        flop = sum(node_flop(graph, node) for node in nodes)
        found.append(PrecisionBlock(name, tuple(n.name for n in nodes), flop, flop * (1 - INT8_COST)))
    return found


def united_block(members: Sequence[PrecisionBlock]) -> PrecisionBlock:
    """Several blocks as one, named after the first and the last."""
    if len(members) == 1:
        return members[0]
    return PrecisionBlock(
        f"{members[0].name} … {members[-1].name} ({len(members)} blocks)",
        tuple(node for unit in members for node in unit.nodes),
        sum(unit.flop for unit in members),
        sum(unit.saves for unit in members),
    )


def _module(node: Any) -> str:
    head, _, own = node.name.rpartition("/") if "/" in node.name else ("", "", node.name)
    parts = node.input[1].removeprefix(f"{stage(node.name)}/").split(".")
    if len(parts) > 1 and parts[-1] == "weight":
        # Drop the parameter's name and the convolution's own: what remains is the module around it.
        own = ".".join(parts[:-2] or parts[:-1])
        head = stage(node.name)
    elif "/" in head:
        return str(head)  # names that are paths: the convolution's parent
    return f"{head}/{own}" if head else own
