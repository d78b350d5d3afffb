"""Files that tensors name: every tensor is found, and only plain paths below the graph's folder are accepted."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from support.native_graphs import conv_graph

from gms_rt.errors import ArtifactError
from gms_rt.runtime.binding import NativeRunner, check_graph
from gms_rt.runtime.options import CpuSettings

DATA = "x.data"


def ways_to_a_tensor(descriptor: Any, above: tuple[str, ...] = ()) -> Iterator[list[Any]]:
    """The chains of fields from a message down to a TensorProto, each message type at most twice in one chain."""
    for field in descriptor.fields:
        inner = field.message_type
        if inner is None or above.count(inner.full_name) == 2:
            continue
        if inner.full_name == "onnx.TensorProto":
            yield [field]
        for rest in ways_to_a_tensor(inner, (*above, inner.full_name)):
            yield [field, *rest]


def model_with_tensor(way: list[Any], location: str) -> bytes:
    """A model whose tensor at the end of `way` has its data in `location`."""
    model = onnx.ModelProto(ir_version=8, producer_name="test")
    model.graph.name = "graph"
    message: Any = model
    for field in way:
        holder = getattr(message, field.name)
        message = holder.add() if hasattr(holder, "add") else holder
    message.data_location = onnx.TensorProto.EXTERNAL
    message.external_data.add(key="location", value=location)
    return bytes(model.SerializeToString())


WAYS = list(ways_to_a_tensor(onnx.ModelProto.DESCRIPTOR))


def test_every_tensor_of_the_format_is_found(tmp_path: Path) -> None:
    """The ways come from the installed onnx: a newer one with one more place for a tensor fails here."""
    graph = tmp_path / "x.onnx"
    names = {tuple(field.name for field in way) for way in WAYS}
    assert ("graph", "initializer") in names
    assert ("graph", "node", "attribute", "g", "sparse_initializer", "values") in names
    for way in WAYS:
        graph.write_bytes(model_with_tensor(way, "../x.data"))
        with pytest.raises(ArtifactError, match="not a plain path below"):
            check_graph(graph, trial="never")
        graph.write_bytes(model_with_tensor(way, DATA))
        with pytest.raises(ArtifactError, match=r"'x\.data', which is not there"):
            check_graph(graph, trial="never")


@pytest.mark.parametrize("place", ["*/_ORT_MEM_ADDR_/*", "*", "/etc/passwd", "../x.data", "a/../x.data", ""])
@pytest.mark.parametrize("trial", ["auto", "always", "never"])
def test_a_place_that_is_not_a_plain_path_never_reaches_openvino(tmp_path: Path, place: str, trial: Any) -> None:
    graph = conv_graph(tmp_path / "x.onnx", size=16, width=4, depth=1)
    model = onnx.load(str(graph))
    weights = model.graph.initializer[1]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", place), ("offset", "4096"), ("length", "432")):
        weights.external_data.add(key=key, value=value)
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=r"x\.onnx has weights in '.*', which is not a plain path below"):
        NativeRunner.open_cpu(graph, CpuSettings(trial=trial))


def tensors(message: Any) -> Iterator[Any]:
    """All TensorProtos within a parsed message."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in value if hasattr(value, "add") else [value]:
            if field.message_type.full_name == "onnx.TensorProto":
                yield inner
            yield from tensors(inner)


def test_damaged_files_hide_no_place_from_the_walk(tmp_path: Path) -> None:
    """What the walk lets through and protobuf reads names no file but the one that is there."""
    (tmp_path / DATA).write_bytes(bytes(64))
    graph = tmp_path / "x.onnx"
    sound = [model_with_tensor(way, DATA) for way in WAYS]
    both = seen = 0
    for number in range(4000):
        chance = random.Random(f"walk {number}")
        data = bytearray(chance.choice(sound))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice((0, 1, 1, 1, 2))] = chance.choice(
                (b"", b".", b"/", b"*", b"\0", b"\x80", b"\xff", b"\x01", bytes([data[at] ^ 1 << chance.randrange(8)]))
            )
        graph.write_bytes(data)
        try:
            check_graph(graph, trial="never")
        except ArtifactError:
            continue
        seen += 1
        try:
            model = onnx.ModelProto.FromString(bytes(data))
        except Exception:  # protobuf's own error; what it refuses is no danger
            continue
        both += 1
        places = [entry.value for t in tensors(model) for entry in t.external_data if entry.key == "location"]
        assert set(places) <= {DATA, "./" + DATA, "x.onnx"}, (number, places)
    assert both > 50, (both, seen)
