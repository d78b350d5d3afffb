"""How tests write an ONNX graph: nodes and constants one by one, or a whole model from its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

UINT8, FLOAT = TensorProto.UINT8, TensorProto.FLOAT
Port = tuple[str, int, "Sequence[int | str | None] | None"]  # name, element type, shape


def model_of(
    nodes: Sequence[Any],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    constants: Mapping[str, Any] | Sequence[Any] = (),
    *,
    name: str = "test",
    opset: int = 18,
    ir_version: int = 10,
) -> Any:
    """A model of nodes, ports and constants (tensors, or arrays by name)."""
    if isinstance(constants, Mapping):
        constants = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    ends = [[helper.make_tensor_value_info(*port) for port in ports] for ports in (inputs, outputs)]
    graph = helper.make_graph(nodes, name, *ends, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


class GraphWriter:
    """A graph in the making: each node's output is called after the node."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        """Store a constant; returns its name."""
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns its output."""
        self.nodes.append(helper.make_node(op, list(inputs), [f"{name}/out"], name, **attributes))
        return f"{name}/out"

    def result(self, op: str, name: str, source: str, output: str, **attributes: Any) -> None:
        """Add the node that makes an output of the graph."""
        self.nodes.append(helper.make_node(op, [source], [output], name, **attributes))

    def model(self, inputs: Sequence[Port], outputs: Sequence[Port], *, name: str = "test") -> Any:
        """The finished model."""
        return model_of(self.nodes, inputs, outputs, self.constants, name=name)
