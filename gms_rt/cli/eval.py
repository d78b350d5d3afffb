"""`gms-rt eval`: how good the masks of a run, an engine, or the average of several are on a data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gms_rt.artifacts import check_apart, sha256_file, write_json
from gms_rt.cli.console import Console, table
from gms_rt.cli.eval_text import HEADER, average_text, comparison_line, evaluation_text, result_row
from gms_rt.cli.trust_options import trust_options
from gms_rt.errors import CasesFailedError, UsageError
from gms_rt.infer.flips import FLIPS, check_flips, infer_over_flips
from gms_rt.scan.segmenter import Segmenter

if TYPE_CHECKING:
    from gms_rt.data.layouts import Case
    from gms_rt.evaluate.dataset import Evaluation, Judge


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
    "--split", "part", default="test", show_default=True, help="Part of the data set: train, validation, test or all."
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
    help="Spacing of rows and columns, the unit of HD95 at source size.",
)
@click.option(
    "--average",
    is_flag=True,
    help="Average the probabilities of several runs or engines; each is evaluated, too, and compared with the average.",
)
@click.option("--matrix", is_flag=True, help="Evaluate every run on every other DATA (cross-domain table).")
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
    part: str,
    splits: tuple[Path, ...],
    every: int,
    spacing: tuple[float, float],
    average: bool,
    matrix: bool,
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
      gms-rt eval ham10000/ --run runs/official --splits ham10000.json --every 20 --out results/ham
    """
    console = Console(json=as_json)
    check_flips(tta, flips)
    options = _Options(part, every, spacing, (flips or "both") if tta else None, gallery, device, console)
    if matrix and (average or engines):
        raise UsageError("takes runs, one for each DATA", where="--matrix", fix="leave --average and --engine out")
    if matrix:
        _matrix(data, runs, splits, options, out)
        return
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
        models = [_run(run, device) for run in runs]
        models += [opened.enter_context(_engine(engine, device, trust)) for engine in engines]
        if average:
            result, values, text = _average(data[0], lists, models, options, out)
        else:
            result = _evaluate(data[0], lists, models[0], options, out)
            values, text = result.summary, evaluation_text(result.summary, out)
    if compare is not None:
        found = _compare(result, compare, out)
        values, text = {**values, "comparison": found}, f"{text}\n{comparison_line(found, compare)}"
    console.result(values, text)
    _complain(result, out)


@dataclass(frozen=True)
class _Options:
    """What holds for every evaluation of one call."""

    part: str
    every: int
    spacing: tuple[float, float]
    flips: str | None  # to average over
    gallery: int
    device: str | None
    console: Console

    def judge(self, facts: dict[str, Any], progress: Callable[[int, str], None]) -> Judge:
        """How the library is to measure."""
        from gms_rt.evaluate.dataset import Judge

        return Judge(self.spacing, self.gallery, facts, progress)


@dataclass(frozen=True)
class _Model:
    """What is evaluated, and the facts about it for the summary."""

    segmenter: Segmenter
    facts: dict[str, Any]
    run: Path | None = None
    name: str = ""  # of its folder

    def over_flips(self, which: str | None) -> Segmenter:
        """The model, averaged over these flips if any are asked for."""
        if which is None:
            return self.segmenter
        height, width = self.segmenter.height, self.segmenter.width
        return Segmenter(infer_over_flips(self.segmenter.infer, which, height, width), height, width)


def _evaluate(data: Path, lists: Path | None, model: _Model, options: _Options, out: Path) -> Evaluation:
    """One evaluation into its folder."""
    from gms_rt.evaluate.dataset import evaluate

    segmenter = model.over_flips(options.flips)
    cases, chosen = _cases(data, lists, (model,), options, out)
    facts = {**model.facts, **chosen}
    with options.console.progress(f"eval {chosen['data']}", len(cases)) as bar:
        return evaluate(cases, segmenter, out, options.judge(facts, bar.advance))


def _average(
    data: Path, lists: Path | None, models: list[_Model], options: _Options, out: Path
) -> tuple[Evaluation, dict[str, Any], str]:
    """Several models and their average: its evaluation, the JSON values and the text for the screen."""
    from gms_rt.evaluate.dataset import AveragedModel, evaluate_average

    labels = _labels([model.name for model in models])
    averaged = [
        AveragedModel(label, model.over_flips(options.flips), model.facts)
        for label, model in zip(labels, models, strict=True)
    ]
    cases, chosen = _cases(data, lists, models, options, out)
    with options.console.progress(f"eval {chosen['data']}", len(cases)) as bar:
        result = evaluate_average(cases, averaged, out, options.judge(chosen, bar.advance))
    each = {label: one.summary for label, one in result.each.items()}
    values = {**result.average.summary, "each": each, "average_minus_each": result.differences}
    return result.average, values, average_text(result, out)


def _labels(names: list[str]) -> list[str]:
    """Names for rows and folders: those that occur more than once are numbered."""
    plain = ["".join(c if c.isalnum() or c in "-_." else "_" for c in name) for name in names]
    return [
        f"{name}-{1 + plain[:place].count(name)}" if plain.count(name) > 1 else name for place, name in enumerate(plain)
    ]


def _cases(
    data: Path, lists: Path | None, models: Sequence[_Model], options: _Options, out: Path
) -> tuple[list[Case], dict[str, Any]]:
    """The cases that none of the models was trained on, and the facts about the choice for the summary."""
    from gms_rt.data.layouts import recognise
    from gms_rt.evaluate.choice import chosen_cases

    dataset = recognise(data)
    check_apart(out, dataset.root)
    cases, source = chosen_cases(dataset, options.part, file=lists, run=models[0].run, every=options.every)
    for other in models[1:]:
        theirs, _ = chosen_cases(dataset, options.part, file=lists, run=other.run, every=options.every)
        if [case.name for case in theirs] != [case.name for case in cases]:
            raise UsageError(
                f"{models[0].name} and {other.name} keep different cases for the part '{options.part}'",
                where="--average",
                fix="train them on the same lists, or name the cases with --splits",
            )
    chosen = {"data": dataset.name, "split": options.part, "every": options.every, "split_source": source}
    return cases, {"tta": options.flips is not None, "flips": options.flips, **chosen}


def _run(run: Path, device: str | None) -> _Model:
    from gms_rt.cli.extras import train_extra

    train_extra("the evaluation of a run")
    from gms_rt.train.device import torch_device
    from gms_rt.train.predict import segmenter_from_run

    segmenter = segmenter_from_run(run, device=torch_device(device or "cpu"))
    facts = {"run": str(run), "weights_sha256": sha256_file(run / "lmm.safetensors")}
    return _Model(segmenter, facts, run, run.resolve().name)


@contextmanager
def _engine(folder: Path, device: str | None, trust: dict[str, bool]) -> Iterator[_Model]:
    from gms_rt.engine.select import load

    with load(folder, device=device, trust_plans=trust["trust_plans"], trust_device=trust["trust_device"]) as engine:
        manifest = engine.manifest
        facts = {
            "engine": str(folder),
            "precision": manifest.precision,
            "device": engine.runner.info.device,
            "model_sha256": manifest.files.get(manifest.model),
        }
        yield _Model(engine, facts, name=folder.resolve().name)


def _matrix(
    data: tuple[Path, ...], runs: tuple[Path, ...], splits: tuple[Path, ...], options: _Options, out: Path
) -> None:
    from gms_rt.data.layouts import recognise
    from gms_rt.evaluate.published import CROSS, key_of, row

    if len(data) < 2 or len(runs) != len(data) or len(splits) not in (0, len(data)):
        raise UsageError(
            f"{len(data)} data sets, {len(runs)} runs and {len(splits)} split files do not fit together",
            where="--matrix",
            fix="give two or more DATA, a --run for each in their order, and --splits for all or none",
        )
    rows, values = [], {}
    for source, run in zip(data, runs, strict=True):
        model = dataclasses.replace(_run(run, options.device), run=None)  # its lists are of the data it was trained on
        trained = key_of(recognise(source).name)
        for index, target in enumerate(data):
            if target == source:
                continue
            tested = key_of(recognise(target).name)
            name = f"{trained} to {tested}"
            lists = splits[index] if splits else None
            result = _evaluate(target, lists, model, options, out / name.replace(" ", "-"))
            values[name] = result.summary
            rows.append(result_row(name, result.summary))
            if (trained, tested) in CROSS:
                rows.append(row("  published (paper, table 3)", CROSS[trained, tested]))
    write_json(out / "matrix.json", values)
    options.console.result(values, table(rows, header=HEADER))


def _compare(result: Evaluation, other: Path, out: Path) -> dict[str, Any]:
    from gms_rt.evaluate.case_result import read_cases
    from gms_rt.evaluate.comparison import compare_evaluations

    found = compare_evaluations(read_cases(other), result.cases)
    write_json(out / "comparison.json", found)
    return found


def _complain(result: Evaluation, out: Path) -> None:
    failed = [case for case in result.cases if case.error]
    if failed:
        raise CasesFailedError(f"{len(failed)} cases failed, the first: {failed[0].error}", where=out / "cases.csv")
