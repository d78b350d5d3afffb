"""`gms-rt eval --matrix`: every run on every other data set, with intervals, beside the paper's cross-domain table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gms_rt.artifacts import write_json
from gms_rt.cli.console import table
from gms_rt.cli.eval_models import EvalModel, EvalOptions, evaluate_model, model_from_run, numbered_labels
from gms_rt.cli.eval_text import HEADER, difference_text, lesion_text, metric_notes, published_row, result_row
from gms_rt.errors import CasesFailedError, UsageError
from gms_rt.statistics import bootstrap_change

if TYPE_CHECKING:
    from gms_rt.evaluate.dataset import Evaluation
    from gms_rt.evaluate.published import Numbers


def evaluate_matrix(
    data: tuple[Path, ...],
    runs: tuple[Path, ...],
    students: tuple[Path, ...],
    splits: tuple[Path, ...],
    options: EvalOptions,
    out: Path,
    *,
    home: bool = False,
) -> None:
    """Evaluate and print the table. Each run was trained on the DATA in its place; DATA beyond the runs are foreign.

    Of a foreign folder no run has seen anything, so every case is taken unless a part or a list says otherwise. Below
    each run stands its student, if one is named, on the same cases. With `home` a run is first judged on what it keeps
    for the test of its own data, so that what it loses elsewhere can be read.
    """
    from gms_rt.data.layouts import recognise
    from gms_rt.evaluate.published import CROSS, key_of

    if len(data) < 2 or not 1 <= len(runs) <= len(data) or len(splits) not in (0, len(runs), len(data)):
        raise UsageError(
            f"{len(data)} data sets, {len(runs)} runs and {len(splits)} split files do not fit together",
            where="--matrix",
            fix="give two or more DATA, a --run for each or for the first of them, in their order, and --splits for "
            "all, for those with a run, or for none",
        )
    if len(students) > len(runs):
        raise UsageError(
            f"{len(students)} students of {len(runs)} runs", where="--student", fix="give one for each --run, in order"
        )
    names = numbered_labels([key_of(recognise(folder).name) for folder in data])
    lists = [*splits, *[None] * (len(data) - len(splits))]
    found = _Found(out)
    taught = [*students, *[None] * (len(runs) - len(students))]
    for place, (run, student) in enumerate(zip(runs, taught, strict=True)):
        model = model_from_run(run, options.device)
        # A student is judged on its run's cases, whatever its own lists say.
        pair = [model] if student is None else [model, replace(model_from_run(student, options.device), run=run)]
        own = found.judge(f"{names[place]} at home", data[place], lists[place], pair, options) if home else []
        away = [replace(each, run=None) for each in pair]  # their lists are of the data they were trained on
        for index, (tested, target) in enumerate(zip(names, data, strict=True)):
            if target == data[place]:
                continue
            name = f"{names[place]} to {tested}"
            foreign = index >= len(runs) and lists[index] is None and options.part is None
            chosen = replace(options, part="all") if foreign else options
            numbers = CROSS.get((names[place], tested))
            found.lose(name, own, found.judge(name, target, lists[index], away, chosen, numbers))
    write_json(out / "matrix.json", found.values)
    notes = metric_notes(next(iter(found.values.values())), published=found.published)
    text = "\n".join([table(found.rows, header=HEADER), *found.lines, *notes])
    if found.failed:
        words = f"{found.failed} cases failed; each table's cases.csv says which and why"
        options.console.fail(found.values, text, CasesFailedError(words, where=out))
    options.console.result(found.values, text)


@dataclass
class _Found:
    """What was measured so far: the rows and lines of the screen, and the values of the file."""

    out: Path
    rows: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: int = 0
    published: bool = False

    def judge(
        self,
        name: str,
        target: Path,
        lists: Path | None,
        models: Sequence[EvalModel],
        options: EvalOptions,
        numbers: Numbers | None = None,
    ) -> list[Evaluation]:
        """A run and its student, if there is one, on one data set; `numbers` are the paper's."""
        from gms_rt.evaluate.comparison import compare_evaluations

        folder = self.out / name.replace(" ", "-")
        result = evaluate_model(target, lists, models[0], options, folder)
        self._add(name, name, result.summary)
        if numbers is not None:
            self.published = True
            self.rows.append(published_row("  published (paper, table 3)", numbers))
        if len(models) == 1:
            return [result]
        theirs = evaluate_model(target, lists, models[1], options, folder.with_name(f"{folder.name}-student"))
        self._add(f"{name}, student", "  its student", theirs.summary)
        if any(not (a.error or b.error) for a, b in zip(result.cases, theirs.cases, strict=True)):
            apart = compare_evaluations(result.cases, theirs.cases)
            self.values[f"{name}, student"] = {**theirs.summary, "student_minus_run": apart}
            self.lines.append(f"  student less run: {difference_text(apart)}")
        return [result, theirs]

    def lose(self, name: str, home: Sequence[Evaluation], away: Sequence[Evaluation]) -> None:
        """What each model has elsewhere less what it has at home, of other cases: not paired."""
        for key, who, ours, theirs in zip((name, f"{name}, student"), ("run", "student"), home, away, strict=False):
            here, there = (np.array([c.dice_224 for c in each.cases if not c.error]) for each in (ours, theirs))
            if not (here.size and there.size):
                continue
            change, sure = float(there.mean() - here.mean()), bootstrap_change(there, here)
            self.values[key]["away_minus_home"] = {
                "dice_224": round(change, 6),
                "interval95": [round(sure.low, 6), round(sure.high, 6)],
            }
            text = f"Dice at 224x224 {change:+.4f} ({sure.low:+.4f} to {sure.high:+.4f})"
            self.lines.append(f"{name}, {who} away less home: {text}")

    def _add(self, name: str, label: str, summary: dict[str, Any]) -> None:
        """One model on one data set."""
        self.values[name] = summary
        self.failed += summary["cases"]["failed"]
        self.rows.append(result_row(label, summary))
        self.lines.append(f"{label}: {_cases_text(summary)}, {lesion_text(summary)}")


def _cases_text(summary: dict[str, Any]) -> str:
    counts = summary["cases"]
    return f"{counts['all']} cases" + (f", {counts['failed']} of them failed" if counts["failed"] else "")
