"""The graph view: what is accepted, what is normalised, what a graph costs."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import helper
from support.graphs import FLOAT, model_of
from support.precision_graphs import SIZE, scenes, tiny_graph, tiny_model

from gms_rt.artifacts import sha256_file
from gms_rt.errors import ArtifactError, GmsError
from gms_rt.graph.count import node_flop, parameter_count, stages, work_from_file
from gms_rt.graph.graph import stage
from gms_rt.graph.layer_counts import check_int8_execution, check_layer_counts, layer_counts
from gms_rt.graph.read import graph_facts, graph_from_model, read_graph
from gms_rt.graph.run import Session
from gms_rt.graph.write import write_graph
from gms_rt.precision.blocks import convolution_blocks
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
    node = helper.make_node("Identity", ["x"], ["y"])
    path = tmp_path / "foreign.onnx"
    onnx.save(model_of([node], [("x", FLOAT, [1])], [("y", FLOAT, [1])]), path)
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


def test_one_reading_tells_size_batch_metadata_and_hash(tmp_path):
    path = tiny_graph(tmp_path)
    facts = graph_facts(path)
    assert facts.size == (SIZE, SIZE) and facts.batch == 1
    assert facts.metadata["gms_rt.name"] == "tiny"
    assert facts.sha256 == sha256_file(path)
    assert graph_facts(tiny_graph(tmp_path, batch="n")).batch is None


def test_absent_weights_beside_a_graph_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("gms_rt.graph.write.EXTERNAL_BYTES", 1000)
    path, weights = write_graph(graph_from_model(tiny_model()), tmp_path / "m.onnx")
    weights.unlink()
    assert graph_facts(path).size == (SIZE, SIZE)
    with pytest.raises(ArtifactError, match=r"m\.onnx: is not a readable ONNX graph"):
        read_graph(path)


@pytest.mark.parametrize("limit", [1000, 1 << 30])
def test_a_graph_that_the_checker_refuses_is_not_written(tmp_path, monkeypatch, limit):
    monkeypatch.setattr("gms_rt.graph.write.EXTERNAL_BYTES", limit)
    graph = graph_from_model(tiny_model())
    graph.nodes[3].op_type = "NoSuchOperator"
    with pytest.raises(onnx.checker.ValidationError):
        write_graph(graph, tmp_path / "m.onnx", check=True)
    assert list(tmp_path.iterdir()) == []


def test_constant_nodes_become_initialisers():
    model = tiny_model()
    moved = model.graph.initializer[0]
    node = helper.make_node("Constant", [], [moved.name], value=moved)
    del model.graph.initializer[0]
    model.graph.node.insert(0, node)
    graph = graph_from_model(model)
    assert moved.name in graph.initialisers
    assert all(n.op_type != "Constant" for n in graph.nodes)


def test_large_weights_get_a_file_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("gms_rt.graph.write.EXTERNAL_BYTES", 1000)
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


def test_work_of_a_foreign_graph_is_counted_as_far_as_its_shapes_are_known(tmp_path):
    weights = {"w": np.zeros((5, 3, 3, 3), np.float32), "v": np.zeros((7, 4), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Gemm", ["y", "v"], ["g"], transA=1),
        helper.make_node("MatMul", ["z", "z"], ["m"]),
    ]
    inputs = [("x", FLOAT, ["n", 3, 8, 8]), ("y", FLOAT, [7, 2]), ("z", FLOAT, ["n", "side", "side"])]
    model = model_of(nodes, inputs, [(name, FLOAT, None) for name in ("c", "g", "m")], weights)
    onnx.save(model, tmp_path / "foreign.onnx")
    work = work_from_file(tmp_path / "foreign.onnx", batch=2)
    assert work.flop == 2 * (2 * 5 * 8 * 8 * 27 + 2 * 4 * 7)
    assert work.parameters == 5 * 27 + 7 * 4 == parameter_count(model)


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
    found = convolution_blocks(graph, quantisable(graph))
    names = {b.name: len(b.nodes) for b in found}
    assert names["lmm/down.0"] == 2
    assert names["lmm/attention"] == 2
    assert names["decoder/conv_mid"] == 1
    assert math.isclose(sum(b.flop for b in found), sum(node_flop(graph, n) for n in graph.nodes if "onv" in n.op_type))


def test_layer_counts_tell_the_truth_and_refuse_lies():
    graph = graph_from_model(tiny_model())
    found = layer_counts(graph)
    assert found["compute"]["Conv"] == {"fp32": 11}
    assert found["qdq_pairs"] == 0
    check_layer_counts(graph, "fp32", "fp32")
    with pytest.raises(GmsError, match="is fp32, asked fp16"):
        check_layer_counts(graph, "fp16", "fp16")
    with pytest.raises(GmsError, match="no computing node could be typed fp16"):
        check_layer_counts(graph, "fp16", "fp16", kept=[n.name for n in graph.nodes])


def test_int8_that_the_cpu_does_not_run_is_an_error():
    assert check_int8_execution({"Convolution": {"f32": 2, "u8": 3}, "Deconvolution": {"i8": 1}}, 4) == 4
    with pytest.raises(GmsError, match="none of 4 quantised"):
        check_int8_execution({"Convolution": {"f32": 6}, "Subgraph": {"u8": 1}}, 4)
