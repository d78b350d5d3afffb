"""`engine_from_graph`: a fused graph in, an engine folder out.

The folder is written whole or not at all, `engine.json` last. What is already there and identical is kept; plans that
an earlier build made from the same typed graph for other devices stay.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt import __version__
from gms_rt.artifacts import atomic_folder, check_writable, sha256_bytes, sha256_file
from gms_rt.engine import openvino, tensorrt, timing_cache
from gms_rt.engine.manifest import (
    GOLDEN,
    MANIFEST,
    EngineManifest,
    Plan,
    is_engine,
    read_manifest,
    verify_files,
    write_manifest,
)
from gms_rt.errors import GmsError, UsageError
from gms_rt.graph.graph import Graph, read_graph, takes_any_batch, write_graph
from gms_rt.graph.layer_counts import census
from gms_rt.precision import PRECISIONS, TARGETS
from gms_rt.precision.gate import Gate
from gms_rt.precision.images import ImageSet
from gms_rt.precision.ranges import Progress
from gms_rt.precision.recipe import Recipe, write_recipe
from gms_rt.precision.recipe_from_graph import Request, recipe_from_graph
from gms_rt.runtime.binding import check_graph
from gms_rt.runtime.device import cpu_execution
from gms_rt.runtime.tensorrt_module import load_tensorrt

MODEL = "model.onnx"
UNCHANGED = "unchanged"  # the phase that tells a caller that nothing had to be built


def engine_from_graph(
    graph: Path,
    out: Path,
    *,
    precision: str,
    targets: Sequence[str],
    sms: Sequence[int] = (),
    calibration: ImageSet | None = None,
    gate_images: ImageSet | None = None,
    gate: Gate | None = None,
    calibrator: str = "auto",
    recipe: Recipe | None = None,
    batch: int | None = None,
    source: dict[str, Any] | None = None,
    rebuild: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> EngineManifest:
    """Build an engine folder for some targets; returns its manifest.

    `calibration` gives the ranges (fp16 and int8 need it), `gate_images` are the ones that masks are compared on.
    A `recipe` of an earlier build is applied and judged instead of calibrating and searching.
    """
    wanted = _checked(precision, targets)
    check_writable(out)
    if graph.is_file():
        check_graph(graph, trial="never")  # before onnx and OpenVINO read it in this process
    fused = read_graph(graph, batch=batch)
    check_graph(graph)
    request = Request(
        precision,
        wanted,
        calibration,
        gate_images,
        gate or Gate(),
        calibrator,
        sha256_file(graph),
        fused.size[0],
        _fitting(recipe, precision, graph) if recipe is not None else None,
    )
    plans = _wanted_plans(wanted, tuple(sms))
    if "cpu" in wanted:
        cpu_execution(precision)  # refuse before the long part
    older = _older(out)
    if older is not None and not force and _holds(older, out, request, plans):
        if progress:
            progress(UNCHANGED, 1, 1)
        return older
    grows = older is not None and older.source.get("recipe_key") == request.key and not force
    if older is not None and grows and "cpu" in older.targets:
        wanted = tuple(target for target in TARGETS if target in ("cpu", *wanted))
    checkpoint = out.parent / f".search-{request.key[:16]}.json"
    chosen, verdict = recipe_from_graph(fused, request, checkpoint, progress)
    source = {**(source or {}), "graph": graph.name, "sha256": request.graph_sha256, "recipe_key": request.key}
    made = _Made(out, fused, chosen, request, wanted, batch is None and takes_any_batch(graph))
    with atomic_folder(out) as folder:
        made.cpu_graph(folder, progress)
        for flavour, sm in plans:
            made.plan(folder, flavour, sm, progress)
        if older is not None and grows:
            made.keep_plans(folder, older)
        made.golden(folder, graph)
        write_recipe(folder, chosen)
        manifest = made.manifest(folder, source, verdict, rebuild or default_rebuild(graph, out, request, made.plans))
        write_manifest(folder, manifest)
    checkpoint.unlink(missing_ok=True)
    return manifest


def default_rebuild(graph: Path, out: Path, request: Request, plans: Sequence[Plan]) -> str:
    """The command that builds the same engine again."""
    sms = sorted({plan.sm for plan in plans})
    targets = ",".join(request.targets)
    extra = f" --sm {','.join(map(str, sms))}" if sms else ""
    return f"gms-rt build {graph} --precision {request.precision} --target {targets}{extra} --out {out}"


@dataclass
class _Made:
    """The folder in the making."""

    out: Path
    graph: Graph
    recipe: Recipe
    request: Request
    targets: tuple[str, ...]
    open_batch: bool = False  # the exported graph takes any number of images

    def __post_init__(self) -> None:
        self.plans: list[Plan] = []
        self.notes: list[str] = []
        self.census: dict[str, Any] = {}
        self._typed: dict[str, Graph] = {}

    def typed(self, target: str) -> Graph:
        """The typed graph for a target; the TensorRT flavours share one."""
        kind = "cpu" if target == "cpu" else "tensorrt"
        if kind not in self._typed:
            self._typed[kind] = self.recipe.apply(self.graph, target)
        return self._typed[kind]

    def cpu_graph(self, folder: Path, progress: Progress | None) -> None:
        target = "cpu" if "cpu" in self.targets else self.targets[0]
        typed = self.typed(target)
        if progress:
            progress("write graph", 0, 1)
        written = typed
        if self.open_batch and target == "cpu":
            opened = typed.opened()
            if openvino.batch_stays_open(typed, opened):
                written = opened
            else:
                self.notes.append("the graph's range of batches was lost: a shape in it is fixed at one image")
        write_graph(written, folder / MODEL)
        self.census["graph"] = census(typed)
        if "cpu" in self.targets:
            quantised = len(self.recipe.quantised("cpu"))
            self.census["cpu"] = openvino.inspect_execution(typed, self.recipe.precision, quantised)
            self._cpu_notes()
            if self.recipe.precision == "int8" and self.request.gate_images is not None:
                self._cpu_speed(typed)

    def plan(self, folder: Path, flavour: str, sm: int, progress: Progress | None) -> None:
        typed = self.typed(flavour)
        built = tensorrt.build_plan(typed, flavour, sm, folder=self.out, progress=progress)
        quantised = len(self.recipe.quantised(flavour))
        tensorrt.check_network(built, self.recipe.precision, self.recipe.remainder(flavour), quantised)
        name = tensorrt.plan_name(flavour, built.version, sm)
        (folder / name).write_bytes(built.data)
        self.plans.append(
            Plan(
                flavour,
                name,
                sha256_bytes(built.data),
                len(built.data),
                sm,
                built.version,
                round(built.seconds, 2),
                built.driver,
            )
        )
        if built.cache:
            (folder / timing_cache.FILE).write_bytes(built.cache)
        about: dict[str, Any] = {"graph": census(typed), "network": built.network}
        if built.inspected is not None:
            about["engine"] = built.inspected
        if built.warnings:
            about["warnings"] = built.warnings[:5]
        self.census[name] = about

    def keep_plans(self, folder: Path, older: EngineManifest) -> None:
        """Take over plans for other devices that an earlier build made from the same recipe."""
        here = {plan.file for plan in self.plans}
        for plan in older.plans:
            if plan.file not in here and (self.out / plan.file).is_file():
                shutil.copyfile(self.out / plan.file, folder / plan.file)
                self.plans.append(plan)
                if plan.file in older.census:
                    self.census[plan.file] = older.census[plan.file]

    def golden(self, folder: Path, graph: Path) -> None:
        """Take the reference along that the exporter left beside the graph."""
        beside = graph.with_suffix(".golden.npz")
        if beside.is_file():
            shutil.copyfile(beside, folder / GOLDEN)
        else:
            self.notes.append(f"no {beside.name} beside the graph: parity has no PyTorch reference")

    def manifest(
        self, folder: Path, source: dict[str, Any], verdict: dict[str, Any] | None, rebuild: str
    ) -> EngineManifest:
        about = self.graph.metadata()
        plans = {plan.file for plan in self.plans}
        files = {
            path.name: sha256_file(path)
            for path in sorted(folder.iterdir())
            if path.name not in plans and path.name not in (MANIFEST, timing_cache.FILE)
        }
        batch, height, width = self.graph.size
        return EngineManifest(
            name=self.out.name,
            precision=self.recipe.precision,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            gms_rt=__version__,
            height=height,
            width=width,
            batch=batch,
            model=MODEL,
            files=files,
            source={"name": about.get("gms_rt.name", source["graph"]), **source, "graph_source": _json(about)},
            tokenizer=_loads(about.get("gms_rt.tokenizer")),
            targets=sorted(set(self.targets) | {plan.target for plan in self.plans}),
            plans=self.plans,
            census=self.census,
            gate=verdict,
            execution=cpu_execution(self.recipe.precision) if "cpu" in self.targets else "f32",
            rebuild=rebuild,
            notes=self.notes,
        )

    def _cpu_notes(self) -> None:
        types = self.census["cpu"]["layers"].get("Convolution", {})
        if self.recipe.precision == "fp16" and set(types) == {"f32"}:
            self.notes.append("this CPU has no FP16 arithmetic: it runs the FP16 graph in f32 (weights stored FP16)")
        ran = self.census["cpu"].get("int8_layers")
        if ran is not None and ran < len(self.recipe.int8):
            self.notes.append(f"the CPU runs {ran} of {len(self.recipe.int8)} quantised convolutions in int8")

    def _cpu_speed(self, typed: Graph) -> None:
        assert self.request.gate_images is not None
        import numpy as np

        batch = np.repeat(self.request.gate_images.images[:1], self.graph.size[0], axis=0)
        full, quick = openvino.latency(self.graph, typed, batch)
        self.census["cpu"]["milliseconds"] = {"fp32": round(full, 3), "int8": round(quick, 3)}
        if quick >= full:
            self.notes.append(f"INT8 is not faster here: {quick:.1f} ms against {full:.1f} ms FP32")


def _checked(precision: str, targets: Sequence[str]) -> tuple[str, ...]:
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision '{precision}'", where="--precision", fix=f"use {', '.join(PRECISIONS)}")
    for target in targets:
        if target not in TARGETS:
            raise UsageError(f"unknown target '{target}'", where="--target", fix=f"use {', '.join(TARGETS)}")
    if not targets:
        raise UsageError("no target given", where="--target", fix=f"use {', '.join(TARGETS)}")
    return tuple(target for target in TARGETS if target in targets)


def _fitting(recipe: Recipe, precision: str, graph: Path) -> Recipe:
    if recipe.precision != precision:
        raise UsageError(f"is for {recipe.precision}, not {precision}", where="--recipe", fix="change --precision")
    if recipe.graph_sha256 != sha256_file(graph):
        raise UsageError(f"was made for another graph than {graph}", where="--recipe", fix="calibrate with --calib")
    return recipe


def _wanted_plans(targets: tuple[str, ...], sms: tuple[int, ...]) -> list[tuple[str, int]]:
    if sms and set(targets) <= {"cpu"}:
        raise UsageError("a CPU engine has no SM", where="--sm", fix="add --target tensorrt-rtx")
    return [
        (flavour, sm)
        for flavour in targets
        if flavour != "cpu"
        for sm in tensorrt.choose_sms(flavour, load_tensorrt(flavour, f"building for {flavour}"), sms)
    ]


def _older(out: Path) -> EngineManifest | None:
    if not out.exists():
        return None
    if not is_engine(out):
        if out.is_dir() and not any(out.iterdir()):
            return None
        raise UsageError("exists and is not an engine", where=out, fix="choose another --out")
    try:
        return read_manifest(out)
    except GmsError:
        return None  # damaged or newer: it is built again


def _holds(older: EngineManifest, out: Path, request: Request, plans: list[tuple[str, int]]) -> bool:
    if older.source.get("recipe_key") != request.key or not set(request.targets) <= set(older.targets):
        return False
    have = {(plan.target, plan.sm, plan.version) for plan in older.plans}
    if any(
        (flavour, sm, str(load_tensorrt(flavour, f"building for {flavour}").__version__)) not in have
        for flavour, sm in plans
    ):
        return False
    try:
        verify_files(out, older)
    except GmsError:
        return False
    return True


def _loads(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _json(about: dict[str, str]) -> dict[str, Any]:
    return _loads(about.get("gms_rt.source"))
