"""An engine folder in the making: graph, plans, reference, recipe, and last `engine.json`, which tells of them all."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import __version__
from gms_rt.artifacts import sha256_bytes, sha256_file
from gms_rt.class_lists import values_from_classes
from gms_rt.engine import openvino, tensorrt, timing_cache
from gms_rt.engine.golden import Golden, write_golden_file
from gms_rt.engine.manifest import GOLDEN, MANIFEST, MODEL, STEERED, EngineManifest, Plan, write_manifest
from gms_rt.engine.plan_speed import plan_milliseconds
from gms_rt.engine.source import SourceGraph
from gms_rt.engine.trust import remember_plan
from gms_rt.errors import GmsError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import computing_layers, layer_counts
from gms_rt.graph.openvino_ir import write_ir
from gms_rt.graph.run import Session
from gms_rt.graph.write import write_graph
from gms_rt.precision.cpu_choice import CpuChoice, latencies
from gms_rt.precision.images import ImageSet
from gms_rt.precision.plan_gate import remainder_recipe
from gms_rt.precision.recipe import PrecisionRecipe, write_recipe
from gms_rt.precision.returned import cpu_form
from gms_rt.progress import OnProgress
from gms_rt.runtime.device import probe

ONE_CLASS = "the graph draws one mask"


def class_notes(source: SourceGraph) -> list[str]:
    """What to know of a list of several classes: a segment that stays empty looks like one that was searched for."""
    if len(source.classes) < 2:
        return []
    others = ", ".join(entry.name for entry in source.classes[1:])
    return [f"{ONE_CLASS}: only '{source.classes[0].name}' can be found; results list {others}, which stay empty"]


@dataclass
class UnfinishedEngine:
    """What goes into the folder; `write_graph`, `write_plan`, `keep_plans` and `write_reference` put it there."""

    folder: Path  # written to; renamed to `out` when all is there
    out: Path  # where the engine will stand, and where an older one may stand now
    source: SourceGraph
    recipe: PrecisionRecipe
    targets: tuple[str, ...]
    cpu: CpuChoice  # the arithmetic of the CPU, if it is a target
    gate_images: ImageSet | None  # one of them times INT8 against FP32
    plan_gate: dict[str, Any] | None = None  # what the gate said of the plans' graph; None where it was not judged
    plans: list[Plan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a user should know
    counts: dict[str, Any] = field(default_factory=dict)  # layers by type: of the graph, of the CPU, of each plan
    model: str = MODEL  # what a CPU opens
    _typed: dict[str, Graph] = field(default_factory=dict)

    def write_graph(self) -> None:
        """Write the typed graph, and count what this CPU executes of it."""
        target = "cpu" if "cpu" in self.targets else self.targets[0]
        typed = written = self._typed_graph(target)
        if self.source.any_batch and target == "cpu":
            opened = typed.with_open_batch()
            if openvino.batch_stays_open(typed, opened):
                written = opened
            else:
                self.notes.append("the graph's range of batches was lost: a shape in it is fixed at one image")
        write_graph(written, self.folder / MODEL)
        self.counts["graph"] = layer_counts(typed)
        if "cpu" in self.targets:
            quantised = len(self.recipe.int8_nodes("cpu"))
            self.counts["cpu"] = openvino.inspect_execution(typed, self.cpu, quantised, self.recipe)
            form = cpu_form(self.recipe, written)
            if form is not None:
                write_ir(form, self.folder / STEERED)
                self.model = STEERED
            self._note_execution()
            if self.recipe.precision == "int8" and self.gate_images is not None:
                self._time_int8(typed, self.gate_images)

    def write_plan(self, flavour: str, sm: int, progress: OnProgress) -> None:
        """Build a plan, check that it is of the precision asked for, and write it."""
        typed = self._typed_graph(flavour)
        earlier = timing_cache.timing_cache_from_engine(self.out, tensorrt.timed_on(probe(), sm))
        built = tensorrt.build_plan(typed, flavour, sm, earlier=earlier, progress=progress)
        quantised = len(self.recipe.int8_nodes(flavour))
        tensorrt.check_network(built, self.recipe.precision, self.recipe.remainder(flavour), quantised)
        plan = Plan(
            target=flavour,
            file=tensorrt.plan_name(flavour, built.version, sm),
            sha256=sha256_bytes(built.data),
            bytes=len(built.data),
            sm=sm,
            version=built.version,
            build_seconds=round(built.seconds, 2),
            driver=built.driver,
            device=built.device,
            judged=self.plan_gate,
        )
        (self.folder / plan.file).write_bytes(built.data)
        problem = remember_plan(self.out, plan.sha256)
        if problem:
            self.notes.append(
                f"{plan.file} runs with --trust-plans only: that it was built here cannot be kept ({problem})"
            )
        if built.cache:
            (self.folder / timing_cache.TIMING_CACHE).write_bytes(built.cache)
        self.plans.append(plan)
        self.counts[plan.file] = {
            "graph": layer_counts(typed),
            "network": built.network,
            **({} if built.inspected is None else {"engine": built.inspected}),
            **({"warnings": built.warnings[:5]} if built.warnings else {}),
        }
        if self.recipe.precision == "int8":
            self._time_int8_plan(plan, built.data, progress)

    def keep_plans(self, older: EngineManifest) -> None:
        """Take over plans for other devices that an earlier build made from the same recipe."""
        here = {plan.file for plan in self.plans}
        for plan in older.plans:
            if plan.file not in here and (self.out / plan.file).is_file():
                shutil.copyfile(self.out / plan.file, self.folder / plan.file)
                self.plans.append(plan)
                if plan.file in older.census:
                    self.counts[plan.file] = older.census[plan.file]

    def write_reference(self, reference: Golden | None) -> None:
        """Take along what the certificate is about: the reference that the exporter left, or the part that is left."""
        place = self.source.reference
        if reference is None:
            why = "its pictures gave ranges or gate" if place.is_file() else f"there is no {place.name} next to it"
            self.notes.append(f"the graph came without a PyTorch reference for parity: {why}")
        elif reference.sha256:
            shutil.copyfile(place, self.folder / GOLDEN)
        else:
            write_golden_file(self.folder / GOLDEN, reference)

    def finish(self, recipe_key: str, gate: dict[str, Any] | None, rebuild: str) -> EngineManifest:
        """Write the recipe and the manifest; `gate` is what the accuracy check found, if there was one."""
        write_recipe(self.folder, self.recipe)
        plans = {plan.file for plan in self.plans}
        files = {
            path.name: sha256_file(path)
            for path in sorted(self.folder.iterdir())
            if path.name not in plans and path.name != MANIFEST
        }
        source, exported = self.source, self.source.graph.metadata()
        batch, height, width = source.graph.size
        manifest = EngineManifest(
            name=self.out.name,
            precision=self.recipe.precision,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            gms_rt=__version__,
            height=height,
            width=width,
            batch=batch,
            model=self.model,
            files=files,
            source={
                "name": exported.get("gms_rt.name", source.path.name),
                **source.about,
                "graph": source.path.name,
                "sha256": source.sha256,
                "recipe_key": recipe_key,
                "graph_source": _object_from_json(exported.get("gms_rt.source")),
            },
            tokenizer=_object_from_json(exported.get("gms_rt.tokenizer")),
            targets=sorted({*self.targets, *(plan.target for plan in self.plans)}),
            plans=self.plans,
            census=self.counts,
            gate=gate,
            execution=self.cpu.execution,
            fallback=self.cpu.fallback,
            rebuild=rebuild,
            notes=[*self.notes, *class_notes(source)],
            classes=values_from_classes(source.classes),
        )
        write_manifest(self.folder, manifest)
        return manifest

    def _typed_graph(self, target: str) -> Graph:
        """The typed graph for a target; the TensorRT flavours share one."""
        kind = "cpu" if target == "cpu" else "tensorrt"
        if kind not in self._typed:
            self._typed[kind] = self.recipe.apply(self.source.graph, target)
        return self._typed[kind]

    def _note_execution(self) -> None:
        self.notes += [self.cpu.note] if self.cpu.note else []
        if self.cpu.execution == "f16":
            computing = computing_layers(self.counts["cpu"]["layers"])
            every = sum(computing.values())
            if computing["f16"] < every:
                self.notes.append(f"the CPU computes {computing['f16']} of {every} convolutions and products in f16")
        ran = self.counts["cpu"].get("int8_layers")
        if ran is not None and ran < len(self.recipe.int8):
            self.notes.append(f"the CPU runs {ran} of {len(self.recipe.int8)} quantised convolutions in int8")

    def _time_int8(self, typed: Graph, images: ImageSet) -> None:
        batch = np.repeat(images.images[:1], self.source.graph.size[0], axis=0)
        session = Session(typed, execution=self.cpu.execution, form=cpu_form(self.recipe, typed))
        full, quick = latencies(Session(self.source.graph), session, batch)
        self.counts["cpu"].setdefault("milliseconds", {}).update(fp32=round(full, 3), int8=round(quick, 3))
        if quick >= full:
            self.notes.append(f"INT8 is not faster here: {quick:.1f} ms against {full:.1f} ms FP32")

    def _time_int8_plan(self, plan: Plan, data: bytes, progress: OnProgress) -> None:
        """Where the plan's GPU is here: build the graph in FP16 too, time both, and tell if INT8 gains nothing."""
        gpu = tensorrt.gpu_of_sm(probe(), plan.sm)
        if gpu is None:
            return
        progress(f"{plan.target} SM{plan.sm}: compare with FP16", 0, 1)
        half = remainder_recipe(self.recipe)
        images = np.zeros((*self.source.graph.size, 3), np.uint8)
        try:
            other = tensorrt.build_plan(half.apply(self.source.graph, plan.target), plan.target, plan.sm)
            where = self.folder / plan.file
            quick, full = plan_milliseconds((data, other.data), where, plan.target, images, gpu)
        except GmsError as error:
            self.notes.append(f"{plan.file}: whether INT8 is faster than FP16 is not known: {error.what}")
            return
        self.counts[plan.file]["milliseconds"] = {"fp16": round(full, 3), "int8": round(quick, 3)}
        if quick >= full:
            self.notes.append(
                f"INT8 is not faster than FP16 on {gpu.name}: {quick:.2f} ms against {full:.2f} ms;"
                " --precision fp16 is closer to the reference"
            )


def _object_from_json(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
