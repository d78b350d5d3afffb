"""`--budget`: the most faithful engine that is fast enough on this device, and the table of what was tried.

Every type of the run as trained is built and judged as `--precision auto` does it. Smaller sizes of a run and its
students are built in the fastest type that held there, and judged by the truth. All that could be built is opened by
the C library with several numbers of threads and timed in turn. Only the chosen engine comes into its place; the others
stand in a folder next to it until the build is done, so that one that was interrupted goes on there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.arrays import F64
from gms_rt.artifacts import check_writable, read_json
from gms_rt.data.validation_part import validation_part
from gms_rt.engine.budget import BudgetRow, Kind, chosen_rows, why_chosen
from gms_rt.engine.budget_truth import LIMIT, dice_to_truth, truth_record, why_too_far
from gms_rt.engine.build import BuiltEngine, build_engine
from gms_rt.engine.existing import existing_engine
from gms_rt.engine.fastest import FASTEST_FIRST, judged_engine, settled_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.engine.students import students_of
from gms_rt.engine.turns import latencies_in_turns
from gms_rt.errors import DeviceError, GateError, GmsError, UsageError
from gms_rt.model.kind import is_comparator_run
from gms_rt.model.size import run_size
from gms_rt.precision.gate import Gate
from gms_rt.precision.images import ImageSet
from gms_rt.progress import OnProgress, silent
from gms_rt.runtime.device import probe

BUDGET_FILE = "budget.json"
_SHARES = (0.75, 0.5)  # of the trained size, on the tokenizer's grid
_ROUNDS, _SECONDS = 5, 0.4  # each engine's, in turn, so that a busy machine disturbs all alike


@dataclass(frozen=True)
class BudgetOutcome:
    """What came of a budget."""

    rows: tuple[BudgetRow, ...]  # everything that was tried; the chosen one is marked
    built: BuiltEngine | None  # the chosen engine in its place; None where nothing can be taken
    why: str = ""  # why that one
    kept: Path | None = None  # where the engines stay that were built for nothing: another budget goes on there


@dataclass(frozen=True)
class _Candidate:
    """An engine to try: one that was built, or why there is none."""

    name: str
    kind: Kind
    request: BuildRequest
    built: BuiltEngine | None = None
    why: str = ""  # why it cannot be taken


@dataclass
class _Trial:
    """The candidates of one request."""

    request: BuildRequest
    work: Path
    progress: OnProgress
    candidates: list[_Candidate] = field(default_factory=list)

    def build_types(self) -> None:
        """Each type of the run as trained, or of the graph as it is."""
        for precision in FASTEST_FIRST:
            one = dataclasses.replace(self.request, precision=precision, out=self.work / precision)
            self.candidates.append(self._tried(precision, "run", one))

    def build_variants(self) -> None:
        """Smaller sizes and students, each in the fastest type that held at the trained size and can be built of it."""
        run = self.request.source
        images = (self.request.calibration, self.request.gate_images)
        if run is None or not run.is_dir() or any(isinstance(each, ImageSet) for each in images):
            return  # a graph has one size, and so have images in memory
        types = [c.request.precision for c in self.candidates if c.built is not None and not c.why] or ["fp32"]
        variants: list[tuple[str, Kind, BuildRequest]] = []
        if self.request.size is None:
            for side in smaller_sizes(run):
                text = f"{side[0]}x{side[1]}"
                variants.append((f"at {text}", "size", dataclasses.replace(self.request, size=text)))
        variants += [
            (f"student {place.name},", "student", dataclasses.replace(self.request, source=place, size=None))
            for place in students_of(run)
        ]
        for name, kind, request in variants:
            self.candidates.append(self._first_that_builds(name, kind, request, types))

    def time_refused(self) -> None:
        """Build what missed the gate without one, so that it can be told how fast it would be."""
        for place, one in enumerate(self.candidates):
            if one.built is None and one.kind == "run" and one.why.startswith("the accuracy gate"):
                gate = Gate(0.0, 0.0)
                out = self.work / f"{one.request.precision}-ungated"
                again = self._tried(one.name, one.kind, dataclasses.replace(one.request, gate=gate, out=out))
                self.candidates[place] = dataclasses.replace(again, why=one.why)

    def rows(self) -> list[BudgetRow]:
        """A row for each candidate and number of threads, timed and judged."""
        there = {n: c.built for n, c in enumerate(self.candidates) if c.built is not None}
        self.progress("timing", 0, 1)
        times = measured_latencies({n: built.folder for n, built in there.items()})
        truths, unknown = self._truths(there)
        base = next((n for n, c in enumerate(self.candidates) if c.kind == "run" and c.request.precision == "fp32"), -1)
        found = []
        for number, one in enumerate(self.candidates):
            row = BudgetRow(one.name, one.kind, one.request.precision, why=one.why)
            if one.built is not None:
                figures = judged_engine(one.built)
                truth = truth_record(truths[number], truths[base]) if number in truths and base in truths else None
                why = one.why
                if one.kind != "run" and not why:
                    why = why_too_far(truth, 1 - self.request.gate.mean, unknown)
                manifest = one.built.manifest
                row = dataclasses.replace(
                    row, height=manifest.height, width=manifest.width, execution=figures.execution,
                    bytes=figures.bytes, gate=figures.gate, truth=truth, why=why,
                )  # fmt: skip
            found += [
                dataclasses.replace(
                    row,
                    threads=threads,
                    milliseconds=round(float(np.median(samples)), 4),
                    p99=round(float(np.quantile(samples, 0.99)), 4),
                    runs=len(samples),
                )
                for (place, threads), samples in times.items()
                if place == number
            ] or [row]
        return found

    def _tried(self, name: str, kind: Kind, request: BuildRequest) -> _Candidate:
        try:
            built = build_engine(request, lambda phase, *rest: self.progress(f"{name}: {phase}", *rest))
        except (GateError, DeviceError, UsageError) as error:
            return _Candidate(name, kind, request, None, error.what.partition("; block")[0])
        return _Candidate(name, kind, request, built, judged_engine(built).why)

    def _first_that_builds(self, name: str, kind: Kind, request: BuildRequest, types: list[str]) -> _Candidate:
        found: _Candidate | None = None
        for precision in types:
            folder = f"{name.strip(',').replace(' ', '-')}-{precision}"
            one = dataclasses.replace(request, precision=precision, out=self.work / folder)
            said = f"{name} {precision}" if kind == "student" else f"{precision} {name}"
            try:
                found = self._tried(said, kind, one)
            except GmsError as error:  # a folder next to the run that cannot be built does not end this build
                found = _Candidate(said, kind, one, None, error.what)
            if found.built is not None and not found.why:
                break
        assert found is not None
        return found

    def _truths(self, there: dict[int, BuiltEngine]) -> tuple[dict[int, F64], str]:
        """Dice to the truth of each engine that was built, where there is more to compare than types."""
        run = self.request.source
        if run is None or not run.is_dir() or all(self.candidates[n].kind == "run" for n in there):
            return {}, "a graph has no true masks"
        part = validation_part(run, LIMIT)
        found = {}
        for done, (number, built) in enumerate(there.items() if part.cases else ()):
            self.progress("Dice to the truth", done, len(there))
            with load(built.folder, trust_device=True) as engine:
                found[number] = dice_to_truth(engine, part.cases)
        return found, part.why


def build_within(request: BuildRequest, budget: float, progress: OnProgress = silent) -> BudgetOutcome:
    """Build the most faithful engine whose median latency here is at most `budget` milliseconds.

    The request's own type says nothing.
    """
    out = request.out or request.folder.with_name(f"{request.name}-budget")
    check_writable(out)
    existing_engine(out)  # refuses to take the place of what is not an engine
    work = out.parent / f".budget-{out.name}"
    work.mkdir(parents=True, exist_ok=True)
    trial = _Trial(request, work, progress)
    trial.build_types()
    if not any(one.built for one in trial.candidates):
        raise GateError(
            f"no type could be built: {'; '.join(f'{one.name}: {one.why}' for one in trial.candidates)}", where=out
        )
    trial.build_variants()
    rows = chosen_rows(trial.rows(), budget)
    best = next((row for row in rows if row.chosen), None)
    if best is None:
        trial.time_refused()
        return BudgetOutcome(chosen_rows(trial.rows(), budget), None, kept=work)
    one = next(c for c in trial.candidates if c.name == best.name)
    assert one.built is not None
    why = why_chosen(rows, budget)
    request = dataclasses.replace(one.request, out=out)
    records = {BUDGET_FILE: budget_record(rows, budget, why)}
    settled = settled_engine(one.built, request, f"chosen for a budget: {why}", records)
    shutil.rmtree(work, ignore_errors=True)
    return BudgetOutcome(rows, settled, why)


def smaller_sizes(run: Path) -> list[tuple[int, int]]:
    """Sizes below the trained one that the tokenizer's grid allows: about three quarters and half of it."""
    height, width = run_size(run, None)
    path = run / "tokenizer.json"
    try:
        stride = read_json(path).get("stride") if path.is_file() and not is_comparator_run(run) else None
    except GmsError:  # building from it will say what is wrong
        stride = None
    if not isinstance(stride, int) or stride < 1:
        return []  # a student, a comparator, or a damaged run: only the size it was made for
    sizes = [tuple(int(side * share) // stride * stride for side in (height, width)) for share in _SHARES]
    return [(high, wide) for high, wide in dict.fromkeys(sizes) if 0 < high < height and 0 < wide < width]


def thread_counts() -> list[int]:
    """Numbers of CPU threads to try: one, two, four and so on, and all cores."""
    cores = max(1, probe().cpu.cores)
    return sorted({cores, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)})


def measured_latencies(folders: dict[int, Path]) -> dict[tuple[int, int], F64]:
    """Milliseconds of every inference of each engine with each number of threads, run in turn; a plan has none: 0."""
    with contextlib.ExitStack() as stack:
        runners = {}
        for number, folder in folders.items():
            for threads in thread_counts():
                runner = stack.enter_context(load(folder, trust_device=True, threads=threads)).runner
                shape = (runner.info.batch, runner.info.height, runner.info.width, 3)
                images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
                on_cpu = runner.info.backend == "cpu"
                runners[number, threads if on_cpu else 0] = runner, images
                if not on_cpu:
                    break
        return latencies_in_turns(runners, rounds=_ROUNDS, seconds=_SECONDS)


def budget_record(rows: Sequence[BudgetRow], budget: float, why: str) -> dict[str, Any]:
    """The table as it stands in the engine's folder."""
    return {
        "format": "gms-rt-budget",
        "version": 1,
        "budget_milliseconds": budget,
        "device": probe().name,
        "chosen": why,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
