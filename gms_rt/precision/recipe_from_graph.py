"""From a fused graph and images to a precision recipe that passes the gate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gms_rt.arrays import U8
from gms_rt.errors import GateError, UsageError
from gms_rt.graph.graph import Graph
from gms_rt.graph.run import Session
from gms_rt.precision.cpu_choice import NEEDED_GAIN, CpuChoice, choose_execution, in_f32, latencies
from gms_rt.precision.equalise import equalise, exponents, links
from gms_rt.precision.floating import float_tensors, fp32_nodes, summed_tensors
from gms_rt.precision.fp32_masks import SHARED, Fp32Masks
from gms_rt.precision.gate import GateVerdict, judge
from gms_rt.precision.images import check_disjoint
from gms_rt.precision.int8 import quantisable
from gms_rt.precision.int8_recipe import Ranges, int8_recipe, with_fallback
from gms_rt.precision.plan_gate import PlanTools, with_judged_plans
from gms_rt.precision.ranges import Extremes
from gms_rt.precision.recipe import PrecisionRecipe
from gms_rt.precision.recipe_request import JudgedRecipe, RecipeRequest, gate_record, watched_extremes
from gms_rt.precision.returned import BlockReturn, cpu_form
from gms_rt.progress import OnProgress, silent


def recipe_from_graph(
    graph: Graph,
    request: RecipeRequest,
    checkpoint: Path | None,
    progress: OnProgress | None = None,
    masks: Fp32Masks = SHARED,
) -> JudgedRecipe:
    """The recipe, what the gate said about it, and the arithmetic in which this CPU runs it.

    For GPU targets their plans' graph is judged too, by emulation. `checkpoint` is the file in which an interrupted
    search goes on; `masks` remembers FP32 masks between builds.
    """
    progress = progress or silent
    _check_images(request)
    judged = _recipe_for_cpu(graph, request, checkpoint, progress, masks)
    return with_judged_plans(graph, judged, request, PlanTools(masks, checkpoint, progress))


def _recipe_for_cpu(
    graph: Graph, request: RecipeRequest, checkpoint: Path | None, progress: OnProgress, masks: Fp32Masks
) -> JudgedRecipe:
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
        ranges = watched_extremes(graph, names, request, progress, summed)
        kept = fp32_nodes(graph, ranges)
    if request.precision == "bf16":
        kept = {n.name: "TensorRT-RTX has no BF16 deconvolution" for n in graph.nodes if n.op_type == "ConvTranspose"}
    if request.precision == "int8":
        judged = int8_recipe(graph, request, Ranges(kept, ranges), masks, checkpoint, progress)
        channels = {name: " ".join(map(str, values)) for name, values in steps.items()}
        return dataclasses.replace(judged, recipe=dataclasses.replace(judged.recipe, channels=channels))
    calibration = request.calibration.record() if request.calibration is not None else None
    recipe = PrecisionRecipe(request.precision, request.graph_sha256, kept=kept, calibration=calibration)
    return _judge_recipe(graph, recipe, request, masks, progress)


def _check_images(request: RecipeRequest) -> None:
    """Refuse a gate that judges on images with another part in the build, or a promise that nobody can give."""
    if request.gate_images is not None:
        for others, use in ((request.calibration, "calibration"), (request.search_images, "search")):
            if others is not None:
                check_disjoint(others, request.gate_images, use)
        request.gate.check_count(len(request.gate_images.images))
    if request.gate.coverage is None:
        return
    where, fix = "--gate-coverage", "calibrate and search with --calib"
    if request.gate_images is None or request.precision == "fp32":
        why = f"this {request.precision} build compares no masks, so nothing can be promised"
        raise UsageError(why, where=where, fix="leave it out, or give images with --gate-data")
    if request.recorded is not None:
        why = "a recorded recipe may have been chosen by the gate's images, which then promise nothing"
        raise UsageError(why, where=where, fix=fix)
    if request.precision == "int8" and request.search_images is None:
        raise UsageError("INT8 would be chosen by the gate's images, which then promise nothing", where=where, fix=fix)


def _judge_recipe(
    graph: Graph, recipe: PrecisionRecipe, request: RecipeRequest, masks: Fp32Masks, progress: OnProgress
) -> JudgedRecipe:
    """Choose the CPU's arithmetic, and compare its masks in that very arithmetic; nothing where it is no target."""
    if "cpu" not in request.targets:
        return JudgedRecipe(recipe)
    typed = recipe.apply(graph, "cpu")
    progress("arithmetic of this CPU", 0, 1)
    cpu = choose_execution(typed, recipe.precision)
    if request.gate_images is None:
        return JudgedRecipe(recipe, None, cpu)
    images = request.gate_images
    progress("gate", 0, 2)
    reference = masks.of(graph, request.graph_sha256, images)
    progress("gate", 1, 2)

    form = cpu_form(recipe, typed)  # of a recorded recipe whose search returned blocks

    def masks_in(execution: str) -> U8:
        return Session(typed, execution=execution, form=form).probabilities(images.images)

    # A recorded recipe may have been chosen by these very images.
    unseen, gate = request.recorded is None or request.recorded_apart, request.gate
    may_change = cpu.execution != "f32" and recipe.precision != "bf16"
    looks = gate.looks(len(images.images)) if may_change else 1
    verdict = judge(masks_in(cpu.execution), reference, gate, unseen=unseen, looks=looks)
    if not verdict.passed and cpu.execution in ("bf16", "f16") and recipe.precision in ("bf16", "fp16"):
        found = _with_returned(graph, recipe, request, cpu, verdict, reference, progress)
        if found is not None:
            return found
    if not verdict.passed and may_change and (gate.coverage is None or looks > 1):
        note = in_f32(recipe.precision, f"in {cpu.execution} {verdict.failure()}")
        cpu = CpuChoice("f32", note, milliseconds=cpu.milliseconds)
        # Chosen by these images; they promise something only where the first verdict left room for a second.
        verdict = judge(masks_in("f32"), reference, gate, unseen=unseen and looks > 1, looks=looks)
    progress("gate", 2, 2)
    if not verdict.passed:
        raise GateError(
            f"{verdict.failure()} on {len(verdict.dice)} images", fix="use a higher precision or a wider gate"
        )
    record = gate_record(verdict, images, cpu.execution)
    if recipe.precision == "int8" and cpu.execution == "bf16":
        return with_fallback(JudgedRecipe(recipe, record, cpu), judge(masks_in("f32"), reference, request.gate))
    return JudgedRecipe(recipe, record, cpu)


def _with_returned(
    graph: Graph, recipe: PrecisionRecipe, request: RecipeRequest, cpu: CpuChoice, verdict: GateVerdict, reference: U8,
    progress: OnProgress,
) -> JudgedRecipe | None:  # fmt: skip
    """The recipe with blocks in f32, chosen by the gate's images; None for FP16, which f32 can take the place of."""
    assert request.gate_images is not None
    if request.recorded is not None or request.gate.coverage is not None:
        return None  # nothing is chosen by images here, or what they chose promises nothing
    images = request.gate_images
    progress(f"the gate is missed in {cpu.execution}, returning blocks", 0, 1)
    search = BlockReturn(graph, recipe, cpu.execution, images.images, reference, request.gate, progress)
    try:
        chosen, found = search.run(verdict)
    except GateError:
        if recipe.precision == "fp16":
            return None
        raise
    typed = chosen.apply(graph, "cpu")
    mixed = Session(typed, execution=cpu.execution, form=cpu_form(chosen, typed))
    full_ms, mixed_ms = latencies(Session(graph), mixed, images.images[:1].repeat(graph.size[0], 0))
    if recipe.precision == "fp16" and mixed_ms * NEEDED_GAIN > full_ms:
        return None
    note = (
        f"all in {cpu.execution} {verdict.failure()}; so {len(chosen.returned)} convolutions and products stay in f32: "
        f"{mixed_ms:.1f} ms, FP32 {full_ms:.1f} ms"
    )
    times = cpu.milliseconds | {"f32": round(full_ms, 3), cpu.execution: round(mixed_ms, 3)}
    cpu = CpuChoice(cpu.execution, note, milliseconds=times)
    return JudgedRecipe(chosen, gate_record(found, images, cpu.execution), cpu)
