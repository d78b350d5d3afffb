"""`--precision auto`: every type is built and judged, those that hold the gate are timed in turn, the fastest stays.

What is timed is the engine as it would run here, opened by the C library. A type without a verdict is not known to hold
the gate and is not taken, nor is one that was judged on drawn pictures alone; FP32 is what the others are compared
with, so it always holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.artifacts import atomic_folder, check_writable, sha256_file, write_json
from gms_rt.engine.build import BuiltEngine, build_engine
from gms_rt.engine.existing import existing_engine, has_recipe
from gms_rt.engine.manifest import EngineManifest, graph_bytes, write_manifest
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.errors import DeviceError, GateError, GmsError, UsageError
from gms_rt.precision import TARGETS
from gms_rt.progress import OnProgress, silent

AUTO = "auto"
FASTEST_FIRST = ("int8", "bf16", "fp16", "fp32")
_ROUNDS, _SECONDS = 5, 0.4  # each engine's, in turn, so that a busy machine disturbs all alike


@dataclass(frozen=True)
class TriedPrecision:
    """One type: what the gate said of it, and how fast it is here."""

    precision: str
    why: str = ""  # why it was not taken; empty for one that holds the gate
    milliseconds: float | None = None  # median of one batch; None where it was not timed
    execution: str = ""  # the arithmetic it runs in
    gate: dict[str, Any] | None = None  # as in `engine.json`
    bytes: int = 0  # of what a device opens
    chosen: bool = False

    @property
    def in_words(self) -> str:
        """In a few words, for a note."""
        if self.milliseconds is None:
            return f"{self.precision} not ({self.why})"
        return f"{self.precision} {self.milliseconds:.2f} ms"


def build_fastest(
    request: BuildRequest, progress: OnProgress = silent
) -> tuple[BuiltEngine, tuple[TriedPrecision, ...]]:
    """Build the engine of the fastest type that holds the gate on this device; the request's own type says nothing."""
    out = request.out or request.folder.with_name(f"{request.name}-{AUTO}")
    check_writable(out)
    existing_engine(out)  # refuses to take the place of what is not an engine
    work = out.parent / f".{AUTO}-{out.name}"  # stays after an interruption, so that the next build goes on there
    work.mkdir(parents=True, exist_ok=True)
    made: dict[str, BuiltEngine] = {}
    tried: dict[str, TriedPrecision] = {}
    refused: dict[str, GmsError] = {}
    for precision in FASTEST_FIRST:
        one = dataclasses.replace(request, precision=precision, out=work / precision)
        try:
            built = build_engine(one, lambda phase, *rest, p=precision: progress(f"{p}: {phase}", *rest))
        except (GateError, DeviceError, UsageError) as error:
            tried[precision] = TriedPrecision(precision, error.what.partition("; block")[0])
            refused[precision] = error
            continue
        tried[precision] = judged_engine(built)
        if not tried[precision].why:
            made[precision] = built
    if not made:
        raise _why_none(refused, tried, out)
    progress("timing", 0, 1)
    times = _milliseconds({name: built.folder for name, built in made.items()})
    best = min(times, key=times.__getitem__)
    table = tuple(
        dataclasses.replace(each, milliseconds=times.get(name), chosen=name == best) for name, each in tried.items()
    )
    note = f"the fastest of the types that hold the gate here: {', '.join(each.in_words for each in table)}"
    settled = settled_engine(made[best], dataclasses.replace(request, precision=best, out=out), note)
    shutil.rmtree(work, ignore_errors=True)
    return settled, table


def _why_none(refused: dict[str, GmsError], tried: dict[str, TriedPrecision], out: Path) -> GmsError:
    """What stops every type alike, as it was said; else that the gate was missed."""
    alike = [error for error in refused.values() if error.what == refused["fp32"].what] if "fp32" in refused else []
    if len(alike) > 1:
        return alike[-1]
    kind = GateError if any(isinstance(error, GateError) for error in refused.values()) else GmsError
    reasons = "; ".join(each.in_words for each in tried.values())
    return kind(f"no type could be built: {reasons}", where=out, fix="build one with --precision")


def judged_engine(built: BuiltEngine) -> TriedPrecision:
    """What the gate said of an engine that was built, and why that may say nothing."""
    manifest = built.manifest
    gate = manifest.gate
    why = "" if manifest.precision == "fp32" else _why_unknown(built)
    plans = [plan.bytes for plan in manifest.plans]
    return TriedPrecision(
        manifest.precision,
        why,
        execution=manifest.execution,
        gate=gate,
        bytes=min(plans) if plans else graph_bytes(built.folder, manifest),
    )


def _why_unknown(built: BuiltEngine) -> str:
    """Why the build's gate says nothing of the pictures that the model is for; empty where it does."""
    if built.manifest.gate is None:
        return "not judged: no pictures to compare masks on"
    drawn = built.gate_images is not None and built.gate_images.synthetic
    own = built.manifest.source.get("kind") == "bundled"  # drawn pictures are what the bundled model is for
    return "judged on drawn pictures only: name others with --calib or --gate-data" if drawn and not own else ""


def _milliseconds(folders: dict[str, Path]) -> dict[str, float]:
    """Median latency of each engine, in turn."""
    samples: dict[str, list[float]] = {name: [] for name in folders}
    with contextlib.ExitStack() as stack:
        engines = {name: stack.enter_context(load(folder, trust_device=True)) for name, folder in folders.items()}
        for _ in range(_ROUNDS):
            for name, engine in engines.items():
                info = engine.runner.info
                shape = (info.batch, info.height, info.width, 3)
                images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
                samples[name] += engine.runner.bench(images, seconds=_SECONDS, iterations=3).total.tolist()
    return {name: float(np.median(each)) for name, each in samples.items()}


def settled_engine(
    built: BuiltEngine, request: BuildRequest, note: str, records: Mapping[str, Any] | None = None
) -> BuiltEngine:
    """An engine that was chosen among several, in the place that the request names, with why among its notes.

    `records` are JSON files to write next to it, by name. Plans for other devices that an earlier build of the same
    recipe left in that place stay; of another recipe they cannot, and a note says so.
    """
    assert request.out is not None
    out = request.out
    manifest = dataclasses.replace(
        built.manifest, name=out.name, rebuild=request.command, notes=[*built.manifest.notes, note]
    )
    with atomic_folder(out) as folder:
        shutil.copytree(built.folder, folder, dirs_exist_ok=True)
        manifest = _with_older_plans(manifest, folder, out)
        for name, record in (records or {}).items():
            write_json(folder / name, record)
            manifest = dataclasses.replace(manifest, files=manifest.files | {name: sha256_file(folder / name)})
        write_manifest(folder, manifest)
    # Where an interrupted build goes on, its part may have been finished; the engine in this place is new all the same.
    return dataclasses.replace(built, folder=out, manifest=manifest, unchanged=False)


def _with_older_plans(manifest: EngineManifest, folder: Path, out: Path) -> EngineManifest:
    """The manifest, and in its folder the plans, that an engine already in its place had for other devices."""
    older = existing_engine(out)
    here = {plan.file for plan in manifest.plans}
    others = [p for p in (older.plans if older else []) if p.file not in here and (out / p.file).is_file()]
    if older is None or not others:
        return manifest
    if not has_recipe(older, str(manifest.source.get("recipe_key"))):
        gone = ", ".join(plan.file for plan in others)
        note = f"{gone} of the engine that stood here were of another recipe ({older.precision}) and are gone"
        return dataclasses.replace(manifest, notes=[*manifest.notes, note])
    for plan in others:
        shutil.copyfile(out / plan.file, folder / plan.file)
    kept = {plan.file: older.census[plan.file] for plan in others if plan.file in older.census}
    targets = [target for target in TARGETS if target in {*manifest.targets, *(plan.target for plan in others)}]
    return dataclasses.replace(
        manifest, plans=[*manifest.plans, *others], census=manifest.census | kept, targets=targets
    )
