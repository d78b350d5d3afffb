"""An FP16 graph runs in f16, and the rest of an INT8 graph in bf16, where the CPU has that, uses it, gains by it
and keeps its masks; else it is said why not.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from support.precision_graphs import scenes, tiny_graph

from gms_rt.errors import GateError, GmsError
from gms_rt.graph.graph import Graph
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.precision import bf16_remainder, cpu_choice, int8_recipe, recipe_from_graph, returned, search
from gms_rt.precision.cpu_choice import CpuChoice, choose_execution, latencies
from gms_rt.precision.fp32_masks import Fp32Masks
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.images import ImageSet
from gms_rt.precision.recipe_request import RecipeRequest
from gms_rt.runtime import arithmetic
from gms_rt.runtime.arithmetic import CpuArithmetic

GATE = ImageSet(scenes(3, seed=5), "scenes 5")
REQUEST = RecipeRequest(
    "fp16", ("cpu",), ImageSet(scenes(2, seed=4), "scenes 4"), GATE, Gate(0.9, 0.8), "minmax", "0" * 64, 1
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return read_graph(tiny_graph(tmp_path_factory.mktemp("graph")))


class Fake(Session):
    """A CPU with f16 and bf16: compiles anything, runs `layers`; its masks are those of f32, times `gain`."""

    layers: dict[str, dict[str, int]] = {"Convolution": {"f16": 3}}  # noqa: RUF012
    gain = 1.0
    refuses = False
    asked: list[str] = []  # noqa: RUF012

    def __init__(self, graph: Graph, *, execution: str = "f32", batch: int = 0, form: object = None) -> None:
        Fake.asked.append(execution)
        if execution != "f32" and self.refuses:
            raise GmsError("OpenVINO cannot compile the graph (no kernel)")
        super().__init__(graph, batch=batch)
        self.execution = execution

    def executed_layers(self) -> dict[str, dict[str, int]]:
        return self.layers

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        found = super().probabilities(images)
        return (found * self.gain).astype(np.uint8) if self.execution != "f32" else found


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU whose runtime reports FP16 and is twice as fast with it."""
    for module in (arithmetic, cpu_choice):
        monkeypatch.setattr(module, "cpu_arithmetic", lambda: CpuArithmetic(True, False))
    monkeypatch.setattr(cpu_choice, "Session", Fake)
    monkeypatch.setattr(recipe_from_graph, "Session", Fake)
    monkeypatch.setattr(returned, "Session", Fake)
    monkeypatch.setattr(cpu_choice, "latencies", lambda *_: (10.0, 5.0))
    monkeypatch.setattr(Fake, "asked", [])
    return monkeypatch


@pytest.mark.usefixtures("able")
def test_f16_that_is_real_and_faster_is_taken(graph: Graph) -> None:
    assert choose_execution(graph, "fp16") == CpuChoice("f16", milliseconds={"f32": 10.0, "f16": 5.0})
    assert choose_execution(graph, "fp32") == choose_execution(graph, "int8") == CpuChoice("f32")


def test_a_cpu_without_f16_says_that_only_the_weights_are_fp16(graph: Graph, able: pytest.MonkeyPatch) -> None:
    able.setattr(arithmetic, "cpu_arithmetic", lambda: CpuArithmetic(False, True))
    note = "the CPU runs the FP16 graph in f32; only its weights are stored as FP16"
    assert choose_execution(graph, "fp16") == CpuChoice("f32", note)
    assert Fake.asked == []


@pytest.mark.parametrize(
    ("where", "what", "value", "words"),
    [
        (Fake, "layers", {"Convolution": {"f32": 3}, "Reorder": {"f16": 9}}, "computes no layer of this graph in it"),
        (Fake, "refuses", True, r"cannot compile the graph \(no kernel\)"),
        (
            cpu_choice,
            "latencies",
            lambda *_: (5.0, 10.0),
            r"f16 is not faster on this CPU \(10\.0 ms against 5\.0 ms\)",
        ),
        (cpu_choice, "latencies", lambda *_: (5.0, 4.9), "f16 is not faster"),
    ],
)
def test_f16_that_is_not_real_or_not_faster_is_left_with_a_note(
    graph: Graph, able: pytest.MonkeyPatch, where: object, what: str, value: object, words: str
) -> None:
    able.setattr(where, what, value)
    found = choose_execution(graph, "fp16")
    assert found.execution == "f32"
    assert found.note.startswith("the CPU runs the FP16 graph in f32; ")
    assert re.search(words, found.note), found.note


@pytest.mark.usefixtures("able")
def test_the_gate_judges_the_arithmetic_that_will_run(graph: Graph) -> None:
    judged = recipe_from_graph.recipe_from_graph(graph, REQUEST, None, None, Fp32Masks())
    assert judged.cpu.execution == "f16" and Fake.asked[-1] == "f16"
    assert judged.gate is not None and judged.gate["arithmetic"] == "f16"


def test_f16_that_misses_the_gate_gives_way_to_f32(graph: Graph, able: pytest.MonkeyPatch) -> None:
    able.setattr(Fake, "gain", 0.1)
    judged = recipe_from_graph.recipe_from_graph(graph, REQUEST, None, None, Fp32Masks())
    assert judged.cpu.execution == "f32" and "in f16 the accuracy gate is not met: Dice" in judged.cpu.note
    assert judged.gate is not None and (judged.gate["arithmetic"], judged.gate["passed"]) == ("f32", True)
    assert judged.gate["promise"] is None, "these images chose f32"
    strict = dataclasses.replace(REQUEST, gate=Gate(1.0, 1.0), gate_images=ImageSet(255 - GATE.images, "turned"))

    class Inverted(Fp32Masks):
        def of(self, graph: Graph, graph_sha256: str, images: ImageSet) -> np.ndarray:
            return 255 - super().of(graph, graph_sha256, images)

    with pytest.raises(GateError):
        recipe_from_graph.recipe_from_graph(graph, strict, None, None, Inverted())


def test_f16_that_breaks_a_promise_gives_way_where_the_images_can_promise_twice(
    graph: Graph, able: pytest.MonkeyPatch
) -> None:
    able.setattr(Fake, "gain", 0.1)
    images = ImageSet(scenes(36, seed=6), "scenes 6")
    asked = dataclasses.replace(REQUEST, gate_images=images, gate=Gate(0.5, 0.0, 0.9, 0.5))
    judged = recipe_from_graph.recipe_from_graph(graph, asked, None, None, Fp32Masks())
    assert judged.cpu.execution == "f32" and judged.gate is not None
    assert (judged.gate["promise"]["coverage"], judged.gate["promise"]["confidence"]) == (0.9, 0.95)
    few = dataclasses.replace(asked, gate_images=ImageSet(images.images[:34], "few"))
    with pytest.raises(GateError, match=r"90\.0% of images keep 0"):
        recipe_from_graph.recipe_from_graph(graph, few, None, None, Fp32Masks())


@pytest.mark.usefixtures("able")
def test_without_a_cpu_target_nothing_is_measured(graph: Graph) -> None:
    elsewhere = dataclasses.replace(REQUEST, targets=("tensorrt-rtx",))
    judged = recipe_from_graph.recipe_from_graph(graph, elsewhere, None, None, Fp32Masks())
    assert judged.cpu == CpuChoice() and "f16" not in Fake.asked
    assert judged.gate is not None and judged.gate == judged.plans
    assert judged.gate["arithmetic"] == "f16" and judged.gate["how"].startswith("emulated on a CPU")


def test_where_bf16_would_be_faster_than_fp16_stored_in_f32_the_build_says_so(
    graph: Graph, able: pytest.MonkeyPatch
) -> None:
    for module in (arithmetic, cpu_choice):
        able.setattr(module, "cpu_arithmetic", lambda: CpuArithmetic(False, True))
    note = choose_execution(graph, "fp16").note
    assert note.endswith("stored as FP16; --precision bf16 would be faster here: 5.0 ms against 10.0 ms")
    able.setattr(cpu_choice, "latencies", lambda *_: (10.0, 9.9))
    assert "bf16" not in choose_execution(graph, "fp16").note


def test_latencies_are_of_each_session(graph: Graph) -> None:
    class Slow(Session):
        def milliseconds(self, image: np.ndarray, *, runs: int = 15, warmup: int = 3) -> float:
            return 1000.0

    first, second = latencies(Session(graph), Slow(graph), GATE.images[:1])
    assert second == 1000.0 and 0 < first < second


@pytest.fixture
def short(able: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU whose runtime reports BF16 and is twice as fast with it."""
    for module in (arithmetic, cpu_choice):
        able.setattr(module, "cpu_arithmetic", lambda: CpuArithmetic(False, True))
    for module in (int8_recipe, search, bf16_remainder):
        able.setattr(module, "Session", Fake)
    able.setattr(Fake, "layers", {"Convolution": {"u8": 9}, "MVN": {"bf16": 3}})
    return able


INT8 = dataclasses.replace(REQUEST, precision="int8")


@pytest.mark.usefixtures("short")
def test_the_rest_of_an_int8_graph_runs_in_bf16_and_both_are_judged(graph: Graph) -> None:
    judged = recipe_from_graph.recipe_from_graph(graph, INT8, None, None, Fp32Masks())
    assert (judged.cpu.execution, judged.cpu.fallback) == ("bf16", "f32")
    assert "runs in bf16: 5.0 ms, in f32 it was 10.0 ms" in judged.cpu.note
    assert judged.gate is not None and judged.gate["arithmetic"] == "bf16" and judged.gate["f32"]["passed"]
    again = dataclasses.replace(INT8, recorded=judged.recipe)
    applied = recipe_from_graph.recipe_from_graph(graph, again, None, None, Fp32Masks())
    assert (applied.cpu.execution, applied.cpu.fallback) == ("bf16", "f32")
    assert applied.gate is not None and applied.gate["f32"]["mean"] == judged.gate["f32"]["mean"]


def test_int8_that_misses_the_gate_in_bf16_is_searched_for_in_f32(graph: Graph, short: pytest.MonkeyPatch) -> None:
    short.setattr(Fake, "gain", 0.1)
    judged = recipe_from_graph.recipe_from_graph(graph, INT8, None, None, Fp32Masks())
    assert (judged.cpu.execution, judged.cpu.fallback) == ("f32", "")
    assert judged.cpu.note.startswith("what is not int8 runs in f32; in bf16 the accuracy gate is not met: Dice")
    assert "damage" not in judged.cpu.note
    assert judged.gate is not None and judged.gate["promise"] is None, "these images chose f32"
    assert judged.gate is not None and (judged.gate["arithmetic"], judged.gate["passed"]) == ("f32", True)
    again = dataclasses.replace(INT8, recorded=judged.recipe)
    applied = recipe_from_graph.recipe_from_graph(graph, again, None, None, Fp32Masks())
    assert applied.cpu.execution == "f32" and "in bf16 the accuracy gate is not met" in applied.cpu.note


def test_int8_that_breaks_a_promise_in_bf16_is_judged_in_f32_where_the_images_can_promise_twice(
    graph: Graph, short: pytest.MonkeyPatch
) -> None:
    short.setattr(Fake, "gain", 0.1)
    short.setattr(
        search.Search,
        "run",
        lambda self, _: search.SearchResult(
            list(self.candidates), "minmax", self.clips("minmax"), GateVerdict(np.ones(3), self.gate), [], 1
        ),
    )
    images = ImageSet(scenes(36, seed=6), "scenes 6")
    own = ImageSet(scenes(3, seed=7), "scenes 7")
    asked = dataclasses.replace(INT8, gate_images=images, search_images=own, gate=Gate(0.5, 0.0, 0.9, 0.5))
    judged = recipe_from_graph.recipe_from_graph(graph, asked, None, None, Fp32Masks())
    assert judged.cpu.execution == "f32" and "in bf16 the accuracy gate is not met" in judged.cpu.note
    assert judged.gate is not None and judged.gate["promise"]["coverage"] == 0.9
    few = dataclasses.replace(asked, gate_images=ImageSet(images.images[:34], "few"))
    with pytest.raises(GateError, match="on 34 images that the search had not seen"):
        recipe_from_graph.recipe_from_graph(graph, few, None, None, Fp32Masks())


@pytest.mark.usefixtures("short")
def test_an_engine_that_holds_in_bf16_only_has_no_fallback(graph: Graph) -> None:
    judged = recipe_from_graph.recipe_from_graph(graph, INT8, None, None, Fp32Masks())
    assert judged.gate is not None
    missed = judge(GATE.images[..., 0], 255 - GATE.images[..., 0], Gate(0.99, 0.99))
    assert not missed.passed and int8_recipe.with_fallback(judged, missed).cpu.fallback == ""


def test_bf16_that_is_slower_or_not_there_leaves_int8_as_it_was(graph: Graph, short: pytest.MonkeyPatch) -> None:
    short.setattr(cpu_choice, "latencies", lambda *_: (5.0, 4.9))
    assert choose_execution(graph, "int8").execution == "f32"
    short.setattr(cpu_choice, "latencies", lambda *_: (10.0, 5.0))
    assert choose_execution(graph, "int8").execution == "bf16"
    short.setattr(Fake, "layers", {"Convolution": {"u8": 9}, "MVN": {"f32": 3}})
    found = choose_execution(graph, "int8")
    assert found.execution == "f32" and "runs no layer of this graph in it" in found.note
    short.setattr(Fake, "refuses", True)
    assert "BF16 on this CPU, but: OpenVINO cannot compile" in choose_execution(graph, "int8").note
    short.setattr(cpu_choice, "cpu_arithmetic", lambda: CpuArithmetic(None, None, problem="nobody to ask"))
    assert choose_execution(graph, "int8") == CpuChoice()
