"""What a gate promises: bounds that hold for images nobody has seen, and only where the images had no part in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.precision_graphs import scenes, tiny_model

from gms_rt.errors import GateError, UsageError
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import graph_from_model
from gms_rt.precision import int8_recipe as module
from gms_rt.precision.cpu_choice import CpuChoice
from gms_rt.precision.gate import Gate, GateVerdict, gate_from_options, promise_text
from gms_rt.precision.images import ImageSet, check_disjoint, sixths
from gms_rt.precision.recipe_from_graph import recipe_from_graph
from gms_rt.precision.recipe_request import RecipeRequest
from gms_rt.precision.search import SearchResult
from gms_rt.statistics import tolerance_bound, values_below_bound, values_for_coverage

CALIBRATION = ImageSet(scenes(3, seed=11), "scenes 11")
TUNING = ImageSet(scenes(6, seed=13), "scenes 13")
GATE = ImageSet(scenes(120, seed=12), "scenes 12")


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_from_model(tiny_model())


@pytest.mark.parametrize(
    ("coverage", "count", "below"),
    [(0.95, 58, -1), (0.95, 59, 0), (0.95, 92, 0), (0.95, 93, 1), (0.99, 298, -1), (0.99, 299, 0), (0.9, 29, 0)],
)
def test_the_bound_takes_the_images_that_the_tables_of_tolerance_limits_say(
    coverage: float, count: int, below: int
) -> None:
    assert values_below_bound(count, coverage) == below
    assert values_for_coverage(coverage) == {0.95: 59, 0.99: 299, 0.9: 29}[coverage]


def test_the_bound_holds_as_often_as_it_says_whatever_the_distribution() -> None:
    generator = np.random.default_rng(5)
    for draw, quantile in (
        (lambda n: generator.beta(30, 1, n), 0.03 ** (1 / 30)),
        (lambda n: np.where(generator.random(n) < 0.04, 0.2, 0.99), 0.2),
    ):
        kept = sum((tolerance_bound(draw(150), 0.97) or 0.0) <= quantile for _ in range(2000))
        assert kept / 2000 >= 0.94, "95 % less what 2,000 draws can miss by"


def test_a_verdict_promises_a_share_and_never_more_than_it_may() -> None:
    dice = np.concatenate([[0.9], np.full(99, 0.99)])
    verdict = GateVerdict(dice, Gate(0.5, 0.5))
    assert verdict.promise == {"coverage": 0.97, "dice": 0.9, "confidence": 0.95}
    few = GateVerdict(dice[:10], Gate(0.5, 0.5)).promise
    assert few is not None and few["dice"] == 0.9 and 0.741 < few["coverage"] < 0.742
    assert "at least 74.1 % of images like these keep Dice 0.9000" in promise_text(few)
    seen = GateVerdict(dice, Gate(0.5, 0.5), unseen=False)
    assert seen.promise is None and seen.record()["promise"] is None
    assert "promise nothing" in promise_text(None)


def test_a_gate_on_a_share_lets_the_few_fall_that_it_leaves_out() -> None:
    asked = gate_from_options(0.9, None, 0.97, 0.95)
    assert asked == Gate(0.9, 0.0, 0.97, 0.95) and gate_from_options(0.9, None, None, None) == Gate(0.9, 0.95)
    many = np.full(300, 0.99)
    many[:3] = 0.5
    assert GateVerdict(many, asked).passed
    many[3] = 0.5
    failed = GateVerdict(many, asked)
    assert not failed.passed and "97.0% of images keep 0.5000 (gate 0.95)" in failed.failure()
    assert not GateVerdict(np.full(300, 0.99), asked, unseen=False).passed
    with pytest.raises(UsageError, match="needs 99 gate images at least, there are 98"):
        asked.check_count(98)
    with pytest.raises(UsageError, match="--gate-floor: needs --gate-coverage"):
        gate_from_options(0.9, None, None, 0.95)
    with pytest.raises(UsageError, match="--gate-coverage"):
        Gate(coverage=0.3)


def test_some_images_settle_what_all_would_say() -> None:
    gate = Gate(0.99, 0.0, 0.97, 0.95)
    some = np.array([0.9, 0.9, 0.9, 1.0])
    assert gate.fails_for_certain(some, 200) and not gate.fails_for_certain(some[1:], 300)
    assert gate.fails_for_certain(np.array([0.0, 0.0]), 100), "the mean cannot be reached any more"
    assert Gate(0.5, 0.95).fails_for_certain(np.array([0.94]), 10**6)


def test_sixths_are_three_sets_without_a_common_image() -> None:
    images = scenes(24, seed=4)
    first, second, third = sixths(ImageSet(np.concatenate([images, images[1:4]]), "s"))
    assert (len(first.images), len(second.images)) == (5, 8) and len(third.images) == 12
    check_disjoint(first, second)
    check_disjoint(first, third)
    check_disjoint(second, third)
    with pytest.raises(UsageError, match="same image again"):
        sixths(ImageSet(np.repeat(images[:1], 12, axis=0), "s"))


def request(gate: Gate, search: ImageSet | None) -> RecipeRequest:
    return RecipeRequest("int8", ("cpu",), CALIBRATION, GATE, gate, "minmax", "0" * 64, 1, search)


def test_the_gate_judges_once_on_images_that_the_search_never_saw(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[tuple[int, Gate]] = []
    real = module.Search.run

    def run(self: module.Search, *methods: object) -> SearchResult:
        searched.append((len(self.images), self.gate))
        return real(self, *methods)

    monkeypatch.setattr(module.Search, "run", run)
    gate = Gate(0.8, 0.0, 0.97, 0.3)
    record = recipe_from_graph(graph, request(gate, TUNING), None).gate
    assert [count for count, _ in searched] == [len(TUNING.images)]
    assert searched[0][1] == gate.stricter and searched[0][1].minimum > 0.3
    assert record is not None and record["images"] == 120 and record["search"]["count"] == 6
    assert record["promise"]["coverage"] == 0.97 and record["promise"]["dice"] >= 0.3
    # Without a promise asked for, a miss on new images is searched on with all, and then nothing is promised.
    searched.clear()
    lowest = record["minimum"]
    gate = Gate(0.0, lowest + 1e-6)
    try:
        record = recipe_from_graph(graph, request(gate, TUNING), None).gate
    except GateError:
        record = None
    assert searched[-1] == (126, gate)
    assert record is None or (record["images"] == 126 and record["promise"] is None)


def test_a_search_that_no_stricter_gate_allows_lets_fall_what_the_promise_leaves_out(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    aims: list[Gate] = []

    def run(self: module.Search, methods: object) -> SearchResult:
        aims.append(self.gate)
        raise GateError("cannot be reached")

    monkeypatch.setattr(module, "choose_execution", lambda *_: CpuChoice())
    monkeypatch.setattr(module.Search, "run", run)
    gate = Gate(0.8, 0.0, 0.5, 0.9)
    for own, expected in (
        (TUNING, [gate.stricter, Gate(0.8, 0.9), gate]),
        (ImageSet(TUNING.images[:4], "too few for a promise"), [gate.stricter, Gate(0.8, 0.9)]),
    ):
        aims.clear()
        with pytest.raises(GateError):
            recipe_from_graph(graph, request(gate, own), None)
        assert aims == expected


def test_a_promise_that_new_images_do_not_keep_ends_the_build(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(self: module.Search, methods: object) -> SearchResult:
        return dataclasses.replace(found, nodes=self.candidates, verdict=found.verdict)

    found = SearchResult([], "minmax", {}, GateVerdict(np.ones(6), Gate()), [], 1)
    monkeypatch.setattr(module.Search, "run", spoil)
    with pytest.raises(GateError, match="120 images that the search had not seen"):
        recipe_from_graph(graph, request(Gate(1.0, 0.0, 0.97, 1.0), TUNING), None)


def test_images_that_refused_a_choice_promise_nothing_of_the_next(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where an interrupted search goes on: nothing had to be run, and what was tried first passes.
    def passes(self: Any, _: object) -> SearchResult:
        verdict = GateVerdict(np.ones(len(self.images)), Gate(1.0, 1.0))
        return SearchResult(self.candidates, "minmax", self.clips("mse"), verdict, [], evaluations=0, plain=True)

    monkeypatch.setattr(module.Search, "run", passes)
    record = recipe_from_graph(graph, request(Gate(1.0, 1.0), TUNING), None).gate
    assert record is not None and record["images"] == 126 and record["promise"] is None


def test_the_gate_shares_no_image_with_the_search(graph: Graph) -> None:
    shared = ImageSet(np.concatenate([TUNING.images, GATE.images[:2]]), "overlapping")
    with pytest.raises(UsageError, match="2 gate images are also search images"):
        recipe_from_graph(graph, request(Gate(0.5, 0.1), shared), None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"search_images": None}, "INT8 would be chosen by the gate's images"),
        ({"precision": "fp32"}, "this fp32 build compares no masks"),
        ({"precision": "bf16", "targets": ("tensorrt",), "gate_images": None}, "this bf16 build compares no masks"),
        ({"precision": "fp16", "gate_images": None}, "this fp16 build compares no masks"),
    ],
)
def test_a_promise_that_nobody_can_give_is_refused(graph: Graph, changes: dict[str, object], words: str) -> None:
    asked = dataclasses.replace(request(Gate(0.5, 0.0, 0.97, 0.1), TUNING), **changes)
    with pytest.raises(UsageError, match=f"--gate-coverage: .*{words}"):
        recipe_from_graph(graph, asked, None)


def test_two_verdicts_by_the_same_images_share_their_doubt() -> None:
    gate = Gate(0.5, 0.0, 0.97, 0.9)
    assert [gate.looks(count) for count in (99, 121, 122, 300)] == [1, 1, 2, 2]
    assert Gate(0.5, 0.5).looks(300) == 1
    dice = np.linspace(0.9, 1.0, 270)
    once, twice = GateVerdict(dice, gate), GateVerdict(dice, gate, looks=2)
    assert once.bound == dice[3] and twice.bound == dice[2]
    assert twice.promise == {"coverage": 0.97, "dice": round(float(dice[2]), 6), "confidence": 0.95}


def test_a_recorded_recipe_cannot_promise(graph: Graph) -> None:
    built = recipe_from_graph(graph, request(Gate(0.5, 0.1), None), None)
    again = dataclasses.replace(request(Gate(0.5, 0.1), None), recorded=built.recipe)
    judged = recipe_from_graph(graph, again, None)
    assert built.gate is not None and built.gate["promise"] is not None
    assert judged.gate is not None and judged.gate["promise"] is None
    assert judged.gate["minimum"] == built.gate["minimum"]
    apart = recipe_from_graph(graph, dataclasses.replace(again, recorded_apart=True), None)
    assert apart.gate is not None and apart.gate["promise"] == built.gate["promise"]
    with pytest.raises(UsageError, match="recorded recipe"):
        recipe_from_graph(graph, dataclasses.replace(again, gate=Gate(0.5, 0.1, 0.97, 0.1)), None)
