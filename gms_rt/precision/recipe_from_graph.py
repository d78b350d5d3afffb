"""From a fused graph and images to a precision recipe that passes the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gms_rt import __version__
from gms_rt.artifacts import sha256_json
from gms_rt.errors import GateError, GmsError, UsageError
from gms_rt.graph.graph import Graph
from gms_rt.graph.run import Session
from gms_rt.precision.cpu_choice import CpuChoice, choose_execution, in_f32
from gms_rt.precision.equalise import equalise, exponents, links
from gms_rt.precision.floating import float_tensors, fp32_nodes, summed_tensors
from gms_rt.precision.fp32_masks import SHARED, Fp32Masks
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.images import ImageSet, check_disjoint
from gms_rt.precision.int8 import QUANTISABLE, quantisable, residual_skips
from gms_rt.precision.ranges import Extremes, extremes, histograms
from gms_rt.precision.recipe import RECIPE_VERSION, WEIGHT_LEVELS, PrecisionRecipe
from gms_rt.precision.search import AUTO, Search
from gms_rt.progress import OnProgress, silent
from gms_rt.runtime.device import package_version


@dataclass(frozen=True)
class RecipeRequest:
    """Everything that decides a recipe."""

    precision: str  # one of PRECISIONS
    targets: tuple[str, ...]  # some of TARGETS
    calibration: ImageSet | None  # gives the ranges; FP16 and INT8 need it
    gate_images: ImageSet | None  # those that masks are compared on; INT8 needs them
    gate: Gate
    calibrator: str  # by name, or "auto" to try several
    graph_sha256: str  # of the graph's file
    batch: int  # images at once
    recorded: PrecisionRecipe | None = None  # of an earlier build: applied and judged instead of searched for

    @property
    def key(self) -> str:
        """A hash of it all but the targets: one recipe serves them all, so that a folder can grow."""
        value = [
            __version__, self.precision,
            self.calibration and self.calibration.sha256, self.gate_images and self.gate_images.sha256,
            self.gate.mean, self.gate.minimum, self.calibrator, self.graph_sha256, self.batch,
            package_version("openvino"), WEIGHT_LEVELS, RECIPE_VERSION,
            self.recorded and dataclasses.asdict(self.recorded),
        ]  # fmt: skip
        return sha256_json(value)


@dataclass(frozen=True)
class JudgedRecipe:
    """A recipe, and what was found out about it here."""

    recipe: PrecisionRecipe
    gate: dict[str, Any] | None = None  # what the gate said; None where there is nothing to compare
    cpu: CpuChoice = field(
        default_factory=CpuChoice
    )  # the arithmetic of the CPU in which the gate was met, if the CPU is a target


def recipe_from_graph(
    graph: Graph,
    request: RecipeRequest,
    checkpoint: Path | None,
    progress: OnProgress | None = None,
    masks: Fp32Masks = SHARED,
) -> JudgedRecipe:
    """The recipe, what the gate said about it, and the arithmetic in which this CPU runs it.

    `checkpoint` is the file in which an interrupted search goes on; `masks` remembers FP32 masks between builds.
    """
    progress = progress or silent
    if request.calibration is not None and request.gate_images is not None:
        check_disjoint(request.calibration, request.gate_images)
    if request.recorded is not None:
        try:
            return _judge_recipe(graph, request.recorded, request, masks, progress)
        except GateError:
            # Another processor rounds otherwise: what held where it was recorded may miss here, so search again.
            if request.precision != "int8" or request.calibration is None:
                raise
            progress("the recorded recipe misses the gate, searching", 0, 1)
    if request.precision == "fp32":
        return JudgedRecipe(PrecisionRecipe("fp32", request.graph_sha256))
    kept: dict[str, str] = {}
    ranges: dict[str, Extremes] = {}
    steps: dict[str, list[int]] = {}
    if request.precision == "int8" and request.calibration is not None:
        # Exact, so it comes first: everything after it is measured on the graph that will be quantised.
        found = links(graph, quantisable(graph))
        steps = exponents(graph, found, request.calibration.images)
        graph = equalise(graph, steps)
    if request.precision in ("fp16", "int8"):
        summed = summed_tensors(graph)
        names = list(dict.fromkeys([*float_tensors(graph), *summed]))
        ranges = _extremes(graph, names, request, progress, summed)
        kept = fp32_nodes(graph, ranges)
    if request.precision == "bf16":
        kept = {n.name: "TensorRT-RTX has no BF16 deconvolution" for n in graph.nodes if n.op_type == "ConvTranspose"}
    if request.precision == "int8":
        recipe, verdict = _int8(graph, request, kept, ranges, masks, checkpoint, progress)
        channels = {name: " ".join(map(str, values)) for name, values in steps.items()}
        return JudgedRecipe(dataclasses.replace(recipe, channels=channels), verdict)
    calibration = request.calibration.record() if request.calibration is not None else None
    recipe = PrecisionRecipe(request.precision, request.graph_sha256, kept=kept, calibration=calibration)
    return _judge_recipe(graph, recipe, request, masks, progress)


def _judge_recipe(
    graph: Graph, recipe: PrecisionRecipe, request: RecipeRequest, masks: Fp32Masks, progress: OnProgress
) -> JudgedRecipe:
    """Choose the CPU's arithmetic where it is a target, and compare its masks in that very arithmetic."""
    if recipe.precision == "bf16" and "cpu" not in request.targets:
        return JudgedRecipe(recipe)  # arithmetic that this CPU was not asked to have
    typed = recipe.apply(graph, "cpu")
    progress("arithmetic of this CPU", 0, 1)
    cpu = choose_execution(typed, recipe.precision) if "cpu" in request.targets else CpuChoice()
    if request.gate_images is None:
        return JudgedRecipe(recipe, None, cpu)
    images = request.gate_images
    progress("gate", 0, 2)
    reference = masks.of(graph, request.graph_sha256, images)
    progress("gate", 1, 2)
    verdict = judge(Session(typed, execution=cpu.execution).probabilities(images.images), reference, request.gate)
    if not verdict.passed and cpu.execution == "f16":
        cpu = dataclasses.replace(cpu, execution="f32", note=in_f32(f"in f16 {verdict.failure()}"))
        verdict = judge(Session(typed).probabilities(images.images), reference, request.gate)
    progress("gate", 2, 2)
    if not verdict.passed:
        raise GateError(
            f"{verdict.failure()} on {len(verdict.dice)} images", fix="use a higher precision or a wider gate"
        )
    return JudgedRecipe(recipe, _gate_record(verdict, images, cpu.execution), cpu)


def _gate_record(verdict: GateVerdict, images: ImageSet, execution: str) -> dict[str, Any]:
    return {
        **verdict.record(),
        "data": images.record(),
        "reference": "FP32 graph on this CPU",
        "arithmetic": execution,  # in which the CPU computed the masks that were compared
    }


def _int8(
    graph: Graph,
    request: RecipeRequest,
    kept: dict[str, str],
    ranges: dict[str, Extremes],
    masks: Fp32Masks,
    checkpoint: Path | None,
    progress: OnProgress,
) -> tuple[PrecisionRecipe, dict[str, Any]]:
    if request.calibration is None or request.gate_images is None:
        raise UsageError("INT8 needs images to calibrate on and others to be judged on", fix="give --calib FOLDER")
    candidates = [name for name in quantisable(graph) if name not in kept]
    # The first convolution sees pixels, and eight bits there show in every mask. The last draws one channel: a CPU
    # gains from INT8 there, and the search may return it; a GPU gains nothing.
    first, last = _outer(graph)
    candidates = [name for name in candidates if name not in first]
    if all(name in last for name in candidates):
        raise GmsError("the graph has no convolution between the first and the last to quantise")
    nodes = {node.name: node for node in graph.nodes}
    skips = residual_skips(graph)
    watched = list(dict.fromkeys([*(nodes[n].input[0] for n in candidates), *skips.values()]))
    missing = [name for name in watched if name not in ranges]
    if missing:
        ranges = {**ranges, **_extremes(graph, missing, request, progress)}
    counts = histograms(graph, {n: ranges[n].magnitude for n in watched}, request.calibration.images, progress)
    images = request.gate_images.images
    reference = masks.of(graph, request.graph_sha256, request.gate_images)
    search = Search(
        graph, candidates, counts, images, reference, request.gate, WEIGHT_LEVELS, checkpoint, request.key, progress
    )
    methods = AUTO if request.calibrator == "auto" else (request.calibrator,)
    found = search.run(methods)
    chosen = set(found.nodes)
    clips = search.clips(found.calibrator)
    taken = [name for add, name in skips.items() if _feeds(graph, add, chosen)]
    recipe = PrecisionRecipe(
        "int8",
        request.graph_sha256,
        int8=found.nodes,
        kept=kept,
        ranges={**found.clips, **{name: clips[name] for name in taken}},
        skips=taken,
        calibrator=found.calibrator,
        calibration=request.calibration.record(),
        blocks=found.rows,
        cpu_only=[name for name in found.nodes if name in last],
    )
    return recipe, {**_gate_record(found.verdict, request.gate_images, "f32"), "evaluations": found.evaluations}


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


def _feeds(graph: Graph, add: str, chosen: set[str]) -> bool:
    """Whether a residual Add closes a block whose last convolution is INT8."""
    node = next(n for n in graph.nodes if n.name == add)
    makers = [graph.producer.get(name) for name in node.input]
    return any(maker is not None and maker.name in chosen for maker in makers)


def _extremes(
    graph: Graph, names: list[str], request: RecipeRequest, progress: OnProgress, means: Collection[str] = ()
) -> dict[str, Extremes]:
    if request.calibration is None:
        raise UsageError(
            f"{request.precision} needs calibration images to find out which layers must stay FP32",
            fix="give --calib FOLDER",
        )
    return extremes(graph, names, request.calibration.images, progress, means=means)
