"""`--precision auto`: every type is built and judged, those that hold the gate are timed in turn, the fastest stays.

What is timed is the engine as it would run here, opened by the C library. A type without a verdict is not known to hold
the gate and is not taken, nor is one that was judged on drawn pictures alone; FP32 is what the others are compared
with, so it always holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.artifacts import atomic_folder, check_writable
from gms_rt.engine.build import BuiltEngine, build_engine
from gms_rt.engine.existing import existing_engine
from gms_rt.engine.manifest import write_manifest
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.errors import DeviceError, GateError, GmsError, UsageError
from gms_rt.progress import OnProgress, silent

AUTO = "auto"
_FASTEST_FIRST = ("int8", "bf16", "fp16", "fp32")
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
    for precision in _FASTEST_FIRST:
        one = dataclasses.replace(request, precision=precision, out=work / precision)
        try:
            built = build_engine(one, lambda phase, *rest, p=precision: progress(f"{p}: {phase}", *rest))
        except (GateError, DeviceError, UsageError) as error:
            tried[precision] = TriedPrecision(precision, error.what.partition("; block")[0])
            refused[precision] = error
            continue
        tried[precision] = _judged(built)
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
    settled = _settled(made[best], dataclasses.replace(request, precision=best, out=out), table)
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


def _judged(built: BuiltEngine) -> TriedPrecision:
    manifest = built.manifest
    sizes = [(built.folder / name).stat().st_size for name in manifest.files if name.startswith(manifest.model)]
    gate = manifest.gate
    why = "" if manifest.precision == "fp32" else _why_unknown(built)
    plans = [plan.bytes for plan in manifest.plans]
    return TriedPrecision(
        manifest.precision, why, execution=manifest.execution, gate=gate, bytes=min(plans) if plans else sum(sizes)
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


def _settled(built: BuiltEngine, request: BuildRequest, table: tuple[TriedPrecision, ...]) -> BuiltEngine:
    """The chosen engine in its place, with its own name and what was tried among its notes."""
    assert request.out is not None
    out = request.out
    note = f"the fastest of the types that hold the gate here: {', '.join(each.in_words for each in table)}"
    manifest = dataclasses.replace(
        built.manifest, name=out.name, rebuild=request.command, notes=[*built.manifest.notes, note]
    )
    with atomic_folder(out) as folder:
        shutil.copytree(built.folder, folder, dirs_exist_ok=True)
        write_manifest(folder, manifest)
    # Where an interrupted build goes on, its part may have been finished; the engine in this place is new all the same.
    return dataclasses.replace(built, folder=out, manifest=manifest, unchanged=False)
