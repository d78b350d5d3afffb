"""A typed graph in ONNX Runtime, each node by itself.

In one piece ONNX Runtime does not round where a typed graph says so: whatever it has no FP16 kernel for it computes in
FP32, and it drops the Casts between such nodes even with every optimisation off. A node that is a model of its own
takes and gives numbers of the stated type.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from gms_rt.graph.graph import INPUT, Graph
from gms_rt.precision.emulation import tensor_types

_BF16 = TensorProto.BFLOAT16


def values_node_by_node(typed: Graph, image: Any) -> dict[str, Any]:
    """Every tensor of a graph for one batch, as its own type."""
    values: dict[str, Any] = {name: numpy_helper.to_array(t) for name, t in typed.initialisers.items()}
    values[INPUT] = image
    types = tensor_types(typed)
    for node in typed.nodes:
        values.update(_run(typed, types, node, {name: values[name] for name in node.input if name}))
    return values


def _run(typed: Graph, types: dict[str, int], node: Any, given: dict[str, Any]) -> dict[str, Any]:
    # ONNX Runtime's CPU has no BF16 at all: such a node computes in FP32, and its result is rounded here.
    low = {name for name in node.output if types.get(name) == _BF16}
    given = {name: v.astype(np.float32) if v.dtype == ml_dtypes.bfloat16 else v for name, v in given.items()}
    copy = type(node)()
    copy.CopyFrom(node)
    for entry in copy.attribute:
        if entry.name == "to" and entry.i == _BF16:
            entry.i = TensorProto.FLOAT
    kinds = {name: TensorProto.FLOAT if name in low else types[name] for name in node.output if name}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
    ]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    model = helper.make_model(
        helper.make_graph([copy], "one", inputs, outputs), opset_imports=list(typed.model.opset_import), ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = dict(zip(kinds, session.run(list(kinds), given), strict=True))
    return {name: v.astype(ml_dtypes.bfloat16) if name in low else v for name, v in found.items()}
