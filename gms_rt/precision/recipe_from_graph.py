"""From a fused graph and images to a precision recipe that passes the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import __version__
from gms_rt.artifacts import sha256_json
from gms_rt.errors import GateError, GmsError, UsageError
from gms_rt.graph.graph import Graph
from gms_rt.graph.run import Session
from gms_rt.precision.equalise import equalise, exponents, links
from gms_rt.precision.floating import float_tensors, fp32_nodes, summed_tensors
from gms_rt.precision.fp32_masks import SHARED, Fp32Masks
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.images import ImageSet, check_disjoint
from gms_rt.precision.int8 import QUANTISABLE, int8_graph, quantisable, residual_skips
from gms_rt.precision.ranges import Extremes, Histogram, extremes, histograms
from gms_rt.precision.recipe import RECIPE_VERSION, WEIGHT_LEVELS, PrecisionRecipe
from gms_rt.precision.search import AUTO, Search, SearchResult
from gms_rt.progress import OnProgress, silent
from gms_rt.runtime.device import cpu_execution, package_version


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
    search_images: ImageSet | None = None  # INT8 is chosen by these; None: by the gate's
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
        if self.search_images is not None:
            value.append(self.search_images.sha256)
        if self.gate.coverage is not None:
            value += [self.gate.coverage, self.gate.floor]
        return sha256_json(value)


def recipe_from_graph(
    graph: Graph,
    request: RecipeRequest,
    checkpoint: Path | None,
    progress: OnProgress | None = None,
    masks: Fp32Masks = SHARED,
) -> tuple[PrecisionRecipe, dict[str, Any] | None]:
    """The recipe and what the gate said about it (None where there is nothing to compare).

    `checkpoint` is the file in which an interrupted search goes on; `masks` remembers FP32 masks between builds.
    """
    progress = progress or silent
    if request.calibration is not None and request.gate_images is not None:
        check_disjoint(request.calibration, request.gate_images)
    if request.gate_images is not None:
        request.gate.check_count(len(request.gate_images.images))
    if request.recorded is not None and request.gate.coverage is not None:
        raise UsageError(
            "a recorded recipe may have been chosen by the gate's images, which then promise nothing",
            where="--gate-coverage",
            fix="calibrate and search with --calib",
        )
    if request.recorded is not None:
        try:
            return request.recorded, _check_gate(graph, request.recorded, request, masks, progress)
        except GateError:
            # Another processor rounds otherwise: what held where it was recorded may miss here, so search again.
            if request.precision != "int8" or request.calibration is None:
                raise
            progress("the recorded recipe misses the gate, searching", 0, 1)
    if request.precision == "fp32":
        return PrecisionRecipe("fp32", request.graph_sha256), None
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
        return dataclasses.replace(recipe, channels=channels), verdict
    calibration = request.calibration.record() if request.calibration is not None else None
    recipe = PrecisionRecipe(request.precision, request.graph_sha256, kept=kept, calibration=calibration)
    return recipe, _check_gate(graph, recipe, request, masks, progress)


def _check_gate(
    graph: Graph, recipe: PrecisionRecipe, request: RecipeRequest, masks: Fp32Masks, progress: OnProgress
) -> dict[str, Any] | None:
    if request.gate_images is None or (recipe.precision == "bf16" and "cpu" not in request.targets):
        return None  # nothing to compare, or arithmetic that this CPU was not asked to have
    images = request.gate_images
    progress("gate", 0, 2)
    reference = masks.of(graph, request.graph_sha256, images)
    progress("gate", 1, 2)
    session = Session(recipe.apply(graph, "cpu"), execution=cpu_execution(recipe.precision))
    # A recorded recipe may have been chosen by these very images.
    unseen = request.recorded is None
    verdict = judge(session.probabilities(images.images), reference, request.gate, unseen=unseen)
    progress("gate", 2, 2)
    if not verdict.passed:
        raise GateError(
            f"{verdict.failure()} on {len(verdict.dice)} images", fix="use a higher precision or a wider gate"
        )
    return _gate_record(verdict, images)


def _gate_record(verdict: GateVerdict, images: ImageSet) -> dict[str, Any]:
    return {**verdict.record(), "data": images.record(), "reference": "FP32 graph on this CPU"}


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
    found, clips, verdict = _search(graph, candidates, counts, request, masks, checkpoint, progress)
    chosen = set(found.nodes)
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
    return recipe, verdict


def _search(
    graph: Graph,
    candidates: list[str],
    counts: dict[str, Histogram],
    request: RecipeRequest,
    masks: Fp32Masks,
    checkpoint: Path | None,
    progress: OnProgress,
) -> tuple[SearchResult, dict[str, float], dict[str, Any]]:
    """The choice, the clipping magnitudes of its calibrator, and the gate's record.

    With images of its own the search aims higher than the gate, which then judges once. If that misses, the search goes
    on with all images and the gate as it is, unless the gate asks for a promise: images that choose promise nothing.
    """
    assert request.gate_images is not None
    methods = AUTO if request.calibrator == "auto" else (request.calibrator,)
    judges = request.gate_images

    def search(images: ImageSet, gate: Gate) -> tuple[Search, SearchResult]:
        reference = masks.of(graph, request.graph_sha256, images)
        key = sha256_json([request.key, images.sha256])
        place = None if checkpoint is None else checkpoint.with_suffix(f".{key[:8]}.json")
        found = Search(
            graph, candidates, counts, images.images, reference, gate, WEIGHT_LEVELS, place, key, progress
        )  # fmt: skip
        return found, found.run(methods)

    spent = 0
    if request.search_images is not None:
        aimed, found = _aimed(search, request)
        progress("gate", 0, 1)
        typed = int8_graph(graph, found.nodes, aimed.clips(found.calibrator), "cpu", levels=WEIGHT_LEVELS, skips=())
        probabilities = Session(typed).probabilities(judges.images)
        verdict = judge(probabilities, masks.of(graph, request.graph_sha256, judges), request.gate)
        progress("gate", 1, 1)
        spent = found.evaluations
        if verdict.passed or request.gate.coverage is not None:
            if not verdict.passed:
                raise GateError(
                    f"{verdict.failure()} on {len(verdict.dice)} images that the search had not seen",
                    fix="use --precision fp16, a lower --gate-floor, or more images with --calib",
                )
            record = _gate_record(verdict, judges)
            record |= {"evaluations": spent, "search": request.search_images.record()}
            return found, aimed.clips(found.calibrator), record
        progress("the gate is missed on new images, searching with all", 0, 1)
        both = np.concatenate([request.search_images.images, judges.images])
        judges = ImageSet(both, f"{judges.source} and {request.search_images.source}")
    all_images, found = search(judges, request.gate)
    verdict = dataclasses.replace(found.verdict, unseen=found.plain and not spent)
    record = {**_gate_record(verdict, judges), "evaluations": found.evaluations + spent}
    return found, all_images.clips(found.calibrator), record


def _aimed(
    search: Callable[[ImageSet, Gate], tuple[Search, SearchResult]], request: RecipeRequest
) -> tuple[Search, SearchResult]:
    """The search on its own images, with the stricter gate where that can be reached, else with the gate as it is."""
    assert request.search_images is not None
    plain = Gate(request.gate.mean, request.gate.tail)
    try:
        return search(request.search_images, request.gate.stricter)
    except GateError:
        return search(request.search_images, plain)


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
