"""A fused graph from its file, checked and normalised.

Only what the exporter writes is accepted: one uint8 `image` [N,H,W,3] in, one uint8 `mask` [N,H,W,1] out. A graph that
was read has a unique name on every node, every constant as an initialiser, every shape inferred, and a fixed batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.artifacts import sha256_bytes
from gms_rt.errors import ArtifactError, reason_from_error
from gms_rt.graph.edit import replace_nodes, unite_opsets
from gms_rt.graph.graph import INPUT, OUTPUT, Graph, attribute, metadata_of


@dataclass(frozen=True)
class GraphFacts:
    """What a fused graph's file says about itself, from one reading; weights in a second file are not read."""

    height: int  # of the input, in pixels
    width: int
    batch: int | None  # images at once; None: any number
    metadata: dict[str, str]  # the exporter's `gms_rt.*` properties
    sha256: str  # of the graph file

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


def graph_facts(path: Path) -> GraphFacts:
    """Read a fused graph's size, batch, metadata and hash."""
    data = _bytes(path)
    model = _parse(data, path)
    first, height, width, _ = model.graph.input[0].type.tensor_type.shape.dim
    return GraphFacts(
        int(height.dim_value),
        int(width.dim_value),
        int(first.dim_value) if first.HasField("dim_value") else None,
        metadata_of(model),
        sha256_bytes(data),
    )


def takes_any_batch(path: Path) -> bool:
    """Whether a fused graph's batch is open."""
    return graph_facts(path).batch is None


def graph_size(path: Path) -> tuple[int, int]:
    """Height and width of a fused graph."""
    return graph_facts(path).size


def read_graph(path: Path, *, batch: int | None = None) -> Graph:
    """Read a fused graph and make it ready for typing; `batch` fixes an open batch (1 if not given)."""
    from onnx.external_data_helper import load_external_data_for_model

    model = _parse(_bytes(path), path)
    try:
        load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # absent, outside the folder, too short
        raise _unfit(path, "readable", error) from error
    _fix_batch(model, batch)
    try:
        return graph_from_model(model)
    except Exception as error:  # whatever the checker complains about, the file is at fault
        raise _unfit(path, "valid", error) from error


def graph_from_model(model: Any) -> Graph:
    """Name the nodes, hoist the constants, infer the shapes."""
    import onnx

    unite_opsets(model)
    _hoist_constants(model)
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}#{number}"
        seen.add(node.name)
    del model.graph.value_info[:]
    return Graph(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True))


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise ArtifactError("is not a file", where=path, fix="give a graph written by gms-rt export")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unfit(path, "readable", error) from error


def _parse(data: bytes, path: Path) -> Any:
    """The model in a file's content, if its input and output are a fused graph's."""
    import onnx

    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own exception types are not public
        raise _unfit(path, "readable", error) from error
    stored = {tensor.name for tensor in model.graph.initializer}
    _check_port("input", [v for v in model.graph.input if v.name not in stored], INPUT, 3, path)
    _check_port("output", list(model.graph.output), OUTPUT, 1, path)
    return model


def _check_port(kind: str, values: list[Any], name: str, channels: int, path: Path) -> None:
    import onnx

    where = values[0].type.tensor_type if len(values) == 1 and values[0].name == name else None
    dims = list(where.shape.dim) if where is not None else []
    fits = where is not None and where.elem_type == onnx.TensorProto.UINT8 and len(dims) == 4
    if not fits or dims[3].dim_value != channels or (kind == "input" and not all(d.dim_value for d in dims[1:])):
        raise ArtifactError(
            f"is not a fused GMS graph: its {kind} is not '{name}', uint8 [N,H,W,{channels}]",
            where=path,
            fix="write one with gms-rt export",
        )


def _unfit(path: Path, kind: str, error: Exception) -> ArtifactError:
    what = f"is not a {kind} ONNX graph ({reason_from_error(error)})"
    return ArtifactError(what, where=path, fix="export it again")


def _fix_batch(model: Any, batch: int | None) -> None:
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    wanted = batch or (first.dim_value if first.dim_value > 0 else 1)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in (INPUT, OUTPUT):
            value.type.tensor_type.shape.dim[0].Clear()
            value.type.tensor_type.shape.dim[0].dim_value = wanted


def _hoist_constants(model: Any) -> None:
    from onnx import numpy_helper

    kept = []
    for node in model.graph.node:
        value = attribute(node, "value", None) if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
    # Raw bytes everywhere, so that a size is the length of its bytes and typing sees one form.
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data"):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), name))
    replace_nodes(model, kept)
