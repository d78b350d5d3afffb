"""`gms-rt eval --matrix`: every run on every other data set, with intervals, beside the paper's cross-domain table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_json
from gms_rt.cli.console import table
from gms_rt.cli.eval_models import EvalModel, EvalOptions, evaluate_model, model_from_run, numbered_labels
from gms_rt.cli.eval_text import HEADER, difference_text, lesion_text, metric_notes, published_row, result_row
from gms_rt.errors import CasesFailedError, UsageError


def evaluate_matrix(
    data: tuple[Path, ...],
    runs: tuple[Path, ...],
    students: tuple[Path, ...],
    splits: tuple[Path, ...],
    options: EvalOptions,
    out: Path,
) -> None:
    """Evaluate and print the table. Each run was trained on the DATA in its place; DATA beyond the runs are foreign.

    Of a foreign folder no run has seen anything, so every case is taken unless a part or a list says otherwise. Below
    each run stands its student, if one is named, on the same cases.
    """
    from gms_rt.data.layouts import recognise
    from gms_rt.evaluate.comparison import compare_evaluations
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
    found = _Found()
    published = False
    taught = [*students, *[None] * (len(runs) - len(students))]
    for trained, (source, run, student) in zip(names, zip(data, runs, taught, strict=False), strict=False):
        model = _without_lists(run, options)
        pupil = None if student is None else _without_lists(student, options)
        for index, (tested, target) in enumerate(zip(names, data, strict=True)):
            if target == source:
                continue
            name = f"{trained} to {tested}"
            lists = splits[index] if index < len(splits) else None
            foreign = index >= len(runs) and lists is None and options.part is None
            chosen = replace(options, part="all") if foreign else options
            result = evaluate_model(target, lists, model, chosen, out / name.replace(" ", "-"))
            found.add(name, name, result.summary)
            if (trained, tested) in CROSS:
                published = True
                found.rows.append(published_row("  published (paper, table 3)", CROSS[trained, tested]))
            if pupil is None:
                continue
            theirs = evaluate_model(target, lists, pupil, chosen, out / f"{name.replace(' ', '-')}-student")
            found.add(f"{name}, student", "  its student", theirs.summary)
            if any(not (a.error or b.error) for a, b in zip(result.cases, theirs.cases, strict=True)):
                apart = compare_evaluations(result.cases, theirs.cases)
                found.values[f"{name}, student"] = {**theirs.summary, "student_minus_run": apart}
                found.lines.append(f"  student less run: {difference_text(apart)}")
    write_json(out / "matrix.json", found.values)
    notes = metric_notes(next(iter(found.values.values())), published=published)
    text = "\n".join([table(found.rows, header=HEADER), *found.lines, *notes])
    if found.failed:
        words = f"{found.failed} cases failed; each table's cases.csv says which and why"
        options.console.fail(found.values, text, CasesFailedError(words, where=out))
    options.console.result(found.values, text)


@dataclass
class _Found:
    """What was measured so far: the rows and lines of the screen, and the values of the file."""

    rows: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: int = 0

    def add(self, name: str, label: str, summary: dict[str, Any]) -> None:
        """One model on one data set."""
        self.values[name] = summary
        self.failed += summary["cases"]["failed"]
        self.rows.append(result_row(label, summary))
        self.lines.append(f"{label}: {_cases_text(summary)}, {lesion_text(summary)}")


def _without_lists(run: Path, options: EvalOptions) -> EvalModel:
    """A run as if it had no lists: they are of the data it was trained on."""
    return replace(model_from_run(run, options.device), run=None)


def _cases_text(summary: dict[str, Any]) -> str:
    counts = summary["cases"]
    return f"{counts['all']} cases" + (f", {counts['failed']} of them failed" if counts["failed"] else "")
