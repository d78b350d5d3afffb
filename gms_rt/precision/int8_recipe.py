"""The INT8 part of a recipe: which convolutions, with which ranges, in which arithmetic the rest runs on this CPU.

With images of its own the search aims higher than the gate, which then judges once. Where the CPU computes the rest of
the graph faster in BF16, the search runs in that very arithmetic, then it is found out what of it must stay in f32 all
the same (`bf16_remainder.py`), and the gate judges what will run; FP32 is judged as well, so that the same engine may
run on a CPU without BF16.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.artifacts import sha256_json
from gms_rt.errors import GateError, GmsError, UsageError
from gms_rt.graph.graph import Graph
from gms_rt.graph.openvino_ir import IrGraph
from gms_rt.graph.run import Session
from gms_rt.precision.bf16_remainder import Remainder, choose_remainder
from gms_rt.precision.calibrators import clip, int8_values, spans_from_histograms
from gms_rt.precision.cpu_choice import CpuChoice, choose_execution, in_f32
from gms_rt.precision.fp32_masks import Fp32Masks
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.images import ImageSet
from gms_rt.precision.int8 import QUANTISABLE, int8_graph, quantisable, quantised_skips, residual_skips
from gms_rt.precision.ranges import Extremes, Histogram, histograms
from gms_rt.precision.recipe import WEIGHT_LEVELS, PrecisionRecipe
from gms_rt.precision.recipe_request import JudgedRecipe, RecipeRequest, gate_record
from gms_rt.precision.rounding import InputMoments, differences
from gms_rt.precision.search import AUTO, Search, SearchResult
from gms_rt.progress import OnProgress


@dataclass(frozen=True)
class Ranges:
    """What the calibration images showed of an FP32 graph."""

    kept: dict[str, str]  # nodes that stay FP32 beside INT8, each with the reason
    tensors: dict[str, Extremes]  # those of `int8_tensors` among them


def int8_tensors(graph: Graph) -> list[str]:
    """The tensors that INT8 may quantise: what convolutions take, and what goes around them."""
    wanted = set(quantisable(graph))
    taken = [node.input[0] for node in graph.nodes if node.name in wanted]
    return list(dict.fromkeys([*taken, *residual_skips(graph).values()]))


def int8_recipe(
    graph: Graph,
    request: RecipeRequest,
    known: Ranges,
    masks: Fp32Masks,
    checkpoint: Path | None,
    progress: OnProgress,
) -> JudgedRecipe:
    """The recipe of a graph whose channels were evened out, judged."""
    if request.calibration is None or request.gate_images is None:
        raise UsageError("INT8 needs images to calibrate on and others to be judged on", fix="give --calib FOLDER")
    candidates = [name for name in quantisable(graph) if name not in known.kept]
    # The first convolution sees pixels, and eight bits there show in every mask. The last draws one channel: a CPU
    # gains from INT8 there, and the search may return it; a GPU gains nothing.
    first, last = _outer(graph)
    candidates = [name for name in candidates if name not in first]
    if all(name in last for name in candidates):
        raise GmsError("the graph has no convolution between the first and the last to quantise")
    nodes = {node.name: node for node in graph.nodes}
    skips = residual_skips(graph)
    watched = list(dict.fromkeys([*(nodes[n].input[0] for n in candidates), *skips.values()]))
    moments = InputMoments(graph, candidates)
    tops = {name: known.tensors[name].magnitude for name in watched}
    counts = histograms(graph, tops, request.calibration.images, progress, moments.look)
    progress("rounding", 0, 1)
    rounded = moments.rounded(WEIGHT_LEVELS)
    progress("rounding", 1, 1)
    # A recorded recipe that these images refused was a choice by them.
    seen = request.recorded is not None
    choice = _Choice(
        graph, candidates, counts, rounded, request, request.gate_images, masks, checkpoint, progress, seen
    )
    found, judged = choice.make()
    chosen = set(found.nodes)
    taken = quantised_skips(graph, chosen)
    recipe = PrecisionRecipe(
        "int8",
        request.graph_sha256,
        int8=found.nodes,
        kept=known.kept,
        ranges={**found.clips, **{name: clip(counts[name], found.calibrator) for name in taken}},
        spans={name: list(ends) for name, ends in spans_from_histograms(counts).items() if name in found.clips},
        rounding=differences(graph, {name: rounded[name] for name in found.nodes if name in rounded}, WEIGHT_LEVELS),
        skips=taken,
        calibrator=found.calibrator,
        calibration=request.calibration.record(),
        blocks=found.rows,
        cpu_only=[name for name in found.nodes if name in last],
        returned=judged.recipe.returned,
    )
    return dataclasses.replace(judged, recipe=recipe)


def with_fallback(judged: JudgedRecipe, plain: GateVerdict) -> JudgedRecipe:
    """A recipe judged in BF16, with what the gate says of the same graph in FP32."""
    assert judged.gate is not None
    found = {key: plain.record()[key] for key in ("mean", "minimum", "passed")}
    fallback = "f32" if plain.passed else ""
    return dataclasses.replace(
        judged, gate=judged.gate | {"f32": found}, cpu=dataclasses.replace(judged.cpu, fallback=fallback)
    )


@dataclass
class _Choice:
    """The choice of convolutions for one build: the search, and the gate after it."""

    graph: Graph
    candidates: list[str]
    counts: dict[str, Histogram]  # of the tensors that they take, and of the residual skips
    rounded: dict[str, NDArray[np.int8]]  # their weights, rounded together
    request: RecipeRequest
    judges: ImageSet  # the gate's images
    masks: Fp32Masks
    checkpoint: Path | None
    progress: OnProgress
    seen: bool = False  # whether something was chosen by the gate's images, which then promise nothing
    looks: int = 1  # verdicts that a promise must leave room for, one for each arithmetic

    def make(self) -> tuple[SearchResult, JudgedRecipe]:
        """What was found, and the verdict on it; its recipe has only what stays in f32 among BF16.

        The rest of the graph runs in BF16 where that is faster and the gate can be met in it.
        """
        method = self._methods[0]
        plain = self._typed(self.candidates, method)
        cpu = choose_execution(plain, "int8") if "cpu" in self.request.targets else CpuChoice()
        gate = self.request.gate
        self.looks = gate.looks(len(self.judges.images)) if cpu.execution != "f32" else 1
        try:
            found, record, rest = self._judged(cpu)
        except GateError as error:
            if cpu.execution == "f32" or (self.seen and gate.coverage is not None):
                raise
            self.progress("the gate is missed in bf16, searching in f32", 0, 1)
            why = error.what.partition("; block")[0]
            cpu = CpuChoice("f32", in_f32("int8", f"in bf16 {why}"), milliseconds=cpu.milliseconds)
            found, record, rest = self._judged(cpu)
        recipe = PrecisionRecipe("int8", self.request.graph_sha256, returned=list(rest.returned))
        judged = JudgedRecipe(recipe, record, rest.cpu)
        if rest.cpu.execution == "bf16":
            judged = with_fallback(judged, self._verdict(found, self.judges, Remainder(CpuChoice())))
        return found, judged

    @property
    def _methods(self) -> tuple[str, ...]:
        return AUTO if self.request.calibrator == "auto" else (self.request.calibrator,)

    def _judged(self, cpu: CpuChoice) -> tuple[SearchResult, dict[str, Any], Remainder]:
        """A choice that meets the gate, the gate's record, and how what is not INT8 runs.

        With images of its own the search aims higher than the gate, which then judges once. If that misses, the search
        goes on with all images and the gate as it is, unless the gate asks for a promise: images that choose promise
        nothing.
        """
        gate, own, judges, spent = self.request.gate, self.request.search_images, self.judges, 0
        seen = self.seen or own is not None  # where the search goes on with all images, they have refused something
        if own is not None:
            found, rest = self._with_remainder(own, cpu, lambda execution: self._aimed(own, execution))
            self.progress("gate", 0, 1)
            verdict = self._verdict(found, judges, rest)
            self.progress("gate", 1, 1)
            spent = found.evaluations
            if verdict.passed:
                record = gate_record(verdict, judges, rest.cpu.execution)
                return found, record | {"evaluations": spent, "search": own.record()}, rest
            self.seen = self.looks == 1
            if gate.coverage is not None:
                raise GateError(
                    f"{verdict.failure()} on {len(verdict.dice)} images that the search had not seen",
                    fix="use --precision fp16, a lower --gate-floor, or more images with --calib",
                )
            self.progress("the gate is missed on new images, searching with all", 0, 1)
            both = np.concatenate([own.images, judges.images])
            judges = ImageSet(both, f"{judges.source} and {own.source}")
        self.seen = True
        found, rest = self._with_remainder(judges, cpu, lambda execution: self._search(judges, gate, execution))
        verdict = dataclasses.replace(found.verdict, unseen=found.plain and not seen)
        if rest.returned or rest.cpu.execution != found.execution:  # not as the search ran it, which has met the gate
            other = self._verdict(found, judges, rest)
            verdict, rest = (other, rest) if other.passed else (verdict, Remainder(cpu))
        record = gate_record(verdict, judges, rest.cpu.execution)
        return found, record | {"evaluations": found.evaluations + spent}, rest

    def _with_remainder(
        self, images: ImageSet, cpu: CpuChoice, search: Callable[[str], SearchResult]
    ) -> tuple[SearchResult, Remainder]:
        """What a search finds, and how the rest runs.

        Where that is f32 after all, INT8 is chosen anew beside it: the first search had to leave room in the gate for
        what BF16 does, and an engine of few INT8 convolutions among f32 would gain nothing.
        """
        found = search(cpu.execution)
        rest = self._remainder(found, images, cpu)
        if rest.cpu.execution == cpu.execution:
            return found, rest
        self.progress("the rest runs in f32, searching beside that", 0, 1)
        with contextlib.suppress(GateError):
            found = search(rest.cpu.execution)
            note = f"{rest.cpu.note}; so int8 was chosen anew, beside f32"
            return found, Remainder(CpuChoice(rest.cpu.execution, note))
        return found, rest

    def _remainder(self, found: SearchResult, images: ImageSet, cpu: CpuChoice) -> Remainder:
        """How what is not INT8 runs, by the images that chose the convolutions."""
        if cpu.execution != "bf16":
            return Remainder(cpu)
        self.progress("what bf16 does to the masks", 0, 1)
        reference = self.masks.of(self.graph, self.request.graph_sha256, images)
        typed = self._typed(found.nodes, found.calibrator)
        rest = choose_remainder(typed, cpu, images.images, reference, found.verdict.dice)
        self.progress("what bf16 does to the masks", 1, 1)
        return rest

    def _aimed(self, images: ImageSet, execution: str) -> SearchResult:
        """The search with a stricter gate where that can be reached, else with the gate as it is.

        A promise leaves out a few images: they may fall here too where nothing else can be reached.
        """
        gate = self.request.gate
        aims = [gate.stricter, Gate(gate.mean, gate.tail), *([gate] if gate.promises(len(images.images)) else [])]
        for aim in aims[:-1]:
            with contextlib.suppress(GateError):
                return self._search(images, aim, execution)
        return self._search(images, aims[-1], execution)

    def _search(self, images: ImageSet, gate: Gate, execution: str) -> SearchResult:
        key = sha256_json([self.request.key, images.sha256, execution])
        search = Search(
            self.graph,
            self.candidates,
            self.counts,
            images.images,
            self.masks.of(self.graph, self.request.graph_sha256, images),
            gate,
            WEIGHT_LEVELS,
            self.rounded,
            execution=execution,
            checkpoint=None if self.checkpoint is None else self.checkpoint.with_suffix(f".{key[:8]}.json"),
            key=key,
            progress=self.progress,
        )
        return search.run(self._methods)

    def _verdict(self, found: SearchResult, images: ImageSet, rest: Remainder) -> GateVerdict:
        typed = self._typed(found.nodes, found.calibrator)
        form = IrGraph(typed).keeping(rest.returned) if rest.returned else None
        session = Session(typed, execution=rest.cpu.execution, form=form)
        reference = self.masks.of(self.graph, self.request.graph_sha256, images)
        probabilities = session.probabilities(images.images)
        return judge(probabilities, reference, self.request.gate, unseen=not self.seen, looks=self.looks)

    def _typed(self, nodes: list[str], method: str) -> Graph:
        values = int8_values(self.counts, method, self.rounded)
        return int8_graph(self.graph, nodes, values, "cpu", levels=WEIGHT_LEVELS, skips=())


def _outer(graph: Graph) -> tuple[set[str], set[str]]:
    """Convolutions with no convolution before them, and those with none after them."""
    before: dict[str, bool] = {}
    first, last = set(), set()
    for node in graph.nodes:
        seen = any(before.get(name, False) for name in node.input)
        if node.op_type in QUANTISABLE and not seen:
            first.add(node.name)
        before.update(dict.fromkeys(node.output, seen or node.op_type in QUANTISABLE))
    after: dict[str, bool] = {}
    for node in reversed(graph.nodes):
        seen = any(after.get(name, False) for name in node.output)
        if node.op_type in QUANTISABLE and not seen:
            last.add(node.name)
        for name in node.input:
            after[name] = after.get(name, False) or seen or node.op_type in QUANTISABLE
    return first, last
