"""Averaging over flips within a graph: it sees a picture as it is, mirrored and turned, and gives the masks' mean.

The network itself must take as many pictures at once as there are views of each. The casts from and to uint8 stay first
and last: TensorRT lets nothing else touch uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gms_rt.errors import GmsError
from gms_rt.graph.edit import add_constant, insert_nodes
from gms_rt.graph.graph import INPUT, OUTPUT, Graph
from gms_rt.scan.flips import View

_LAST = np.iinfo(np.int64).min  # where a reversed slice ends: behind its first element


def average_over_views(graph: Graph, views: Sequence[View], batch: tuple[int, int]) -> None:
    """Let a graph for `len(views)` times the pictures take `batch` of them and average over these views of each."""
    from onnx import helper

    model, count = graph.model, len(views)
    (first,), last = graph.consumers[INPUT], graph.producer[OUTPUT]
    if first.op_type != "Cast" or last.op_type != "Cast":
        raise GmsError("the casts from and to uint8 are not first and last", where="averaging over flips")
    seen, levels = first.output[0], last.input[0]
    first.output[0], last.input[0] = "input/as_it_is", "output/averaged"
    nodes: list[Any] = []
    named = [_seen(model, nodes, first.output[0], view, number) for number, view in enumerate(views)]
    nodes.append(helper.make_node("Concat", named, [seen], "input/views", axis=0))
    insert_nodes(model, {}, {first.name: nodes})
    parts = [f"output/view.{number}" for number in range(count)]
    nodes = [helper.make_node("Split", [levels], parts, "output/views", axis=0, num_outputs=count)]
    named = [_turned_back(model, nodes, part, view) for part, view in zip(parts, views, strict=True)]
    share = add_constant(model, "output/share", np.float32(1 / count))
    nodes += [
        helper.make_node("Sum", named, ["output/sum"], "output/sum"),
        helper.make_node("Mul", ["output/sum", share], ["output/mean"], "output/mean"),
        helper.make_node("Round", ["output/mean"], [last.input[0]], "output/round_mean"),
    ]
    insert_nodes(model, {last.name: nodes})
    if batch[0] == batch[1]:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch[0]
    graph.refresh()


def _seen(model: Any, nodes: list[Any], plain: str, view: View, number: int) -> str:
    """What a picture looks like in a view."""
    name = f"input/view.{number}"
    turned = _transposed(nodes, plain, f"{name}.turned") if view.transposed else plain
    return _reversed(model, nodes, turned, view.reversed, name)


def _turned_back(model: Any, nodes: list[Any], part: str, view: View) -> str:
    """A view's mask as it lies on the picture."""
    plain = _reversed(model, nodes, part, view.reversed, f"{part}.back")
    return _transposed(nodes, plain, f"{part}.turned") if view.transposed else plain


def _transposed(nodes: list[Any], value: str, name: str) -> str:
    from onnx import helper

    nodes.append(helper.make_node("Transpose", [value], [name], name, perm=[0, 2, 1, 3]))
    return name


def _reversed(model: Any, nodes: list[Any], value: str, axes: Sequence[int], name: str) -> str:
    from onnx import helper

    if not axes:
        return value
    told = {"starts": [-1] * len(axes), "ends": [_LAST] * len(axes), "axes": list(axes), "steps": [-1] * len(axes)}
    bounds = [add_constant(model, f"{name}/{key}", np.array(values, np.int64)) for key, values in told.items()]
    nodes.append(helper.make_node("Slice", [value, *bounds], [name], name))
    return name
