"""Stage graphs become one: chained, named by stage, and described.

Every name in a stage graph begins with the stage's. The first has one input and the last one output; in between, a
stage takes as many values as the one before it gives.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gms_rt.class_lists import values_from_classes
from gms_rt.classes import SegmentClass
from gms_rt.graph.edit import unite_opsets

GRAPH_FORMAT = "1"


def join_stages(models: Sequence[Any], inputs: str, outputs: str) -> Any:
    """Chain stage graphs, each one's outputs the next one's inputs; `inputs` and `outputs` name what is left open."""
    import onnx

    joined = models[0]
    for following in models[1:]:
        given, taken = joined.graph.output, following.graph.input
        wires = [(a.name, b.name) for a, b in zip(given, taken, strict=True)]
        joined = onnx.compose.merge_models(joined, following, io_map=wires)
    unite_opsets(joined)
    _rename_value(joined.graph, joined.graph.input[0].name, inputs)
    _rename_value(joined.graph, joined.graph.output[0].name, outputs)
    return joined


def name_pixel_arithmetic(model: Any) -> None:
    """Rename what lies before the first and behind the last convolution to `input/…` and `output/…`."""
    nodes = model.graph.node
    convolutions = [i for i, node in enumerate(nodes) if node.op_type in ("Conv", "ConvTranspose")]
    for place, part in (("input", nodes[: convolutions[0]]), ("output", nodes[convolutions[-1] + 1 :])):
        for node in part:
            node.name = f"{place}/{node.name.partition('/')[2]}"


def describe_graph(
    model: Any, name: str, tokenizer: dict[str, Any], source: dict[str, Any], classes: Sequence[SegmentClass] = ()
) -> None:
    """Write into the graph what it is, where it comes from and, where they are known, its mask's classes."""
    import onnx

    from gms_rt import __version__

    model.producer_name, model.producer_version = "gms-rt", __version__
    model.graph.name = name
    model.doc_string = "Not for clinical use."
    properties = {
        "format": GRAPH_FORMAT,
        "name": name,
        "tokenizer": json.dumps(tokenizer),
        "source": json.dumps(source),
    }
    if classes:
        properties["classes"] = json.dumps(values_from_classes(classes))
    onnx.helper.set_model_props(model, {f"gms_rt.{key}": value for key, value in properties.items()})


def _rename_value(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new
