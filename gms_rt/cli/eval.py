"""`gms-rt eval`: how good the masks of a run, an engine, or the average of several are on a data set; what a tokenizer
loses of it.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gms_rt.artifacts import write_json
from gms_rt.cli.console import Console
from gms_rt.cli.eval_matrix import evaluate_matrix
from gms_rt.cli.eval_models import (
    EvalModel,
    EvalOptions,
    engine_model,
    evaluate_model,
    model_from_run,
    numbered_labels,
    untrained_cases,
)
from gms_rt.cli.eval_reconstruct import ReconstructionOptions, print_reconstruction
from gms_rt.cli.eval_text import average_text, comparison_line, evaluation_text
from gms_rt.cli.trust_options import trust_options
from gms_rt.errors import CasesFailedError, UsageError
from gms_rt.metrics import TOLERANCE
from gms_rt.scan.flips import FLIPS, check_flips

if TYPE_CHECKING:
    from gms_rt.evaluate.dataset import Evaluation


@click.command("eval")
@click.argument("data", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "--run",
    "runs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Run folder to evaluate; several with --average, with --matrix one for each DATA.",
)
@click.option(
    "--engine",
    "engines",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Engine folder to evaluate; several with --average.",
)
@click.option(
    "--split",
    "part",
    help="Part of the data set: train, validation, test or all  [default: test; with --matrix, all of a DATA without "
    "a run].",
)
@click.option(
    "--splits",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Lists of names, JSON or the official pickle; with --matrix one for each DATA.",
)
@click.option(
    "--every", default=1, show_default=True, type=click.IntRange(min=1), help="Take every Nth case, sorted by name."
)
@click.option(
    "--spacing",
    type=(float, float),
    default=(1.0, 1.0),
    help="Spacing of rows and columns, the unit of HD95 and NSD at source size.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=TOLERANCE,
    show_default=True,
    help="Distance within which NSD calls surfaces equal, in units of the spacing, and in pixels at 224x224.",
)
@click.option(
    "--average",
    is_flag=True,
    help="Average the probabilities of several runs or engines; each is evaluated, too, and compared with the average.",
)
@click.option("--matrix", is_flag=True, help="Evaluate every run on every other DATA (cross-domain table).")
@click.option(
    "--student",
    "students",
    type=click.Path(path_type=Path),
    multiple=True,
    help="With --matrix: the edge student of a run, whose row and paired difference stand below the run's; one for "
    "each --run, in their order.",
)
@click.option(
    "--home",
    is_flag=True,
    help="With --matrix: judge each run at home first, on what it keeps for the test, and say what it loses elsewhere.",
)
@click.option(
    "--reconstruct",
    is_flag=True,
    help="Encode and decode with --tokenizer, and predict nothing: what the tokenizer loses of masks and images.",
)
@click.option("--tokenizer", metavar="NAME", help="What --reconstruct judges: a tokenizer as for gms-rt train.")
@click.option(
    "--size", type=click.IntRange(min=16), help="Side in pixels that --reconstruct resizes to  [default: 224]."
)
@click.option(
    "--compare", type=click.Path(path_type=Path), help="Folder of an earlier evaluation to compare with, case by case."
)
@click.option("--tta", is_flag=True, help="Average over flips of each image, as gms-rt infer --tta does.")
@click.option(
    "--flips",
    type=click.Choice(list(FLIPS)),
    help="Flips that --tta averages over: horizontal where up and down differ, as in ultrasound; quarter-turns (eight "
    "views, square models only) where no direction differs, as under a microscope  [default: both].",
)
@click.option("--gallery", default=12, show_default=True, help="Number of worst cases to draw.")
@click.option("--device", help="Device to run on: cpu, cuda or cuda:N.")
@trust_options
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write the evaluation into.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(
    data: tuple[Path, ...],
    runs: tuple[Path, ...],
    engines: tuple[Path, ...],
    part: str | None,
    splits: tuple[Path, ...],
    every: int,
    spacing: tuple[float, float],
    tolerance: float,
    average: bool,
    matrix: bool,
    students: tuple[Path, ...],
    home: bool,
    reconstruct: bool,
    tokenizer: str | None,
    size: int | None,
    compare: Path | None,
    tta: bool,
    flips: str | None,
    gallery: int,
    device: str | None,
    out: Path,
    as_json: bool,
    **trust: bool,
) -> None:
    """Evaluate a run or an engine on DATA: cases.csv, summary.json and the worst cases as pictures.

    \b
    Examples:
      gms-rt eval busi/ --run runs/busi --out results/busi
      gms-rt eval busi/ --engine engines/busi-int8 --compare results/busi --out results/busi-int8
      gms-rt eval busi/ --average --run runs/seed0 --run runs/seed1 --out results/average
      gms-rt eval --matrix busi/ bus/ --run runs/busi --run runs/bus --out results/cross
      gms-rt eval --matrix busi/ our-clinic/ --run runs/busi --student runs/busi-edge --home --out elsewhere/
      gms-rt eval ham10000/ --run runs/official --splits ham10000.json --every 20 --out results/ham
      gms-rt eval busi/ --reconstruct --tokenizer sd-vae --out results/busi-sd-vae
    """
    from gms_rt.evaluate.measure import Scale

    console = Console(json=as_json)
    check_flips(tta, flips)
    if home and not matrix:
        raise UsageError("needs --matrix", where="--home", fix="leave it out: a run alone is judged at home")
    if reconstruct or tokenizer or size:
        if not reconstruct or tokenizer is None or len(data) != 1 or len(splits) > 1 or runs or students or engines:
            raise UsageError(
                "--reconstruct needs one DATA and --tokenizer, and takes no model; --tokenizer and --size are for it",
                where="gms-rt eval",
                fix="gms-rt eval DATA --reconstruct --tokenizer NAME --out OUT",
            )
        if average or matrix or compare or tta:
            raise UsageError("nothing is predicted", where="--reconstruct",
                             fix="leave --average, --matrix, --compare and --tta out")  # fmt: skip
        lists = splits[0] if splits else None
        what = ReconstructionOptions(data[0], lists, part or "test", every, tokenizer, size or 224, device, console)
        print_reconstruction(what, out)
        return
    scale = Scale(spacing, tolerance)
    options = EvalOptions(part, every, scale, (flips or "both") if tta else None, gallery, device, console)
    if matrix and (average or engines):
        raise UsageError("takes runs, one for each DATA", where="--matrix", fix="leave --average and --engine out")
    if matrix:
        evaluate_matrix(data, runs, students, splits, options, out, home=home)
        return
    if students:
        raise UsageError(
            "needs --matrix",
            where="--student",
            fix="on one data set, evaluate the teacher first, then the student: --run STUDENT --compare TEACHERS_OUT",
        )
    count = len(runs) + len(engines)
    if len(data) != 1 or len(splits) > 1 or (count < 2 if average else count != 1):
        raise UsageError(
            "needs one DATA, and two or more --run or --engine to average"
            if average
            else "needs one DATA, and one --run or --engine",
            where="gms-rt eval",
            fix="gms-rt eval DATA --run RUN --out OUT; several runs with --average, several DATA with --matrix",
        )
    lists = splits[0] if splits else None
    with ExitStack() as opened:
        models = [model_from_run(run, device) for run in runs]
        models += [opened.enter_context(engine_model(engine, device, trust)) for engine in engines]
        if average:
            result, values, text = _average(data[0], lists, models, options, out)
        else:
            result = evaluate_model(data[0], lists, models[0], options, out)
            values, text = result.summary, evaluation_text(result.summary, out)
    if compare is not None:
        found = _compare(result, compare, out)
        values, text = {**values, "comparison": found}, f"{text}\n{comparison_line(found, compare)}"
    failed = [case for case in result.cases if case.error]
    if failed:
        words = f"{len(failed)} cases failed, the first: {failed[0].error}"
        console.fail(values, text, CasesFailedError(words, where=out / "cases.csv"))
    console.result(values, text)


def _average(
    data: Path, lists: Path | None, models: list[EvalModel], options: EvalOptions, out: Path
) -> tuple[Evaluation, dict[str, Any], str]:
    """Several models and their average: its evaluation, the JSON values and the text for the screen."""
    from gms_rt.evaluate.dataset import AveragedModel, evaluate_average

    labels = numbered_labels([model.name for model in models])
    averaged = [
        AveragedModel(label, model.over_flips(options.flips), model.facts)
        for label, model in zip(labels, models, strict=True)
    ]
    cases, chosen = untrained_cases(data, lists, models, options, out)
    with options.console.progress(f"eval {chosen['data']}", len(cases)) as bar:
        result = evaluate_average(cases, averaged, out, options.judge(chosen, bar.advance))
    each = {label: one.summary for label, one in result.each.items()}
    values = {**result.average.summary, "each": each, "average_minus_each": result.differences}
    return result.average, values, average_text(result, out)


def _compare(result: Evaluation, other: Path, out: Path) -> dict[str, Any]:
    from gms_rt.evaluate.case_result import read_cases
    from gms_rt.evaluate.comparison import compare_evaluations

    found = compare_evaluations(read_cases(other), result.cases)
    write_json(out / "comparison.json", found)
    return found
