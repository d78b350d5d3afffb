"""Students of several sizes, each with and without the teacher, measured alike: the Pareto table.

All are trained on the same pictures, decoded and shown to the teacher once. They are measured on cases that none has
seen; which of them to take is for the validation column to say, so that the test cases have no part in the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_json
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.distill.loop import check_first_student, distill, gather
from gms_rt.distill.request import Distilled, DistillRequest
from gms_rt.distill.speed import fast_execution, graph_milliseconds
from gms_rt.distill.teacher import Teacher, TeacherFacts, open_teacher, teacher_facts
from gms_rt.distill.training import Material
from gms_rt.errors import UsageError
from gms_rt.evaluate.case_result import CaseResult, write_cases
from gms_rt.evaluate.comparison import compare_evaluations
from gms_rt.evaluate.measure import DEFAULT_SCALE, results_from_case
from gms_rt.evaluate.summary import describe_values
from gms_rt.metrics import dice
from gms_rt.model.student import student_shape
from gms_rt.runtime.device import probe
from gms_rt.scan.mask import FOREGROUND
from gms_rt.scan.segmenter import Segmenter
from gms_rt.train.interrupt import stop_requests
from gms_rt.train.predict import segmenter_from_run
from gms_rt.train.request import Progress

TEACHER = "teacher"
SWEEP = "sweep.json"
_FORMAT = {"format": "gms-rt-sweep", "version": 1}


@dataclass(frozen=True)
class SweepStudent:
    """One student of a sweep."""

    name: str  # also of its folder
    budget: float  # GFLOP
    taught: bool
    found: Distilled


@dataclass(frozen=True)
class SweepRow:
    """One line of the table; what is None was not measured, or does not apply."""

    name: str
    gflop: float | None
    taught: bool | None  # None for the teacher itself
    milliseconds: float | None  # median of one picture on this machine's CPU
    megabytes: float  # of the graph
    validation_dice: float | None  # by which its weights were chosen
    dice: dict[str, Any] | None  # to the truth at source size: mean, std, median, interval95
    dice_to_teacher: dict[str, Any] | None  # at network size: the same
    minus_teacher: dict[str, Any] | None  # paired: difference, interval95, wilcoxon_p
    minus_untaught: dict[str, Any] | None  # a taught student minus the untaught one of its size: the same


@dataclass(frozen=True)
class Sweep:
    """The table."""

    rows: tuple[SweepRow, ...]  # the teacher first
    cases: int
    part: str
    device: str
    execution: str
    verdict: str  # whether the teacher earned its place, in words

    def to_values(self) -> dict[str, Any]:
        """Plain values for `sweep.json`."""
        return {**_FORMAT, **asdict(self), "rows": [asdict(row) for row in self.rows]}


def train_sweep(
    request: DistillRequest, budgets: Sequence[float], progress: Progress | None = None
) -> tuple[list[SweepStudent], Material]:
    """Train each size with and without the teacher, into folders below the request's `out`; finished ones stay.

    The shape of the request is not used.
    """
    if not request.recipe.taught:
        raise UsageError("a sweep compares with and without a teacher", where="--no-teacher", fix="leave it away")
    if len(set(budgets)) != len(budgets) or not budgets:
        raise UsageError("needs sizes, each once", where="--sweep", fix="give GFLOP, such as 0.25,0.5,1")
    tell = progress or (lambda stage, done, total, note: None)
    shapes = {budget: student_shape(budget, request.recipe.size) for budget in budgets}  # refused before any training
    for shape in shapes.values():
        check_first_student(replace(request, shape=shape))
    shared = replace(request, cache=request.cache or request.out / "teacher", resume=True)
    with stop_requests() as stop:
        material = gather(shared, tell, stop)
    students = []
    for budget in sorted(budgets):
        for taught in (False, True):
            name = f"{budget:g}-{'taught' if taught else 'untaught'}"
            recipe = request.recipe if taught else request.recipe.untaught()
            # Pictures without a mask are for the teacher to speak about.
            own = (
                material if taught else replace(material, train=material.train.with_masks(), lessons=None, teacher=None)
            )
            one = replace(shared, shape=shapes[budget], recipe=recipe, out=request.out / name)
            told = _named(name, tell)
            students.append(SweepStudent(name, budget, taught, distill(one, told, own)))
    return students, material


def measure_sweep(
    students: Sequence[SweepStudent], request: DistillRequest, part: str, progress: Progress | None = None
) -> Sweep:
    """Measure trained students and their teacher on one part of the request's split, and write `sweep.json`."""
    cases = request.dataset.named(sorted(request.split.part(part)))
    if not cases:
        raise UsageError(f"the part '{part}' has no case", where=request.dataset.root, fix="choose another --split")
    tell = progress or (lambda stage, done, total, note: None)
    facts = teacher_facts(request.teacher)
    teacher = _segmenter(open_teacher(facts, request.device), facts)
    runs = {student.name: segmenter_from_run(student.found.outcome.run, device=request.device) for student in students}
    results, agreed = _judge(cases, {TEACHER: teacher, **runs}, lambda done: tell("eval", done, len(cases), ""))
    for name, each in results.items():
        write_cases(request.out / f"{part}-cases" / name, each)
    tell("time", 0, 1, "")
    graphs = _graphs(students, request)
    times = graph_milliseconds(graphs)
    sizes = {name: path.stat().st_size / 2**20 for name, path in graphs.items()}
    rows = [_row(TEACHER, None, results, agreed, times[TEACHER], sizes[TEACHER])]
    rows += [_row(s.name, s, results, agreed, times[s.name], sizes[s.name]) for s in students]
    sweep = Sweep(tuple(rows), len(cases), part, probe().name, fast_execution(), _verdict(rows))
    write_json(request.out / SWEEP, sweep.to_values())
    return sweep


def _named(name: str, tell: Progress) -> Progress:
    return lambda stage, done, total, note: tell(f"{name}: {stage}", done, total, note)


def _segmenter(teacher: Teacher, facts: TeacherFacts) -> Segmenter:
    return Segmenter(lambda images: teacher.answer(images)[0], facts.size, facts.size)


def _judge(
    cases: Sequence[Case], models: dict[str, Segmenter], told: Callable[[int], None]
) -> tuple[dict[str, list[CaseResult]], dict[str, list[float]]]:
    """Each model's results, and its masks' Dice to the teacher's at network size."""
    results: dict[str, list[CaseResult]] = {name: [] for name in models}
    agreed: dict[str, list[float]] = {name: [] for name in models}
    for number, case in enumerate(cases):
        each, joint = results_from_case(case, list(models.values()), DEFAULT_SCALE)
        for name, result in zip(models, each, strict=True):
            results[name].append(result)
        if not joint.error:
            image, _ = read_case(case)
            masks = {name: model.levels(image) >= FOREGROUND for name, model in models.items()}
            for name, mask in masks.items():
                agreed[name].append(dice(mask, masks[TEACHER]))
        told(number + 1)
    return results, agreed


def _graphs(students: Sequence[SweepStudent], request: DistillRequest) -> dict[str, Path]:
    """Each run's graph, which `gms-rt build` takes, too."""
    from gms_rt.engine.request import BuildRequest
    from gms_rt.engine.source import read_source

    runs = {TEACHER: request.teacher, **{student.name: student.found.outcome.run for student in students}}
    return {name: read_source(BuildRequest(source=run)).path for name, run in runs.items()}


def _row(
    name: str,
    student: SweepStudent | None,
    results: dict[str, list[CaseResult]],
    agreed: dict[str, list[float]],
    milliseconds: float,
    megabytes: float,
) -> SweepRow:
    good = [result.dice for result in results[name] if not result.error]
    own = student is not None
    paired = compare_evaluations(results[TEACHER], results[name])["dice"] if own and good else None
    partner = f"{student.budget:g}-untaught" if student is not None and student.taught else None
    helped = compare_evaluations(results[partner], results[name])["dice"] if partner in results and good else None
    best = student.found.outcome.best_dice if student is not None else -1.0
    return SweepRow(
        name,
        student.found.gflop if student is not None else None,
        student.taught if student is not None else None,
        round(milliseconds, 4),
        round(megabytes, 3),
        round(best, 6) if best >= 0 else None,
        describe_values(good),
        describe_values(agreed[name]) if own else None,
        paired,
        helped,
    )


def _verdict(rows: Sequence[SweepRow]) -> str:
    """Whether distillation helped, from the paired differences of each size."""
    helped: list[str] = []
    harmed: list[str] = []
    open_: list[str] = []
    for row in rows:
        if row.minus_untaught is None:
            continue
        low, high = row.minus_untaught["interval95"]
        size = row.name.removesuffix("-taught")
        (helped if low > 0 else harmed if high < 0 else open_).append(size)
    parts = []
    for sizes, words in (
        (helped, "the teacher helped"),
        (harmed, "the teacher did harm: the untaught student is better"),
        (open_, "no difference is seen between taught and untaught"),
    ):
        if sizes:
            parts.append(f"{words} at {' and '.join(sizes)} GFLOP")
    return "; ".join(parts)
