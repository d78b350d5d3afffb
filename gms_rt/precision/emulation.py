"""A typed graph's arithmetic on a CPU that lacks it: the same nodes in FP32, each result rounded as FP16 or BF16 would.

A runtime may leave out a Cast there and back: OpenVINO does, and ONNX Runtime between nodes that it computes in FP32,
even with every optimisation off. So the rounding is arithmetic, with factors that are inputs of the graph: no runtime
can know at compile time that they change nothing but the last digits. The value 2^e
of a number's leading bit comes from two products and a difference (Rump's `ufp`); adding and taking away 1.5 times
2^(e + 13), for FP16, rounds to nearest, ties to even, as hardware does. Below FP16's normal range 2^e does not fall any
further, which gives its subnormal numbers, and what is beyond its largest number becomes infinite in a product.

What is assumed of the device: a node computes in FP32 or wider inside, products are summed in FP32, and its result is
rounded once. Q/DQ pairs are computed as ONNX defines them. A device that fuses nodes rounds less often than this, an
INT8 kernel sums whole numbers without rounding; one whose kernels sum in FP16 loses more than is seen here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.errors import GmsError
from gms_rt.graph.edit import add_constant, drop_unused, replace_nodes
from gms_rt.graph.graph import Graph, attribute
from gms_rt.graph.run import Session
from gms_rt.precision.floating import LAYOUT

# Binary digits that FP32 has more than the low type.
_BITS_BEHIND = {"fp16": 13, "bf16": 16}
# Where the leading bit's value stops falling, and where it stops growing: FP16's smallest normal number, and beyond its
# largest. BF16 has the range of FP32; what is outside of these is left as it is.
_LEADING = {"fp16": (2.0**-14, 2.0**17), "bf16": (2.0**-100, 2.0**100)}
# What these make of numbers that the low type has is such a number again.
_EXACT = (*LAYOUT, "Relu", "MaxPool", "Concat", "Pad", "Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth",
          "Clip", "Min", "Max", "Neg", "Abs", "Round", "Floor", "Ceil", "Where")  # fmt: skip
_PREFIX = "emulation"


def rounding_inputs() -> dict[str, NDArray[np.float32]]:
    """The inputs that an emulated graph has beside its image."""
    values = {
        "one": 1.0,
        "spread": 2.0**23 + 1,
        "below_one": 1 - 2.0**-24,
        "fp16": 1.5 * 2.0 ** _BITS_BEHIND["fp16"],
        "bf16": 1.5 * 2.0 ** _BITS_BEHIND["bf16"],
        "to_the_top": 2.0**112,  # takes FP16's overflow to FP32's
        "and_back": 2.0**-112,
    }
    return {f"{_PREFIX}/{name}": np.array(value, np.float32) for name, value in values.items()}


def tensor_types(typed: Graph) -> dict[str, int]:
    """ONNX element type of each tensor; what a Cast makes is known from the Cast, of BF16 from nothing else."""
    return typed.dtype | {n.output[0]: int(attribute(n, "to", 0)) for n in typed.nodes if n.op_type == "Cast"}


def low_type(typed: Graph) -> str:
    """The type that a typed graph has besides FP32: "fp16", "bf16", or "" for none."""
    from onnx import TensorProto

    names = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
    found = {names[kind] for kind in tensor_types(typed).values() if kind in names}
    if len(found) > 1:
        raise GmsError("a graph with both FP16 and BF16 cannot be emulated")
    return next(iter(found), "")


def emulated_graph(typed: Graph) -> Graph:
    """The FP32 graph that computes what `typed` does, rounding included; its inputs are those and `rounding_inputs`."""
    return _Emulation(typed).graph()


def emulated_session(typed: Graph) -> Session:
    """A typed graph that this machine's CPU runs with the rounding of its types."""
    return Session(emulated_graph(typed), inputs=rounding_inputs())


class _Emulation:
    """One rewriting: nodes in order, FP32 constants, and which tensors go by another name."""

    def __init__(self, typed: Graph) -> None:
        from onnx import TensorProto

        self.typed, self.kind, self.types = typed, low_type(typed), tensor_types(typed)
        self.low = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
        self.model = typed.copy().model
        self.nodes: list[Any] = []

    def graph(self) -> Graph:
        from onnx import TensorProto, helper

        self._constants_in_fp32()
        if self.kind:
            for name, value in zip(("lowest", "highest"), _LEADING[self.kind], strict=True):
                add_constant(self.model, f"{_PREFIX}/{name}", np.float32(value))
        for node in self.model.graph.node:
            if node.op_type == "QuantizeLinear":
                self._quantise(node)
            elif node.op_type == "DequantizeLinear":
                self._dequantise(node)
            else:
                self._plain(node)
        replace_nodes(self.model, self.nodes)
        taken = {name for node in self.nodes for name in node.input}
        self.model.graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ()) for name in rounding_inputs() if name in taken
        )
        del self.model.graph.value_info[:]
        drop_unused(self.model)
        return Graph(self.model)

    def _constants_in_fp32(self) -> None:
        from onnx import numpy_helper

        for place, tensor in enumerate(self.model.graph.initializer):
            if tensor.data_type in self.low:
                value = np.asarray(numpy_helper.to_array(tensor)).astype(np.float32)
                self.model.graph.initializer[place].CopyFrom(numpy_helper.from_array(value, tensor.name))

    def _plain(self, node: Any) -> None:
        from onnx import TensorProto

        for entry in node.attribute:
            if node.op_type == "Cast" and entry.name == "to" and entry.i in self.low:
                entry.i = TensorProto.FLOAT
        exact = self._is_exact(node)
        results = [name for name in node.output if self.types.get(name) in self.low and not exact]
        for name in results:
            node.output[list(node.output).index(name)] = f"{name}/exact"
        self.nodes.append(node)
        for name in results:
            self._round(f"{name}/exact", name)

    def _is_exact(self, node: Any) -> bool:
        if node.op_type == "Resize":
            return attribute(node, "mode", b"nearest") in (b"nearest", "nearest")
        if node.op_type == "Cast":
            return self.types.get(node.input[0]) in self.low
        return node.op_type in _EXACT

    def _round(self, source: str, result: str) -> None:
        """The number of the low type that is nearest to each value."""
        size = self._add("Abs", result, "size", source)
        within = self._add("Clip", result, "within", size, f"{_PREFIX}/lowest", f"{_PREFIX}/highest")
        spread = self._add("Mul", result, "spread", within, f"{_PREFIX}/spread")
        rest = self._add("Mul", result, "rest", spread, f"{_PREFIX}/below_one")
        leading = self._add("Sub", result, "leading", spread, rest)
        step = self._add("Mul", result, "step", leading, f"{_PREFIX}/{self.kind}")
        lifted = self._add("Add", result, "lifted", source, step)
        if self.kind == "bf16":
            self._add("Sub", result, "", lifted, step)
            return
        nearest = self._add("Sub", result, "nearest", lifted, step)
        high = self._add("Mul", result, "high", nearest, f"{_PREFIX}/to_the_top")
        self._add("Mul", result, "", high, f"{_PREFIX}/and_back")

    def _quantise(self, node: Any) -> None:
        """Steps as whole numbers in FP32; the divisor is not constant, else a runtime multiplies by its reciprocal."""
        source, scale, zero = node.input
        name = node.output[0]
        kind = self.typed.initialisers[zero]
        low, high = _LEVELS[int(kind.data_type)]
        divisor = self._add("Mul", name, "divisor", scale, f"{_PREFIX}/one")
        steps = self._add("Round", name, "steps", self._add("Div", name, "quotient", source, divisor))
        offset = add_constant(self.model, f"{name}/offset", self.typed.constant(zero).astype(np.float32))
        moved = self._add("Add", name, "moved", steps, offset) if self.typed.constant(zero).any() else steps
        ends = [add_constant(self.model, f"{name}/{end}", np.float32(v)) for end, v in (("low", low), ("high", high))]
        self._add("Clip", name, "", moved, *ends)

    def _dequantise(self, node: Any) -> None:
        source, scale, zero = node.input
        name = node.output[0]
        offset = self.typed.constant(zero).astype(np.float32)
        if source in self.typed.initialisers:
            self._constant_weights(node)
            return
        if offset.any():
            stored = add_constant(self.model, f"{name}/offset", offset)
            source = self._add("Sub", name, "moved", source, stored)
        if self.types.get(name) in self.low:
            self._round(self._add("Mul", name, "exact", source, scale), name)
        else:
            self._add("Mul", name, "", source, scale)

    def _constant_weights(self, node: Any) -> None:
        steps, scale, zero = (self.typed.constant(name) for name in node.input)
        axis = int(attribute(node, "axis", 1))
        shape = [-1 if place == axis else 1 for place in range(steps.ndim)] if np.ndim(scale) else []
        factor = np.asarray(scale).astype(np.float32).reshape(shape)
        value = (steps.astype(np.float32) - zero.astype(np.float32).reshape(shape)) * factor
        if self.types.get(node.output[0]) in self.low:
            value = rounded(value, self.kind)
        add_constant(self.model, node.output[0], value)

    def _add(self, kind: str, result: str, part: str, *inputs: str) -> str:
        from onnx import helper

        name = f"{result}/{part}" if part else result
        label = f"{result}/rounding/{part or 'last'}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], label))
        return name


_LEVELS = {2: (0, 255), 3: (-128, 127)}  # TensorProto.UINT8, INT8


def rounded(values: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """The nearest numbers of "fp16" or "bf16", as FP32.

    >>> rounded(np.array([1 + 2**-11, 1 + 3 * 2**-11, 7e4], np.float32), "fp16").tolist()
    [1.0, 1.001953125, inf]
    >>> rounded(np.array([257, 259], np.float32), "bf16").tolist()
    [256.0, 260.0]
    """
    if kind == "fp16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
