"""Calibrators, explicit INT8, and the search with its gate."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.precision_graphs import scenes, tiny_model

from gms_rt.errors import GateError, UsageError
from gms_rt.graph.layer_counts import layer_counts
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.precision import calibrators
from gms_rt.precision.blocks import PrecisionBlock
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.int8 import qdq_graph, quantisable, quantise_weights, residual_skips
from gms_rt.precision.ranges import Histogram, extremes, histograms
from gms_rt.precision.search import Search


def histogram_of(values, bins=2048):
    top = float(np.abs(values).max())
    counts = np.histogram(np.abs(values), bins, (0, top))[0]
    return Histogram(counts.astype(np.int64), top)


@pytest.fixture(scope="module")
def graph():
    return graph_from_model(tiny_model())


@pytest.fixture(scope="module")
def counted(graph):
    images = scenes(4, seed=1)
    names = [n.input[0] for n in graph.nodes if n.name in set(quantisable(graph))]
    names = list(dict.fromkeys([*names, *residual_skips(graph).values()]))
    found = extremes(graph, names, images)
    return histograms(graph, {name: found[name].magnitude for name in names}, images)


def test_calibrators_on_a_bell_curve_with_an_outlier():
    values = np.random.default_rng(0).normal(0, 1, 200_000)
    values[0] = 60
    seen = histogram_of(values)
    clips = {name: calibrators.clip(seen, name) for name in calibrators.METHODS}
    assert clips["minmax"] == 60
    assert 2.5 < clips["entropy"] < 8
    assert 3.5 < clips["percentile"] < 6
    # Squared error weighs the outlier heavily; without it the optimum lies near 4 standard deviations.
    assert clips["mse"] < 40
    assert 3 < calibrators.clip(histogram_of(values[1:]), "mse") < 6
    assert calibrators.clip(seen, "percentile:99") < clips["percentile"]


def test_mse_calibrator_is_the_brute_force_minimum():
    values = np.abs(np.random.default_rng(1).laplace(0, 1, 20_000))
    seen = histogram_of(values, 512)

    def error(limit):
        step = limit / 127
        return float(((np.clip(np.rint(values / step), 0, 127) * step - values) ** 2).mean())

    best = min(error(limit) for limit in np.linspace(seen.top / 16, seen.top, 300))
    assert error(calibrators.clip(seen, "mse")) <= best * 1.05


def test_calibrator_mistakes_are_named():
    seen = histogram_of(np.arange(10.0))
    with pytest.raises(UsageError, match="unknown calibrator 'best'"):
        calibrators.clip(seen, "best")
    with pytest.raises(UsageError, match="impossible share"):
        calibrators.clip(seen, "percentile:7")
    with pytest.raises(UsageError, match="unknown calibrator"):
        calibrators.clip(seen, "mse:3")


def test_a_tensor_that_is_always_zero_gets_some_scale():
    assert calibrators.clip(Histogram(np.zeros(2048, np.int64), 0.0), "mse") > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0, 1]), st.sampled_from([64, 127]))
def test_weights_come_back_within_half_a_step(seed, axis, levels):
    weights = np.random.default_rng(seed).normal(0, 10 ** (seed % 7 - 3), (3, 4, 2, 2)).astype(np.float32)
    weights[(slice(None),) * axis + (0,)] = 0  # a dead channel
    quantised, scale = quantise_weights(weights, axis, levels)
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    error = np.abs(quantised * scale.reshape(shape) - weights)
    assert np.abs(quantised.astype(int)).max() <= levels
    assert (error <= scale.reshape(shape) * 0.5001).all()


def test_extremes_and_histograms_see_the_tensor(graph):
    images = scenes(3, seed=5)
    name = "encoder/act/out"
    found = extremes(graph, [name, "encoder/down/out"], images, means=[name])
    from gms_rt.precision.ranges import with_outputs

    session = Session(with_outputs(graph, [name]))
    values = np.stack([session.outputs(image[None])[1].copy() for image in images])
    assert found[name].magnitude == pytest.approx(np.abs(values).max(), rel=1e-5)
    assert found[name].mean_square == pytest.approx((values**2).mean((1, 2, 3, 4)).max(), rel=1e-4)
    counts = histograms(graph, {name: found[name].magnitude}, images)[name]
    assert counts.counts.sum() == values.size


def test_quantised_graph_is_symmetric_explicit_int8(graph, counted):
    clips = {name: calibrators.clip(h, "mse") for name, h in counted.items()}
    typed = qdq_graph(graph, quantisable(graph), clips)
    onnx.checker.check_model(typed.model, full_check=True)
    assert layer_counts(typed)["compute"]["Conv"] == {"int8": 11}
    assert layer_counts(typed)["compute"]["ConvTranspose"] == {"int8": 1}
    for node in typed.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = typed.constant(node.input[2])
            assert zero.dtype == np.int8 and not zero.any()
    weights = next(n for n in typed.nodes if n.name == "decoder/up/weights/dq")
    assert next(a.i for a in weights.attribute if a.name == "axis") == 1
    biases = [n.input[2] for n in typed.nodes if n.op_type == "Conv" and len(n.input) > 2]
    assert all(typed.initialisers[b].data_type == onnx.TensorProto.FLOAT for b in biases)


def test_onnxruntime_and_openvino_agree_on_the_quantised_graph(graph, counted):
    onnxruntime = pytest.importorskip("onnxruntime")
    clips = {name: calibrators.clip(h, "minmax") for name, h in counted.items()}
    typed = qdq_graph(graph, quantisable(graph)[1:-1], clips, levels=64)
    images = scenes(4, seed=9)
    ours = Session(typed).probabilities(images)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    other = onnxruntime.InferenceSession(typed.bytes(), options, providers=["CPUExecutionProvider"])
    theirs = np.concatenate([other.run(None, {"image": image[None]})[0][..., 0] for image in images])
    assert np.abs(ours.astype(int) - theirs).mean() < 2
    assert judge(ours, theirs, Gate()).passed


def test_cpu_runs_the_quantised_convolutions_in_int8(graph, counted):
    clips = {name: calibrators.clip(h, "mse") for name, h in counted.items()}
    executed = Session(qdq_graph(graph, quantisable(graph), clips, levels=64)).executed_layers()
    eight_bit = sum(count for kind, count in executed["Convolution"].items() if kind in ("u8", "i8"))
    assert eight_bit >= 9, executed


def test_residual_skip_is_the_branch_without_convolutions(graph):
    skips = residual_skips(graph)
    assert skips["lmm/down.0.add"] == "encoder/down/out"
    assert skips["lmm/down.1.add"] == "lmm/down.0.add/out"


def test_skip_branch_alone_is_quantised(graph, counted):
    clips = {name: calibrators.clip(h, "minmax") for name, h in counted.items()}
    skip = "lmm/down.0.add/out"
    typed = qdq_graph(graph, ["lmm/down.1.conv2"], clips, skips=[skip])
    add = next(n for n in typed.nodes if n.name == "lmm/down.1.add")
    assert sorted(add.input) == sorted([f"{skip}/dq", "lmm/down.1.conv2/out"])


def search_of(graph, counted, gate, **options):
    images = scenes(5, seed=3)
    reference = Session(graph).probabilities(images)
    candidates = quantisable(graph)[1:-1]
    return Search(graph, candidates, counted, images, reference, gate, 64, **options)


def test_plain_int8_that_passes_needs_no_search(graph, counted):
    found = search_of(graph, counted, Gate(0.9, 0.8)).run()
    assert found.verdict.passed
    assert found.nodes == quantisable(graph)[1:-1]
    assert found.evaluations == 1


def spoiled(graph, counted):
    """The same counts, but one block's input is clipped to a hundredth: a block that INT8 ruins."""
    bad = next(n for n in graph.nodes if n.name == "decoder/conv_mid").input[0]
    worse = counted[bad]
    return counted | {bad: Histogram(worse.counts, worse.top / 100)}


def test_search_returns_the_block_that_hurts(graph, counted, tmp_path):
    said = []
    search = search_of(
        graph, spoiled(graph, counted), Gate(0.97, 0.9), checkpoint=tmp_path / "c.json", key="k",
        progress=lambda *step: said.append(step),
    )  # fmt: skip
    found = search.run(["minmax"])
    assert found.verdict.passed
    rows = {row["block"]: row for row in found.rows}
    assert rows["decoder/conv_mid"]["decision"] == "returned"
    assert "decoder/conv_mid" not in found.nodes
    assert rows["decoder/conv_mid"]["damage"] == max(row["damage"] for row in found.rows)
    # Everything harmless keeps its speed.
    assert sum(row["decision"] == "int8" for row in found.rows) >= len(found.rows) - 2
    assert {"damage by block", "search"} <= {phase for phase, _, _ in said}


def test_search_resumes_from_its_checkpoint(graph, counted, tmp_path):
    place = tmp_path / "c.json"
    arguments = {"checkpoint": place, "key": "k"}
    first = search_of(graph, spoiled(graph, counted), Gate(0.97, 0.9), **arguments).run(["minmax"])
    assert first.evaluations > 3
    again = search_of(graph, spoiled(graph, counted), Gate(0.97, 0.9), **arguments).run(["minmax"])
    assert again.evaluations == 0
    assert again.nodes == first.nodes and again.rows == first.rows
    # Half of a checkpoint saves half of the work; another key none of it.
    data = json.loads(place.read_text())
    data["dice"] = dict(list(data["dice"].items())[: len(data["dice"]) // 2])
    place.write_text(json.dumps(data))
    part = search_of(graph, spoiled(graph, counted), Gate(0.97, 0.9), **arguments).run(["minmax"])
    assert 0 < part.evaluations < first.evaluations
    other = search_of(graph, counted, Gate(0.5, 0.1), checkpoint=place, key="other").run(["minmax"])
    assert other.evaluations == 1


def test_nothing_passes_ends_with_the_table(graph, counted):
    ruined = {name: Histogram(h.counts, h.top / 1000) for name, h in counted.items()}
    with pytest.raises(GateError, match="accuracy gate is not met") as caught:
        search_of(graph, ruined, Gate(0.999, 0.999)).run(["minmax"])
    assert caught.value.exit_code == 3
    assert "decoder/conv_mid" in caught.value.what and "returned" in caught.value.what


def test_gate_values_are_checked():
    with pytest.raises(UsageError, match="--gate-mean"):
        Gate(mean=1.5)


def test_a_block_that_ruins_masks_and_saves_nothing_is_returned_though_the_gate_is_passed(graph, counted):
    """What hurts images to come is worth more than the little time that it saves."""
    bad = next(n for n in graph.nodes if n.name == "lmm/attention.q").input[0]
    takers = [n.name for n in graph.nodes if n.op_type == "Conv" and n.input[0] == bad]
    worse = counted | {bad: Histogram(counted[bad].counts, counted[bad].top / 8)}
    search = search_of(graph, worse, Gate(0.5, 0.1))
    clear = search.run(["minmax"])
    assert set(takers) <= set(clear.nodes), "with room to spare nothing is returned"
    plain = clear.verdict
    tight = Gate(plain.mean - 1e-3, plain.minimum - 1e-3)
    found = search_of(graph, worse, tight).run(["minmax"])
    assert not set(takers) & set(found.nodes)
    assert found.verdict.passed and found.verdict.mean > plain.mean
    assert not found.plain


def test_the_first_block_of_a_stage_is_told_apart_from_a_calm_part_where_it_saves_nothing(graph, counted, monkeypatch):
    """A convolution that hurts rare masks only looks as harmless as the part that it leads."""
    costs = {"noisy/a": 1.0, "noisy/b": 0.5, "calm/head": 0.01, "calm/b": 0.02, "calm/c": 0.0}
    saves = dict.fromkeys(costs, 1000.0) | {"calm/head": 1.0}
    units = [PrecisionBlock(name, (name,), 1, saves[name]) for name in costs]
    search = search_of(graph, counted, Gate())
    search.candidates = list(costs)
    monkeypatch.setattr(search, "_damage", lambda method, nodes, which: sum(costs[name] for name in nodes))
    found, damage = search._rank(units, "minmax", np.arange(2))
    assert [unit.name for unit in found] == ["noisy/a", "noisy/b", "calm/head", "calm/b … calm/c (2 blocks)"]
    assert damage["calm/head"] == pytest.approx(0.03), "as large as the part's: what it does alone is not known"
    units[2] = PrecisionBlock("calm/head", ("calm/head",), 1, 1000.0)
    whole = search._rank(units, "minmax", np.arange(2))[0]
    assert [unit.name for unit in whole][2:] == ["calm/head … calm/c (3 blocks)"], "what saves time stays with the rest"


def test_calm_parts_are_taken_apart_where_nothing_passes_otherwise(graph, counted, monkeypatch):
    """Beside a block that ruins everything, one that breaks the gate looks as calm as those around it."""
    costs = {"noisy/a": 10.0, "calm/a": 0.1, "calm/b": 0.2, "calm/c": 0.1}
    breaks = {"noisy/a", "calm/b"}
    units = [PrecisionBlock(name, (name,), 1, 1000.0) for name in costs]
    monkeypatch.setattr("gms_rt.precision.search.convolution_blocks", lambda graph, candidates: units)
    search = search_of(graph, counted, Gate(0.9, 0.8))
    search.candidates = list(costs)

    def judged(method, nodes, first=None):
        return GateVerdict(np.full(5, 0.5 if breaks & set(nodes) else 0.99), search.gate)

    monkeypatch.setattr(search, "_damage", lambda method, nodes, which: sum(costs[name] for name in nodes))
    monkeypatch.setattr(search, "_judge", judged)
    found = search.run(["minmax"])
    assert found.nodes == ["calm/a", "calm/c"] and found.verdict.passed
    assert {row["block"]: row["decision"] for row in found.rows} == {
        "noisy/a": "returned", "calm/a": "int8", "calm/b": "returned", "calm/c": "int8",
    }  # fmt: skip
    breaks.update(costs)
    with pytest.raises(GateError, match=r"calm/c 0\.1 returned"):
        search.run(["minmax"])
