"""From a graph and images to a recipe: what is asked for, what is remembered, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.precision_graphs import scenes, tiny_model

from gms_rt.errors import ArtifactError, GateError, UsageError
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import graph_from_model
from gms_rt.graph.run import Session
from gms_rt.precision import recipe_request
from gms_rt.precision.fp32_masks import Fp32Masks
from gms_rt.precision.gate import Gate
from gms_rt.precision.images import ImageSet
from gms_rt.precision.int8 import Int8Values, int8_graph
from gms_rt.precision.recipe import RECIPE_VERSION, PrecisionRecipe, read_recipe, write_recipe
from gms_rt.precision.recipe_from_graph import recipe_from_graph
from gms_rt.precision.recipe_request import RecipeRequest

CALIBRATION = ImageSet(scenes(3, seed=11), "scenes 11")
GATE = ImageSet(scenes(4, seed=12), "scenes 12")
SHA = "0" * 64


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_from_model(tiny_model())


def request(precision: str, gate: Gate | None = None, gate_images: ImageSet | None = GATE) -> RecipeRequest:
    return RecipeRequest(precision, ("cpu",), CALIBRATION, gate_images, gate or Gate(0.9, 0.8), "minmax", SHA, 1)


def test_the_fp32_masks_of_the_latest_images_are_computed_once(graph: Graph) -> None:
    masks = Fp32Masks()
    first = masks.of(graph, SHA, GATE)
    assert np.array_equal(first, Session(graph).probabilities(GATE.images))
    assert masks.of(graph, SHA, ImageSet(GATE.images.copy(), "the same by content")) is first
    turned = ImageSet(GATE.images[::-1], "in another order")
    assert np.array_equal(masks.of(graph, SHA, turned), first[::-1])
    assert masks.of(graph, "1" * 64, turned) is not masks.of(graph, SHA, turned)


def test_several_precisions_share_the_fp32_masks(graph: Graph) -> None:
    masks = Fp32Masks()
    shared = masks.of(graph, SHA, GATE)
    for precision in ("fp16", "int8"):
        judged = recipe_from_graph(graph, request(precision), None, None, masks)
        assert judged.recipe.precision == precision
        verdict = judged.gate
        assert verdict is not None and verdict["passed"] and verdict["images"] == len(GATE.images)
        assert masks.of(graph, SHA, GATE) is shared


def test_the_recipe_is_judged_against_the_masks_it_is_given(graph: Graph) -> None:
    class Inverted(Fp32Masks):
        def of(self, graph: Graph, graph_sha256: str, images: ImageSet) -> np.ndarray:
            return 255 - super().of(graph, graph_sha256, images)

    with pytest.raises(GateError, match=r"Dice to FP32 mean 0\.0.* on 4 images"):
        recipe_from_graph(graph, request("fp16"), None, None, Inverted())


def test_the_ranges_of_int8_and_of_what_stays_float_take_one_pass(graph: Graph, monkeypatch) -> None:
    asked: list[list[str]] = []
    measure = recipe_request.extremes

    def counted(graph, tensors, *rest, **more):
        asked.append(tensors)
        return measure(graph, tensors, *rest, **more)

    monkeypatch.setattr(recipe_request, "extremes", counted)
    judged = recipe_from_graph(graph, request("int8"), None)
    assert len(asked) == 1 and set(judged.recipe.ranges) <= set(asked[0])


def test_int8_without_images_is_refused(graph: Graph) -> None:
    with pytest.raises(UsageError, match="others to be judged on"):
        recipe_from_graph(graph, request("int8", gate_images=None), None)


def test_recipe_survives_the_disk_and_refuses_the_future(tmp_path: Path) -> None:
    recipe = PrecisionRecipe(
        "int8", "ab", int8=["x"], kept={"y": "magnitude 70000"}, ranges={"t": 1.5}, calibrator="mse"
    )
    write_recipe(tmp_path, recipe)
    assert read_recipe(tmp_path) == recipe
    data = json.loads((tmp_path / "precision.json").read_text())
    for change in ({"version": RECIPE_VERSION + 1}, {"format": "other"}, {"surprise": 1}, {"precision": "fp8"}):
        (tmp_path / "precision.json").write_text(json.dumps(data | change))
        with pytest.raises(ArtifactError):
            read_recipe(tmp_path)


def test_a_recipe_of_version_2_still_applies(tmp_path: Path, graph: Graph) -> None:
    """It has neither `spans` nor `rounding`: its tensors are signed, its weights at the nearest steps."""
    name = "lmm/down.1.conv2"
    source = next(node.input[0] for node in graph.nodes if node.name == name)
    recipe = PrecisionRecipe("int8", "", int8=[name], ranges={source: 3.0})
    write_recipe(tmp_path, recipe)
    data = json.loads((tmp_path / "precision.json").read_text())
    older = {key: value for key, value in data.items() if key not in ("spans", "rounding")} | {"version": 2}
    (tmp_path / "precision.json").write_text(json.dumps(older))
    typed = read_recipe(tmp_path).apply(graph, "cpu")
    assert typed.bytes() == int8_graph(graph, [name], Int8Values({source: 3.0}), "cpu", levels=64, skips=()).bytes()
