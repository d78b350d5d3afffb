"""What BF16 beside INT8 may do to the masks, and what is returned to f32 for that."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.precision_graphs import tiny_graph
from support.small_builds import GATE, built

from gms_rt.engine.manifest import read_manifest, verify_files
from gms_rt.engine.select import load
from gms_rt.errors import GateError, GmsError
from gms_rt.graph.graph import Graph, stage
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.precision import bf16_remainder, int8_recipe
from gms_rt.precision.bf16_remainder import Remainder, bf16_damage, choose_remainder
from gms_rt.precision.cpu_choice import CpuChoice
from gms_rt.precision.fp32_masks import Fp32Masks
from gms_rt.precision.gate import Gate, judge
from gms_rt.precision.recipe import read_recipe
from gms_rt.precision.recipe_from_graph import recipe_from_graph
from gms_rt.precision.recipe_request import RecipeRequest
from gms_rt.precision.search import Search
from gms_rt.runtime.arithmetic import cpu_arithmetic

needs_bf16 = pytest.mark.skipif(not cpu_arithmetic().bf16, reason="OpenVINO has no BF16 arithmetic on this CPU")
IMAGES = np.zeros((2, 8, 8, 3), np.uint8)
REFERENCE = np.full((2, 8, 8), 128, np.uint8)
DICE = np.ones(2)
FASTER = CpuChoice("bf16", "what is not int8 runs in bf16: 5.0 ms, in f32 it was 10.0 ms")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_graph(tmp_path_factory.mktemp("graph"))


@dataclass
class Machine:
    """A CPU on which INT8 moves every grey level by `int8`, and BF16 each stage's by so many; squares add up."""

    int8: float
    stages: dict[str, float]
    stays_low: tuple[str, ...] = ()  # stages that its runtime does not run in f32 among BF16
    refused: tuple[str, ...] = ()  # stages with which it compiles nothing
    milliseconds: tuple[float, float] = (10.0, 5.0)

    def session(self, graph: Graph, *, execution: str = "f32", form: Any = None) -> Any:
        f32 = {stage(name) for name in form or ()}
        if f32 & set(self.refused):
            raise GmsError("object is not initialized")
        low = {} if execution == "f32" else {name: by for name, by in self.stages.items() if name not in f32}
        moved = np.sqrt(self.int8**2 + sum(by**2 for by in low.values()))

        class Answer:
            def probabilities(self, images: np.ndarray) -> np.ndarray:
                return np.full(images.shape[:3], round(128 + moved), np.uint8)

        return Answer()

    def use(self, patch: pytest.MonkeyPatch) -> None:
        def runs(_: Any, nodes: Any) -> bool:
            return not {stage(name) for name in nodes} & set(self.stays_low)

        class Form:
            def __init__(self, graph: Graph) -> None: ...

            def keeping(self, nodes: Any) -> Any:
                return nodes

        patch.setattr(bf16_remainder, "Session", self.session)
        patch.setattr(bf16_remainder, "IrGraph", Form)
        patch.setattr(bf16_remainder, "runs_in_f32", runs)
        patch.setattr(bf16_remainder, "latencies", lambda *_: self.milliseconds)


def test_the_stage_that_bf16_hurts_is_returned_and_the_others_are_not(graph: Path, monkeypatch) -> None:
    Machine(10, {"encoder": 20, "lmm": 3, "decoder": 2}).use(monkeypatch)
    typed = read_graph(graph)
    found = bf16_damage(typed, IMAGES, REFERENCE)
    assert found.returned == ("encoder/conv_in", "encoder/down")
    assert found.int8 < found.damage < found.all_bf16
    rest = choose_remainder(typed, FASTER, IMAGES, REFERENCE, DICE)
    assert rest.returned == found.returned and rest.cpu.execution == "bf16"
    assert rest.cpu.milliseconds == {"f32": 10.0, "bf16": 5.0}
    assert "2 convolutions stay in f32, because bf16 would add" in rest.cpu.note


def test_of_two_stages_the_one_that_takes_most_for_its_operations_comes_first(graph: Path, monkeypatch) -> None:
    Machine(10, {"encoder": 20, "lmm": 20, "decoder": 2}).use(monkeypatch)
    found = bf16_damage(read_graph(graph), IMAGES, REFERENCE)
    assert list(dict.fromkeys(stage(name) for name in found.returned)) == ["encoder", "lmm"]


def test_bf16_that_does_little_beside_int8_is_left_alone(graph: Path, monkeypatch) -> None:
    Machine(20, {"encoder": 5}).use(monkeypatch)
    assert choose_remainder(read_graph(graph), FASTER, IMAGES, REFERENCE, DICE) == Remainder(FASTER)
    Machine(0, {}).use(monkeypatch)
    assert choose_remainder(read_graph(graph), FASTER, IMAGES, REFERENCE, DICE) == Remainder(FASTER), "no damage"


@pytest.mark.parametrize("trouble", [{"stays_low": ("encoder",)}, {"refused": ("encoder",)}])
def test_a_stage_that_the_runtime_does_not_run_in_f32_is_not_returned(graph: Path, monkeypatch, trouble) -> None:
    Machine(10, {"encoder": 20, "lmm": 15}, **trouble).use(monkeypatch)
    rest = choose_remainder(read_graph(graph), FASTER, IMAGES, REFERENCE, DICE)
    assert rest.cpu.execution == "bf16" and {stage(name) for name in rest.returned} == {"lmm"}


def test_what_is_not_faster_with_its_f32_part_runs_in_f32(graph: Path, monkeypatch) -> None:
    Machine(10, {"encoder": 20}, milliseconds=(10.0, 9.9)).use(monkeypatch)
    rest = choose_remainder(read_graph(graph), FASTER, IMAGES, REFERENCE, DICE)
    assert rest.returned == () and rest.cpu.execution == "f32" and "not faster: 9.9 ms against 10.0 ms" in rest.cpu.note


def test_the_images_that_keep_least_in_bf16_decide(graph: Path, monkeypatch) -> None:
    """A hundred images of which BF16 moves three: their damage is not lost in a mean over all."""
    machine = Machine(1, {"encoder": 100})
    machine.use(monkeypatch)
    answer = machine.session

    class Few:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.session = answer(*args, **options)

        def probabilities(self, images: np.ndarray) -> np.ndarray:
            moved = self.session.probabilities(images).astype(int) - 128
            return (128 + moved * np.where(images[..., 0] == 1, 1, 0)).astype(np.uint8)

    monkeypatch.setattr(bf16_remainder, "Session", Few)
    monkeypatch.setattr(bf16_remainder, "IMAGES", 3)
    images, dice = np.zeros((100, 8, 8, 3), np.uint8), np.ones(100)
    images[[7, 50, 93]] = 1
    dice[[7, 50, 93]] = 0.9
    rest = choose_remainder(read_graph(graph), FASTER, images, REFERENCE[:1].repeat(100, 0), dice)
    assert rest.returned == ("encoder/conv_in", "encoder/down")
    share = re.search(r"would add (\d+)% to what int8 changes", rest.cpu.note)
    assert share and int(share[1]) > 1000, "of the three, not of a hundred"


@needs_bf16
def test_an_int8_engine_with_a_part_of_its_bf16_remainder_in_f32(graph: Path, tmp_path: Path, monkeypatch) -> None:
    """Returned whatever it gains: which stage a graph of this size needs, its random weights decide."""
    fp32 = read_graph(graph)
    kept = ("encoder/conv_in",)
    chosen = Remainder(FASTER, kept)
    monkeypatch.setattr(int8_recipe, "choose_execution", lambda *_: FASTER)
    monkeypatch.setattr(int8_recipe, "choose_remainder", lambda *_: chosen)
    made = built(graph, tmp_path / "e", "int8", gate=Gate(0.5, 0.5), calibrator="minmax")
    manifest, recipe = read_manifest(made.folder), read_recipe(made.folder)
    verify_files(made.folder, manifest)
    assert tuple(recipe.returned) == kept and not set(kept) & set(recipe.int8)
    assert (manifest.model, manifest.execution, manifest.fallback) == ("model.xml", "bf16", "f32")
    assert manifest.gate["promise"] is None, "the gate's images have chosen what is in f32"
    layers = manifest.census["cpu"]["layers"]["Convolution"]
    assert layers["f32"] == 1 and set(layers) & {"i8", "u8"}
    reference = Session(fp32).probabilities(GATE.images)
    with load(made.folder, trust_device=True) as engine:
        dice = judge(engine.runner.infer(GATE.images), reference, Gate()).dice
    assert float(dice.mean()) == pytest.approx(manifest.gate["mean"], abs=1e-6)
    request = RecipeRequest("int8", ("cpu",), None, GATE, Gate(0.5, 0.5), "auto", recipe.graph_sha256, 1)
    again = recipe_from_graph(fp32, RecipeRequest(**{**vars(request), "recorded": recipe}), None, None, Fp32Masks())
    assert again.gate is not None
    if again.cpu.execution == "bf16":  # by time, on so small a graph
        assert again.gate["mean"] == pytest.approx(manifest.gate["mean"], abs=1e-6)


@needs_bf16
@pytest.mark.parametrize("misses", [False, True])
def test_where_the_rest_runs_in_f32_after_all_int8_is_chosen_beside_that(
    graph: Path, tmp_path: Path, monkeypatch, misses: bool
) -> None:
    after_all = CpuChoice("f32", "what is not int8 runs in f32; bf16 is not faster")
    monkeypatch.setattr(int8_recipe, "choose_execution", lambda *_: FASTER)
    monkeypatch.setattr(int8_recipe, "choose_remainder", lambda *_: Remainder(after_all))
    run, found = Search.run, {}

    def noted(search: Search, calibrators: Any) -> Any:
        if misses and search.execution == "f32":
            raise GateError("missed")
        nodes = run(search, calibrators)
        kept = nodes.nodes if search.execution == "f32" else nodes.nodes[1:]  # another choice, to be told apart
        found[search.execution] = kept
        return replace(nodes, nodes=kept)

    monkeypatch.setattr(Search, "run", noted)
    made = built(graph, tmp_path / "e", "int8", gate=Gate(0.5, 0.5), calibrator="minmax")
    manifest, recipe = read_manifest(made.folder), read_recipe(made.folder)
    assert manifest.execution == "f32" and list(found) == ["bf16"] + ["f32"] * (not misses)
    assert recipe.int8 == found["bf16" if misses else "f32"]
    assert any("int8 was chosen anew, beside f32" in note for note in manifest.notes) != misses
