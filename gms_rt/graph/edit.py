"""The small changes that every rewriting of a graph is made of; all work on the model in place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def add_constant(model: Any, name: str, value: Any) -> str:
    """Store a constant; returns its name."""
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(np.array(value, order="C"), name))
    return name


def replace_nodes(model: Any, nodes: Iterable[Any]) -> None:
    """Make `nodes` the nodes of the graph, in this order; they may be new ones or those it has."""
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def insert_nodes(
    model: Any, before: Mapping[str, Sequence[Any]], behind: Mapping[str, Sequence[Any]] | None = None
) -> None:
    """Put new nodes before and behind the nodes of these names."""
    behind = behind or {}
    nodes = model.graph.node
    replace_nodes(model, (new for n in nodes for new in [*before.get(n.name, ()), n, *behind.get(n.name, ())]))


def unite_opsets(model: Any) -> None:
    """Import each set of operators once: joining lists it for each part, and raising one version must raise all."""
    from onnx import helper

    versions = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in versions.items())


def drop_unused(model: Any) -> None:
    """Remove initialisers that nothing takes."""
    taken = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in taken]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
