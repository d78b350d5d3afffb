"""ONNX graphs from torch modules: export one stage, join stages, name, describe, check and write."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gms_rt.artifacts import atomic_path
from gms_rt.errors import GmsError, MissingExtraError

EXTERNAL_DATA_BYTES = 100 * 2**20
FORMAT = "1"


@dataclass(frozen=True)
class Stage:
    """One part of the pipeline as a module of one input and one output."""

    name: str
    module: nn.Module
    example: Tensor


def export_stage(stage: Stage, opset: int, batch: tuple[int, int]) -> Any:
    """Export a stage; every name in its graph begins with the stage's."""
    import onnx

    try:
        import onnxscript  # noqa: F401 - the exporter needs it and says so late
    except ImportError as error:
        raise MissingExtraError("export", "train") from error
    low, high = batch
    shapes = None if low == high else ({0: torch.export.Dim("batch", min=low, max=high)},)
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            stage.module,
            (stage.example,),
            dynamo=True,
            opset_version=opset,
            input_names=["in"],
            output_names=["out"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    if program is None:
        raise GmsError("torch gave no graph", where=f"stage {stage.name}")
    model = simplified(program.model_proto)
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = node.name or node.output[0]
    if model.functions:
        raise GmsError("torch left functions in the graph", where=f"stage {stage.name}")
    return onnx.compose.add_prefix(model, f"{stage.name}/")


def join(models: Sequence[Any], inputs: str, outputs: str) -> Any:
    """Chain stage graphs: each one's output is the next one's input."""
    import onnx

    joined = models[0]
    for following in models[1:]:
        wires = [(joined.graph.output[0].name, following.graph.input[0].name)]
        joined = onnx.compose.merge_models(joined, following, io_map=wires)
    # Merging lists the operator set once a part, and all parts share one.
    versions = {opset.domain: opset for opset in joined.opset_import}
    del joined.opset_import[:]
    joined.opset_import.extend(versions.values())
    _rename_value(joined.graph, joined.graph.input[0].name, inputs)
    _rename_value(joined.graph, joined.graph.output[0].name, outputs)
    return joined


def simplified(model: Any) -> Any:
    """The graph after onnxsim, where that is installed, makes it smaller, and agrees."""
    try:
        import onnxsim
    except ImportError:
        return model
    with _silence():
        smaller, same = onnxsim.simplify(model)
    return smaller if same and len(smaller.graph.node) < len(model.graph.node) else model


def name_edges(model: Any) -> None:
    """Rename what lies before the first and behind the last convolution to `input/…` and `output/…`."""
    nodes = model.graph.node
    convolutions = [i for i, node in enumerate(nodes) if node.op_type in ("Conv", "ConvTranspose")]
    for place, part in (("input", nodes[: convolutions[0]]), ("output", nodes[convolutions[-1] + 1 :])):
        for node in part:
            node.name = f"{place}/{node.name.partition('/')[2]}"


def describe(model: Any, name: str, tokenizer: dict[str, Any], source: dict[str, Any]) -> None:
    """Write into the graph what it is and where it comes from."""
    import onnx

    from gms_rt import __version__

    model.producer_name, model.producer_version = "gms-rt", __version__
    model.graph.name = name
    model.doc_string = "Not for clinical use."
    properties = {"format": FORMAT, "name": name, "tokenizer": json.dumps(tokenizer), "source": json.dumps(source)}
    onnx.helper.set_model_props(model, {f"gms_rt.{key}": value for key, value in properties.items()})


def write_graph(model: Any, out: Path) -> None:
    """Check and write a graph; above 100 MB the weights go beside it, into `<name>.onnx.data`."""
    import onnx

    if model.ByteSize() <= EXTERNAL_DATA_BYTES:
        onnx.checker.check_model(model, full_check=True)
        with atomic_path(out) as part:
            part.write_bytes(model.SerializeToString())
        return
    data = out.with_name(f"{out.name}.data")
    with atomic_path(data) as part_data:
        part_data.unlink()
        part = part_data.with_name(f"{part_data.name}.onnx")
        try:
            onnx.save_model(
                model,
                str(part),
                save_as_external_data=True,
                all_tensors_to_one_file=True,
                location=part_data.name,
                size_threshold=1024,
            )
            light = onnx.load(str(part), load_external_data=False)
        finally:
            part.unlink(missing_ok=True)
        for tensor in light.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data.name
    with atomic_path(out) as part_graph:
        part_graph.write_bytes(light.SerializeToString())
    onnx.checker.check_model(str(out), full_check=True)


def _rename_value(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Exporters talk to stdout and warn about their own insides; errors still come out."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
