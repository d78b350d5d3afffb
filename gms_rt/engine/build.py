"""`build_engine`: a request in, an engine folder out.

    request.py    what is asked for, and the command that asks for it again
    source.py     the bundled model, a run or a graph → a fused graph
    targets.py    which devices it is for
    images.py     what it is calibrated and judged on
    precision/    the recipe: which node has which precision
    folder.py     graph, plans, reference, manifest; openvino.py and tensorrt.py are its builders

The folder is written whole or not at all. What is already there and the same is kept; plans that an earlier build made
from the same recipe for other devices stay.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from gms_rt.artifacts import atomic_folder, check_writable, sha256_file
from gms_rt.class_lists import values_from_classes
from gms_rt.engine.existing import existing_engine, has_recipe, has_reference, is_complete
from gms_rt.engine.folder import ONE_CLASS, UnfinishedEngine, class_notes
from gms_rt.engine.images import build_images
from gms_rt.engine.manifest import CERTIFICATE, EngineManifest, write_manifest
from gms_rt.engine.request import AUTO_CALIBRATOR, BuildRequest
from gms_rt.engine.signature import SIGNATURE
from gms_rt.engine.source import SourceGraph, read_source
from gms_rt.engine.targets import check_cpu, default_targets, wanted_plans
from gms_rt.errors import UsageError
from gms_rt.precision import TARGETS
from gms_rt.precision.gate import Gate
from gms_rt.precision.images import ImageSet
from gms_rt.precision.learned import has_learned_ranges, recipe_from_learned_ranges
from gms_rt.precision.recipe import RECIPE_FILE, PrecisionRecipe, read_recipe
from gms_rt.precision.recipe_from_graph import recipe_from_graph
from gms_rt.precision.recipe_request import RecipeRequest
from gms_rt.progress import OnProgress, silent


@dataclass(frozen=True)
class BuiltEngine:
    """An engine folder and its manifest; `unchanged` where the same engine was there already."""

    folder: Path
    manifest: EngineManifest
    unchanged: bool
    source: SourceGraph | None = None  # what it was built from
    gate: Gate = field(default_factory=Gate)  # what was asked of it
    gate_images: ImageSet | None = None  # masks were compared on these; None where there were none


def build_engine(request: BuildRequest, progress: OnProgress = silent) -> BuiltEngine:
    """Build the engine folder that a request describes."""
    out = request.folder
    check_writable(out)
    older = existing_engine(out)
    asked = request.targets or default_targets(request.precision)
    targets = tuple(target for target in TARGETS if target in asked)
    plans = wanted_plans(targets, request.sms)
    if "cpu" in targets:
        check_cpu(request.precision)  # refuse before the long part
    source = read_source(request, progress)
    images = build_images(request, source)
    recorded = _given_recipe(request, source)
    wanted = RecipeRequest(
        precision=request.precision,
        targets=targets,
        calibration=images.calibration,
        search_images=images.search,
        gate_images=images.gate,
        gate=request.gate,
        calibrator=request.calibrator,
        graph_sha256=source.sha256,
        batch=source.graph.size[0],
        recorded=recorded,
        # The bundled recipe was found on phantoms of its own; a user's or a student's may be of any images.
        recorded_apart=recorded is not None and source.bundled and not request.recipe and not request.gate_images,
    )
    if older is not None and (request.force or not has_recipe(older, wanted.key)):
        older = None  # built again from nothing
    if older is not None and is_complete(older, out, targets, plans) and has_reference(older, out, images.reference):
        same = older.classes == values_from_classes(source.classes)
        manifest = older if same else _rename_classes(out, older, request, source)
        return BuiltEngine(out, manifest, same, source, request.gate, images.gate)
    if older is not None and "cpu" in older.targets:
        targets = tuple(target for target in TARGETS if target in ("cpu", *targets))
    wanted = dataclasses.replace(wanted, targets=targets)
    checkpoint = out.parent / f".search-{wanted.key[:16]}.json"  # each search of a build adds a word to the name
    judged = recipe_from_graph(source.graph, wanted, checkpoint, progress)
    with atomic_folder(out) as folder:
        engine = UnfinishedEngine(folder, out, source, judged.recipe, targets, judged.cpu, images.gate)
        engine.notes += [images.note] if images.note else []
        progress("write graph", 0, 1)
        engine.write_graph()
        for flavour, sm in plans:
            engine.write_plan(flavour, sm, progress)
        if older is not None:
            engine.keep_plans(older)
        engine.write_reference(images.reference)
        manifest = engine.finish(wanted.key, judged.gate, request.command)
    for finished in out.parent.glob(f"{checkpoint.stem}*.json"):
        finished.unlink(missing_ok=True)
    return BuiltEngine(out, manifest, False, source, request.gate, images.gate)


def _rename_classes(out: Path, older: EngineManifest, request: BuildRequest, source: SourceGraph) -> EngineManifest:
    """The same engine with other names for its classes: only the manifest is written anew."""
    classes = values_from_classes(source.classes)
    notes = [note for note in older.notes if not note.startswith(ONE_CLASS)] + class_notes(source)
    manifest = dataclasses.replace(older, classes=classes, rebuild=request.command, notes=notes)
    for name in (CERTIFICATE, SIGNATURE):  # both are for the manifest as it was
        (out / name).unlink(missing_ok=True)
    write_manifest(out, manifest)
    return manifest


def _given_recipe(request: BuildRequest, source: SourceGraph) -> PrecisionRecipe | None:
    """The recipe to apply instead of searching: the one given, the bundled model's, or the one a student learned."""
    if request.recipe is None:
        own = request.calibration is None and request.calibrator == AUTO_CALIBRATOR and request.gate.coverage is None
        if request.precision != "int8" or not own:
            return None
        if has_learned_ranges(source.graph):
            return recipe_from_learned_ranges(source.graph, source.sha256)
        return recorded_recipe(source.path) if source.bundled else None
    recipe = request.recipe if isinstance(request.recipe, PrecisionRecipe) else read_recipe(request.recipe)
    if recipe.precision != request.precision:
        raise UsageError(
            f"is for {recipe.precision}, not {request.precision}", where="--recipe", fix="change --precision"
        )
    if recipe.graph_sha256 != source.sha256:
        raise UsageError(
            f"was made for another graph than {source.path}", where="--recipe", fix="calibrate with --calib"
        )
    return recipe


def recorded_recipe(graph: Path) -> PrecisionRecipe | None:
    """The INT8 recipe that stands next to a graph, if it is for this very graph."""
    if not (graph.parent / RECIPE_FILE).is_file():
        return None
    recipe = read_recipe(graph.parent)
    return recipe if recipe.graph_sha256 == sha256_file(graph) else None
