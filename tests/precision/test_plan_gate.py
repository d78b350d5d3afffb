"""The gate of GPU plans: their emulated graph gives precision back until the gate is passed, or is not built."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from onnx import helper
from support.precision_graphs import scenes, tiny_model

from gms_rt.errors import GateError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import layer_counts
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.precision import plan_gate
from gms_rt.precision.emulation import emulated_session
from gms_rt.precision.fp32_masks import Fp32Masks
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.images import ImageSet
from gms_rt.precision.int8 import quantised_skips, residual_skips
from gms_rt.precision.plan_gate import plan_notes
from gms_rt.precision.recipe import PrecisionRecipe, read_recipe, write_recipe
from gms_rt.precision.recipe_from_graph import recipe_from_graph
from gms_rt.precision.recipe_request import JudgedRecipe, RecipeRequest

CALIBRATION = ImageSet(scenes(3, seed=11), "scenes 11")
GATE = ImageSet(scenes(8, seed=12), "scenes 12")
OWN = ImageSet(scenes(8, seed=13), "scenes 13")
SHA = "0" * 64


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_from_model(tiny_model())


def request(precision: str, gate: Gate, targets: tuple[str, ...] = ("tensorrt-rtx",), **more: Any) -> RecipeRequest:
    return RecipeRequest(precision, targets, CALIBRATION, GATE, gate, "minmax", SHA, 1, **more)


def judged(graph: Graph, asked: RecipeRequest) -> JudgedRecipe:
    return recipe_from_graph(graph, asked, None, None, Fp32Masks())


def emulated_verdict(graph: Graph, recipe: PrecisionRecipe, images: ImageSet = GATE) -> GateVerdict:
    reference = Session(graph).probabilities(images.images)
    found = emulated_session(recipe.apply(graph, "tensorrt")).probabilities(images.images)
    return judge(found, reference, Gate(0, 0))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_what_is_judged_is_the_very_graph_of_the_plan(graph: Graph, precision: str) -> None:
    found = judged(graph, request(precision, Gate(0.5, 0.1)))
    verdict = emulated_verdict(graph, found.recipe)
    assert found.plans is not None and found.gate is not None
    assert found.plans["mean"] == round(verdict.mean, 6) and found.plans["minimum"] == round(verdict.minimum, 6)
    low = "bf16" if precision == "bf16" else "f16"
    assert found.plans["arithmetic"] == low and f"rounded to {low}" in found.plans["how"]
    assert found.plans["images"] == len(GATE.images) and found.plans["data"]["sha256"] == GATE.sha256
    assert "returned" not in found.plans and plan_notes(found.plans, precision) == []
    # The engine has no other form, so this is its gate; INT8's also says how it was searched for.
    assert found.plans.items() <= found.gate.items()
    assert ("evaluations" in found.gate) == (precision == "int8")
    if precision != "int8":
        assert found.plans["promise"]["dice"] == found.plans["minimum"]


def test_a_cpu_keeps_its_own_verdict_and_an_engine_without_plans_has_only_that(graph: Graph) -> None:
    alone = judged(graph, request("int8", Gate(0.5, 0.1), ("cpu",)))
    both = judged(graph, request("int8", Gate(0.5, 0.1), ("cpu", "tensorrt-rtx")))
    assert alone.plans is None and both.plans is not None
    assert both.gate is not None and alone.gate is not None and both.gate["minimum"] == alone.gate["minimum"]
    assert both.gate["minimum"] != both.plans["minimum"] and "how" not in both.gate
    assert both.recipe == alone.recipe


def test_blocks_return_to_fp32_in_the_plans_graph_alone(graph: Graph) -> None:
    noise = ImageSet(np.random.default_rng(0).integers(0, 255, (12, 64, 64, 3), np.uint8), "pixels on the edge")
    free = dataclasses.replace(request("bf16", Gate(0, 0)), gate_images=noise)
    plain = judged(graph, free)
    assert plain.plans is not None and plain.plans["mean"] < 1 and not plain.recipe.plan_kept
    gate = Gate(plain.plans["mean"] + (1 - plain.plans["mean"]) / 5, 0.5)
    found = judged(graph, dataclasses.replace(free, gate=gate))
    assert found.plans is not None and found.plans["passed"] and found.plans["mean"] >= gate.mean
    assert found.plans["promise"] is None, "these images have chosen"
    assert found.plans["returned"]["to_fp32"] == len(found.recipe.plan_kept) > 0
    assert "the accuracy gate is not met" in found.plans["returned"]["why"]
    assert f"{len(found.recipe.plan_kept)} nodes back in fp32" in plan_notes(found.plans, "bf16")[0]
    assert round(emulated_verdict(graph, found.recipe, noise).mean, 6) == found.plans["mean"]
    counts = layer_counts(found.recipe.apply(graph, "tensorrt"))["compute"]["Conv"]
    assert counts["fp32"] >= 1 and counts["bf16"] >= 1
    assert found.recipe.apply(graph, "cpu").bytes() == plain.recipe.apply(graph, "cpu").bytes()


def test_what_overflows_in_fp16_returns_to_fp32() -> None:
    """Calibration keeps such nodes in FP32; of a recipe that does not, the emulation shows it as a GPU would."""
    model = tiny_model(blow_up=4096.0)
    for node in model.graph.node:  # up twice, down twice: each factor is a number that FP16 has
        if node.name in ("lmm/blow_up", "lmm/shrink"):
            again = helper.make_node("Mul", [node.output[0], node.input[1]], [f"{node.name}/twice"], f"{node.name}/2")
            for taker in model.graph.node:
                names = [f"{node.name}/twice" if name == node.output[0] else name for name in taker.input]
                taker.ClearField("input")
                taker.input.extend(names)
            model.graph.node.insert(list(model.graph.node).index(node) + 1, again)
    graph = graph_from_model(model)
    careless = PrecisionRecipe("fp16", SHA)
    with np.errstate(all="ignore"):
        assert emulated_verdict(graph, careless).mean < 0.5
        found = judged(graph, request("fp16", Gate(0.99, 0.95), recorded=careless))
    assert found.plans is not None and found.plans["passed"]
    assert {"lmm/blow_up", "lmm/blow_up/2", "lmm/shrink", "lmm/shrink/2"} <= set(found.recipe.plan_kept)
    counts = layer_counts(found.recipe.apply(graph, "tensorrt"))["compute"]["Conv"]
    assert counts["fp16"] >= 8, "most of it stays"


def test_int8_blocks_join_the_remainder_in_the_plans_graph_alone(graph: Graph) -> None:
    plain = judged(graph, request("int8", Gate(0.0, 0.0)))
    assert plain.plans is not None and plain.recipe.skips
    bare = emulated_verdict(graph, dataclasses.replace(plain.recipe, skips=[]))
    gate = Gate(0.5, max(bare.minimum, plain.plans["minimum"]) + 1e-4)
    cpu = judged(graph, request("int8", Gate(0.0, 0.0), ("cpu",)))
    recorded = request("int8", gate, recorded=cpu.recipe)
    found = judged(graph, recorded)
    assert found.plans is not None and found.plans["passed"] and found.plans["minimum"] >= gate.minimum
    assert set(found.recipe.cpu_only) > set(cpu.recipe.cpu_only) and found.recipe.int8 == cpu.recipe.int8
    assert found.recipe.skips == [] and found.plans["returned"]["skips"] == len(cpu.recipe.skips)
    assert round(emulated_verdict(graph, found.recipe).minimum, 6) == found.plans["minimum"]
    assert found.recipe.apply(graph, "cpu").bytes() == cpu.recipe.apply(graph, "cpu").bytes()


def test_a_graph_that_misses_the_gate_whatever_is_given_back_is_an_error_that_says_so(graph: Graph) -> None:
    class Inverted(Fp32Masks):
        def of(self, graph: Graph, graph_sha256: str, images: ImageSet) -> Any:
            return 255 - super().of(graph, graph_sha256, images)

    with pytest.raises(GateError, match=r"a GPU's plan \(fp16, emulated\): the accuracy gate is not met") as caught:
        recipe_from_graph(graph, request("fp16", Gate(0.5, 0.5)), None, None, Inverted())
    assert caught.value.exit_code == 3 and "--target cpu" in str(caught.value.fix)


def test_images_of_its_own_choose_and_the_gates_judge_once_more(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a promise nothing is chosen by the gate's images, and two verdicts share their doubt."""
    seen: list[tuple[str, bool, int]] = []
    real = plan_gate._Judge._verdict

    def verdict(
        self: Any, recipe: PrecisionRecipe, images: ImageSet, *, unseen: bool, looks: int = 1, **more: Any
    ) -> Any:
        found = real(self, recipe, images, unseen=unseen, looks=looks, **more)
        seen.append((images.source, unseen, looks))
        return dataclasses.replace(found, dice=found.dice * 0.5) if len(seen) == 1 else found

    monkeypatch.setattr(plan_gate._Judge, "_verdict", verdict)
    monkeypatch.setattr(plan_gate._PlanSearch, "run", lambda self, _: types_of(self.candidates[1:]))
    many = ImageSet(scenes(36, seed=6), "scenes 6")
    asked = dataclasses.replace(
        request("fp16", Gate(0.5, 0.0, 0.9, 0.6), search_images=OWN), gate_images=many, targets=("tensorrt",)
    )
    found = judged(graph, asked)
    assert seen == [("scenes 6", True, 2), ("scenes 6", True, 2)]
    assert found.plans is not None and found.plans["promise"]["coverage"] == 0.9 and found.recipe.plan_kept
    seen.clear()
    with pytest.raises(GateError, match=r"of images keep"):
        judged(graph, dataclasses.replace(asked, gate_images=ImageSet(many.images[:30], "few")))
    assert seen == [("few", True, 1)]


def types_of(nodes: list[str]) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(nodes=nodes)


def test_the_key_is_written_only_where_something_was_returned(tmp_path: Any) -> None:
    recipe = PrecisionRecipe("fp16", SHA, plan_kept={"a": "why"})
    write_recipe(tmp_path, recipe)
    assert read_recipe(tmp_path) == recipe
    write_recipe(tmp_path, dataclasses.replace(recipe, plan_kept={}))
    assert "plan_kept" not in (tmp_path / "precision.json").read_text()


def test_skips_are_those_of_blocks_that_end_in_int8(graph: Graph) -> None:
    every = residual_skips(graph)
    assert quantised_skips(graph, {"lmm/down.0.conv2"}) == [every["lmm/down.0.add"]]
    assert quantised_skips(graph, {"lmm/down.0.conv1"}) == []
    assert plan_notes(None, "int8") == ["the plans were not judged: there were no pictures to compare masks on"]
    assert plan_notes(None, "fp32") == []
