"""The graph view: what is accepted, what is normalised, what a graph costs."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.precision_graphs import SIZE, scenes, tiny_graph, tiny_model

from gms_rt.errors import ArtifactError, GmsError
from gms_rt.graph.graph import graph_from_model, read_graph, stage, write_graph
from gms_rt.graph.layer_counts import census, check_census, check_int8_execution
from gms_rt.graph.run import Session
from gms_rt.precision.blocks import blocks, node_flop, stages
from gms_rt.precision.int8 import quantisable


def test_read_graph_knows_every_shape(tmp_path):
    graph = read_graph(tiny_graph(tmp_path))
    assert graph.size == (1, SIZE, SIZE)
    assert all(name in graph.shape for node in graph.nodes for name in node.output)
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)


def test_open_batch_is_fixed(tmp_path):
    path = tiny_graph(tmp_path, batch="n")
    assert read_graph(path).size[0] == 1
    graph = read_graph(path, batch=3)
    assert graph.size[0] == 3
    images = scenes(4)
    single = Session(read_graph(path)).probabilities(images)
    # The last batch is filled up; the surplus must not show.
    assert np.array_equal(Session(graph).probabilities(images), single)


def test_tiny_model_draws_the_dark_region():
    images = scenes(6)
    masks = Session(graph_from_model(tiny_model())).probabilities(images) >= 128
    dark = images[..., 0] < 110
    overlap = [2 * (m & d).sum() / (m.sum() + d.sum()) for m, d in zip(masks, dark, strict=True)]
    assert min(overlap) > 0.8, overlap


def test_foreign_graphs_are_refused(tmp_path):
    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["x"], ["y"])
    foreign = helper.make_graph([node], "f", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])])
    path = tmp_path / "foreign.onnx"
    onnx.save(helper.make_model(foreign), path)
    with pytest.raises(ArtifactError, match="is not a fused GMS graph"):
        read_graph(path)
    path.write_bytes(b"\x08\x99no onnx at all")
    with pytest.raises(ArtifactError, match=r"not a readable ONNX|not a fused"):
        read_graph(path)
    with pytest.raises(ArtifactError, match="is not a file"):
        read_graph(tmp_path / "absent.onnx")


def test_truncated_graph_is_refused(tmp_path):
    path = tiny_graph(tmp_path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArtifactError, match=r"readable|fused|valid"):
        read_graph(path)


def test_constant_nodes_become_initialisers():
    model = tiny_model()
    moved = model.graph.initializer[0]
    node = helper.make_node("Constant", [], [moved.name], value=moved)
    del model.graph.initializer[0]
    model.graph.node.insert(0, node)
    graph = graph_from_model(model)
    assert moved.name in graph.initialisers
    assert all(n.op_type != "Constant" for n in graph.nodes)


def test_large_weights_go_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr("gms_rt.graph.graph.EXTERNAL_BYTES", 1000)
    graph = graph_from_model(tiny_model())
    files = write_graph(graph, tmp_path / "m.onnx")
    assert [f.name for f in files] == ["m.onnx", "m.onnx.data"]
    again = read_graph(tmp_path / "m.onnx")
    images = scenes(2)
    assert np.array_equal(Session(again).probabilities(images), Session(graph).probabilities(images))


def test_flop_follow_the_definition():
    graph = graph_from_model(tiny_model())
    by_name = {n.name: n for n in graph.nodes}
    half = SIZE // 2
    assert node_flop(graph, by_name["encoder/conv_in"]) == 2 * 8 * half * half * 3 * 9
    assert node_flop(graph, by_name["decoder/up"]) == 2 * 8 * 8 * 4 * (SIZE // 4) ** 2
    tokens = (SIZE // 4) ** 2
    assert node_flop(graph, by_name["lmm/attention.scores"]) == 2 * tokens * tokens * 8
    assert node_flop(graph, by_name["encoder/act"]) == 0


def test_stages_add_up():
    graph = graph_from_model(tiny_model())
    rows = stages(graph)
    assert [row["stage"] for row in rows] == ["input", "encoder", "lmm", "decoder", "output"]
    assert sum(row["nodes"] for row in rows) == len(graph.nodes)
    encoder = next(row for row in rows if row["stage"] == "encoder")
    assert encoder["parameters"] == (8 * 3 * 9 + 8) + (8 * 8 * 9 + 8) + 0
    assert stage("lmm/x/y") == "lmm"


def test_blocks_follow_modules():
    graph = graph_from_model(tiny_model())
    found = blocks(graph, quantisable(graph))
    names = {b.name: len(b.nodes) for b in found}
    assert names["lmm/down.0"] == 2
    assert names["lmm/attention"] == 2
    assert names["decoder/conv_mid"] == 1
    assert math.isclose(sum(b.flop for b in found), sum(node_flop(graph, n) for n in graph.nodes if "onv" in n.op_type))


def test_census_tells_the_truth_and_refuses_lies():
    graph = graph_from_model(tiny_model())
    found = census(graph)
    assert found["compute"]["Conv"] == {"fp32": 11}
    assert found["qdq_pairs"] == 0
    check_census(graph, "fp32", "fp32")
    with pytest.raises(GmsError, match="is fp32, asked fp16"):
        check_census(graph, "fp16", "fp16")
    with pytest.raises(GmsError, match="no computing node could be typed fp16"):
        check_census(graph, "fp16", "fp16", kept=[n.name for n in graph.nodes])


def test_int8_that_the_cpu_does_not_run_is_an_error():
    assert check_int8_execution({"Convolution": {"f32": 2, "u8": 3}, "Deconvolution": {"i8": 1}}, 4) == 4
    with pytest.raises(GmsError, match="none of 4 quantised"):
        check_int8_execution({"Convolution": {"f32": 6}, "Subgraph": {"u8": 1}}, 4)
