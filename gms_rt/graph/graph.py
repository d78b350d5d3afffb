"""A fused ONNX graph in memory: who makes which tensor, who takes it, what is constant, and of what shape.

`read_graph` accepts only what the exporter writes: one uint8 `image` [N,H,W,3] in, one uint8 `mask` [N,H,W,1] out.
Every node leaves it with a unique name, every constant as an initialiser, every shape inferred, the batch fixed.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.artifacts import atomic_path
from gms_rt.errors import ArtifactError

INPUT, OUTPUT = "image", "mask"
# Above this many bytes of weights the model file keeps them beside it, as ONNX's own limit asks at 2 GB.
EXTERNAL_BYTES = 256 << 20


class Graph:
    """A model with its indices. The indices are those of the moment: change a copy, then index it again."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def nodes(self) -> Any:
        """The nodes in topological order."""
        return self.model.graph.node

    @functools.cached_property
    def producer(self) -> dict[str, Any]:
        """The node that makes a tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    @functools.cached_property
    def consumers(self) -> dict[str, list[Any]]:
        """The nodes that take a tensor, in order, each once."""
        found: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                if name:
                    found.setdefault(name, []).append(node)
        return found

    @functools.cached_property
    def initialisers(self) -> dict[str, Any]:
        """The constants as stored."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @functools.cached_property
    def dtype(self) -> dict[str, int]:
        """ONNX element type of each tensor that is known."""
        types = {tensor.name: int(tensor.data_type) for tensor in self.model.graph.initializer}
        for value in [*self.model.graph.input, *self.model.graph.value_info, *self.model.graph.output]:
            types[value.name] = int(value.type.tensor_type.elem_type)
        return types

    @functools.cached_property
    def shape(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor whose sizes are all known."""
        shapes = {tensor.name: tuple(tensor.dims) for tensor in self.model.graph.initializer}
        for value in [*self.model.graph.input, *self.model.graph.value_info, *self.model.graph.output]:
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                shapes[value.name] = tuple(dim.dim_value for dim in dims)
        return shapes

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return next(int(o.version) for o in self.model.opset_import if o.domain in ("", "ai.onnx"))

    @property
    def size(self) -> tuple[int, int, int]:
        """Batch, height and width of the input."""
        batch, height, width, _ = self.shape[INPUT]
        return batch, height, width

    def constant(self, name: str) -> NDArray[Any]:
        """The value of an initialiser."""
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self.initialisers[name]))

    def metadata(self) -> dict[str, str]:
        """The exporter's `gms_rt.*` properties."""
        return {p.key: p.value for p in self.model.metadata_props if p.key.startswith("gms_rt.")}

    def opened(self) -> Graph:
        """A copy that takes any number of images at once; the shapes inside are left to whoever runs it."""
        free = self.copy()
        del free.model.graph.value_info[:]
        for value in (*free.model.graph.input, *free.model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
        return free

    def copy(self) -> Graph:
        """An independent copy without indices."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return Graph(model)

    def bytes(self) -> bytes:
        """The model as one file's content."""
        data: bytes = self.model.SerializeToString()
        return data


def read_graph(path: Path, *, batch: int | None = None) -> Graph:
    """Read a fused graph and make it ready for typing; `batch` fixes an open batch (1 if not given)."""
    model = _load(path, weights=True)
    _fix_batch(model, batch)
    try:
        return graph_from_model(model)
    except Exception as error:  # whatever the checker stumbles over, the file is at fault
        raise _unfit(path, "valid", error) from error


def takes_any_batch(path: Path) -> bool:
    """Whether a fused graph's batch is open, without reading its weights."""
    return not _load(path, weights=False).graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value")


def graph_size(path: Path) -> tuple[int, int]:
    """Height and width of a fused graph, without reading its weights."""
    dims = _load(path, weights=False).graph.input[0].type.tensor_type.shape.dim
    return int(dims[1].dim_value), int(dims[2].dim_value)


def graph_from_model(model: Any) -> Graph:
    """Name the nodes, hoist the constants, infer the shapes."""
    import onnx

    # Joined graphs may import the standard operators once a part; raising one of the versions must raise all.
    imports = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in imports.items())
    _hoist_constants(model)
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}#{number}"
        seen.add(node.name)
    del model.graph.value_info[:]
    return Graph(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True))


def write_graph(graph: Graph, path: Path) -> list[Path]:
    """Write a graph, with its weights beside it where they are large; returns the files written."""
    import onnx

    size = sum(len(t.raw_data) for t in graph.model.graph.initializer)
    if size <= EXTERNAL_BYTES:
        with atomic_path(path) as part:
            part.write_bytes(graph.bytes())
        return [path]
    beside = path.with_name(path.name + ".data")
    beside.unlink(missing_ok=True)
    onnx.save(graph.copy().model, path, save_as_external_data=True, location=beside.name, size_threshold=1024)
    return [path, beside]


def stage(name: str) -> str:
    """The stage a node belongs to, from its name.

    >>> stage("lmm/down.0/conv1")
    'lmm'
    """
    return name.split("/", 1)[0] if "/" in name else ""


def attribute(node: Any, name: str, default: Any) -> Any:
    """An attribute's value, or what ONNX takes in its absence."""
    from onnx import helper

    for found in node.attribute:
        if found.name == name:
            return helper.get_attribute_value(found)
    return default


def _load(path: Path, *, weights: bool) -> Any:
    import onnx

    if not path.is_file():
        raise ArtifactError("is not a file", where=path, fix="give a graph written by gms-rt export")
    try:
        model = onnx.load(path, load_external_data=weights)
    except Exception as error:  # protobuf, missing external data, truncated file: all mean the same to the user
        raise _unfit(path, "readable", error) from error
    _check_ends(model, path)
    return model


def _unfit(path: Path, kind: str, error: Exception) -> ArtifactError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ArtifactError(f"is not a {kind} ONNX graph ({reason})", where=path, fix="export it again")


def _check_ends(model: Any, path: Path) -> None:
    import onnx

    stored = {tensor.name for tensor in model.graph.initializer}
    ends = [
        ("input", [v for v in model.graph.input if v.name not in stored], INPUT, 3),
        ("output", list(model.graph.output), OUTPUT, 1),
    ]
    for kind, values, name, channels in ends:
        where = values[0].type.tensor_type if len(values) == 1 and values[0].name == name else None
        dims = list(where.shape.dim) if where is not None else []
        fits = where is not None and where.elem_type == onnx.TensorProto.UINT8 and len(dims) == 4
        if not fits or dims[3].dim_value != channels or (kind == "input" and not all(d.dim_value for d in dims[1:])):
            raise ArtifactError(
                f"is not a fused GMS graph: its {kind} is not '{name}', uint8 [N,H,W,{channels}]",
                where=path,
                fix="write one with gms-rt export",
            )


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
    del model.graph.node[:]
    model.graph.node.extend(kept)
