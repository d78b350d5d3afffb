"""A graph in memory: who makes which tensor, who takes it, what is constant, of what type and shape.

The indices are made when first asked for and are those of that moment. Change a copy and index it again
(`graph_from_model`), or change the graph in place and call `refresh`.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What every fused graph takes and gives: uint8 [N,H,W,3] and uint8 [N,H,W,1].
INPUT, OUTPUT = "image", "mask"
# Metadata of a graph trained for INT8: JSON of what a quantised convolution takes at most, by the tensor's name. None
# of these tensors has negative values.
LEARNED_RANGES = "gms_rt.ranges"


class Graph:
    """An ONNX model with its indices."""

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
    def uses(self) -> Counter[str]:
        """How often a tensor is taken, by nodes and as an output of the graph."""
        found = Counter(name for node in self.nodes for name in node.input)
        found.update(output.name for output in self.model.graph.output)
        return found

    @functools.cached_property
    def initialisers(self) -> dict[str, Any]:
        """The constants as stored."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @functools.cached_property
    def dtype(self) -> dict[str, int]:
        """ONNX element type of each tensor that is known."""
        types = {tensor.name: int(tensor.data_type) for tensor in self.model.graph.initializer}
        for value in self._values():
            types[value.name] = int(value.type.tensor_type.elem_type)
        return types

    @functools.cached_property
    def shape(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor whose sizes are all known."""
        shapes = {tensor.name: tuple(tensor.dims) for tensor in self.model.graph.initializer}
        for value in self._values():
            kind = value.type.tensor_type
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        return shapes

    def refresh(self) -> None:
        """Drop the indices after a change in place."""
        for name in ("producer", "consumers", "uses", "initialisers", "dtype", "shape"):
            self.__dict__.pop(name, None)

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
        return metadata_of(self.model)

    def with_open_batch(self) -> Graph:
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

    def _values(self) -> list[Any]:
        inside = self.model.graph
        return [*inside.input, *inside.value_info, *inside.output]


def metadata_of(model: Any) -> dict[str, str]:
    """A model's `gms_rt.*` properties."""
    return {p.key: p.value for p in model.metadata_props if p.key.startswith("gms_rt.")}


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
