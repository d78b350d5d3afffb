"""Malformed graphs: a sound ONNX graph with one to three changes, of its structure or of its bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from onnx import AttributeProto, ModelProto, helper

ODD = (0, -1, 1, 2, 3, 7, 64, 255, 4096, 2**31 - 1, -(2**31), 2**40, -(2**63), 2**63 - 1)


def mutated(model: ModelProto, chance: random.Random) -> bytes:
    """The file of a changed copy; the same chance gives the same file."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        chance.choice(STRUCTURAL)(copy, chance)
    data = bytearray(copy.SerializeToString())
    if chance.random() < 0.2:
        _flip(data, chance)
    return bytes(data)


def _flip(data: bytearray, chance: random.Random) -> None:
    """Bytes of the first part, where the nodes are, or of the whole file."""
    end = len(data) if chance.random() < 0.3 else min(len(data), 4096)
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(end)] ^= 1 << chance.randrange(8)


def _node(model: ModelProto, chance: random.Random) -> Any:
    return chance.choice(model.graph.node)


def _drop_input(model: ModelProto, chance: random.Random) -> None:
    node = _node(model, chance)
    if node.input:
        del node.input[chance.randrange(len(node.input))]


def _empty_input(model: ModelProto, chance: random.Random) -> None:
    node = _node(model, chance)
    if node.input:
        node.input[chance.randrange(len(node.input))] = ""


def _swap_inputs(model: ModelProto, chance: random.Random) -> None:
    node = _node(model, chance)
    shuffled = list(node.input)
    chance.shuffle(shuffled)
    node.input[:] = shuffled


def _other_input(model: ModelProto, chance: random.Random) -> None:
    known = [t.name for t in model.graph.initializer] + [n for node in model.graph.node for n in node.output]
    node = _node(model, chance)
    if node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(known)


def _extra_input(model: ModelProto, chance: random.Random) -> None:
    _node(model, chance).input.append(chance.choice([t.name for t in model.graph.initializer] or ["image"]))


def _other_operator(model: ModelProto, chance: random.Random) -> None:
    operators = [node.op_type for node in model.graph.node]
    more = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Resize", "Concat", "Split", "Gather", "Reshape", "Slice", "Pad"]
    _node(model, chance).op_type = chance.choice(
        [
            *operators,
            *more,
            "InstanceNormalization",
            "GroupNormalization",
            "DepthToSpace",
            "TopK",
            "Squeeze",
            "Expand",
            "NoSuchThing",
            "",
        ]
    )


def _drop_node(model: ModelProto, chance: random.Random) -> None:
    if len(model.graph.node) > 1:
        del model.graph.node[chance.randrange(len(model.graph.node))]


def _move_node(model: ModelProto, chance: random.Random) -> None:
    nodes = list(model.graph.node)
    node = nodes.pop(chance.randrange(len(nodes)))
    nodes.insert(chance.randrange(len(nodes) + 1), node)
    copies = [type(n).FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _drop_attribute(model: ModelProto, chance: random.Random) -> None:
    having = [n for n in model.graph.node if n.attribute]
    if having:
        node = chance.choice(having)
        del node.attribute[chance.randrange(len(node.attribute))]


def _change_attribute(model: ModelProto, chance: random.Random) -> None:
    having = [n for n in model.graph.node if n.attribute]
    if not having:
        return
    attribute = chance.choice(chance.choice(having).attribute)
    if attribute.ints:
        if chance.random() < 0.3:
            attribute.ints.append(chance.choice(ODD))
        elif chance.random() < 0.3:
            del attribute.ints[chance.randrange(len(attribute.ints))]
        else:
            attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(ODD)
    elif attribute.type == AttributeProto.INT:
        attribute.i = chance.choice(ODD)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = chance.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    else:
        attribute.type = chance.choice((AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.INTS))


def _add_attribute(model: ModelProto, chance: random.Random) -> None:
    name = chance.choice(
        (
            "kernel_shape",
            "strides",
            "dilations",
            "pads",
            "group",
            "perm",
            "axes",
            "axis",
            "to",
            "blocksize",
            "auto_pad",
            "allowzero",
            "keepdims",
            "mode",
            "output_shape",
            "num_outputs",
        )
    )
    many = [chance.choice(ODD) for _ in range(chance.randint(0, 5))]
    few = [chance.randint(0, 4) for _ in range(chance.randint(1, 4))]
    value: Any = chance.choice((many, few, chance.choice(ODD), chance.randint(0, 4), "linear", 1.5))
    kind = AttributeProto.INTS if value == [] else None
    _node(model, chance).attribute.append(helper.make_attribute(name, value, attr_type=kind))


def _drop_constant(model: ModelProto, chance: random.Random) -> None:
    if model.graph.initializer:
        del model.graph.initializer[chance.randrange(len(model.graph.initializer))]


def _constant_dims(model: ModelProto, chance: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    act = chance.randrange(4)
    if act == 0 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(ODD)
    elif act == 1:
        tensor.dims.append(chance.choice((1, 1, *ODD)))
    elif act == 2 and tensor.dims:  # the same bytes, another shape
        shuffled = list(tensor.dims)
        chance.shuffle(shuffled)
        tensor.dims[:] = shuffled
    elif tensor.dims:
        flat = 1
        for dim in tensor.dims:
            flat *= dim
        tensor.dims[:] = chance.choice(([flat], [1, flat], [flat, 1, 1, 1], [1, 1, flat, 1, 1]))


def _constant_type(model: ModelProto, chance: random.Random) -> None:
    types = (0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 16, 22, 99)
    if model.graph.initializer:
        chance.choice(model.graph.initializer).data_type = chance.choice(types)


def _constant_values(model: ModelProto, chance: random.Random) -> None:
    having = [t for t in model.graph.initializer if t.raw_data]
    if having:
        tensor = chance.choice(having)
        size = len(tensor.raw_data)
        tensor.raw_data = chance.choice((b"\xff" * size, b"\x00" * size, chance.randbytes(size), tensor.raw_data[:-1]))


def _port(model: ModelProto, chance: random.Random) -> None:
    port = chance.choice([*model.graph.input, *model.graph.output])
    kind = port.type.tensor_type
    act = chance.randrange(4)
    if act == 0 and kind.shape.dim:
        chance.choice(kind.shape.dim).dim_value = chance.choice(ODD)
    elif act == 1:
        kind.shape.dim.add().dim_value = chance.choice(ODD)
    elif act == 2:
        kind.elem_type = chance.choice((0, 1, 2, 3, 7, 9, 10, 99))
    else:
        port.name = chance.choice(("image", "mask", "other", ""))


def _opset(model: ModelProto, chance: random.Random) -> None:
    model.opset_import[0].version = chance.choice((0, 1, 6, 7, 9, 10, 11, 13, 17, 18, 21, 23, 99, -1))


STRUCTURAL: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    _drop_input, _drop_input, _empty_input, _swap_inputs, _other_input, _other_input, _extra_input, _other_operator,
    _other_operator, _drop_node, _move_node, _drop_attribute, _change_attribute, _change_attribute, _add_attribute,
    _drop_constant, _constant_dims, _constant_dims, _constant_type, _constant_values, _port, _opset,
)  # fmt: skip
