"""A data set, case by case: `cases.csv`, `summary.json` and a gallery of the worst cases.

One model is evaluated, or several and the mean of their probabilities. A case that cannot be read is listed with its
error and makes the result incomplete; it is never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.artifacts import write_json
from gms_rt.data.layouts import Case
from gms_rt.errors import UsageError
from gms_rt.evaluate.case_result import CaseResult, write_cases
from gms_rt.evaluate.comparison import compare_evaluations
from gms_rt.evaluate.gallery import write_gallery
from gms_rt.evaluate.measure import DEFAULT_SCALE, Scale, mean_mask, results_from_case
from gms_rt.evaluate.summary import DEFINITIONS, summarise
from gms_rt.scan.segmenter import Segmenter

GALLERY = "failures"
SUMMARY, AVERAGE, EACH = "summary.json", "average.json", "each"


@dataclass(frozen=True)
class Evaluation:
    """All cases and their summary."""

    cases: tuple[CaseResult, ...]
    summary: dict[str, Any]


@dataclass(frozen=True)
class Judge:
    """How cases are measured and what is written about them."""

    scale: Scale = DEFAULT_SCALE
    gallery: int = 12  # worst cases to draw
    facts: dict[str, Any] | None = None  # about data and models, for the summary
    progress: Callable[[int, str], None] | None = None  # called after each case with 1 and the mean Dice so far


@dataclass(frozen=True)
class AveragedModel:
    """One of the models whose probabilities are averaged."""

    label: str  # names its folder and its row
    segmenter: Segmenter
    facts: dict[str, Any]  # for its own summary


@dataclass(frozen=True)
class AverageEvaluation:
    """The average's evaluation, that of each model, and the average minus each model, paired."""

    average: Evaluation
    each: dict[str, Evaluation]
    differences: dict[str, dict[str, Any]]


def evaluate(cases: Sequence[Case], segmenter: Segmenter, out: Path, judge: Judge | None = None) -> Evaluation:
    """Segment and measure all cases, and write the result into `out`."""
    judge = judge or Judge()
    _, results = _results(cases, [segmenter], out, judge)
    return _written(cases, [segmenter], results, out, judge)


def evaluate_average(
    cases: Sequence[Case], models: Sequence[AveragedModel], out: Path, judge: Judge | None = None
) -> AverageEvaluation:
    """Evaluate the mean of several models' probabilities, and each of them, running each model once per case.

    `out` holds the average's result; `out/each/LABEL` each model's table and summary; `average.json` the differences.
    """
    judge = judge or Judge()
    segmenters = [model.segmenter for model in models]
    by_model, averaged = _results(cases, segmenters, out, judge)
    each = {}
    for model, results in zip(models, by_model, strict=True):
        summary = {**(judge.facts or {}), **model.facts, **_measured(judge), **summarise(results)}
        write_cases(out / EACH / model.label, results)
        write_json(out / EACH / model.label / SUMMARY, summary)
        each[model.label] = Evaluation(tuple(results), summary)
    facts = {**(judge.facts or {}), "average_of": [{"label": model.label, **model.facts} for model in models]}
    average = _written(cases, segmenters, averaged, out, Judge(judge.scale, judge.gallery, facts))
    shared = any(not result.error for result in averaged)
    differences = (
        {label: compare_evaluations(one.cases, average.cases) for label, one in each.items()} if shared else {}
    )
    write_json(out / AVERAGE, {"average_minus_each": differences})
    return AverageEvaluation(average, each, differences)


def _measured(judge: Judge) -> dict[str, Any]:
    return {"spacing": list(judge.scale.spacing), "nsd_tolerance": judge.scale.tolerance, "definitions": DEFINITIONS}


def _results(
    cases: Sequence[Case], segmenters: Sequence[Segmenter], out: Path, judge: Judge
) -> tuple[list[list[CaseResult]], list[CaseResult]]:
    if not cases:
        raise UsageError("there are no cases to evaluate", where=out, fix="choose another --split")
    by_model: list[list[CaseResult]] = [[] for _ in segmenters]
    joint: list[CaseResult] = []
    for case in cases:
        each, result = results_from_case(case, segmenters, judge.scale)
        joint.append(result)
        for results, one in zip(by_model, each, strict=True):
            results.append(one)
        if judge.progress is not None:
            done = [r.dice for r in joint if not r.error]
            judge.progress(1, f"Dice {np.mean(done):.4f}" if done else "")
    return by_model, joint


def _written(
    cases: Sequence[Case], segmenters: Sequence[Segmenter], results: list[CaseResult], out: Path, judge: Judge
) -> Evaluation:
    summary = {**(judge.facts or {}), **_measured(judge), **summarise(results)}
    write_cases(out, results)
    write_json(out / SUMMARY, summary)
    scored = [(result.dice, number) for number, result in enumerate(results) if not result.error]
    worst = [number for score, number in sorted(scored) if score < 1][: judge.gallery]
    write_gallery(out / GALLERY, [cases[number] for number in worst], partial(mean_mask, segmenters))
    return Evaluation(tuple(results), summary)
