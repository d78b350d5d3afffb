"""`gms-rt eval`: Dice, IoU and HD95 of a run or an engine on a data set; cross-domain tables; paired comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gms_rt.artifacts import check_apart, sha256_file, write_json
from gms_rt.cli.console import Console, table
from gms_rt.cli.trust_options import trust_options
from gms_rt.errors import CasesFailedError, UsageError
from gms_rt.infer.flips import FLIPS, check_flips, infer_over_flips
from gms_rt.scan.segmenter import Segmenter

if TYPE_CHECKING:
    from gms_rt.evaluate.dataset import Evaluation

HEADER = ["", "DSC", "IoU", "HD95"]


@click.command("eval")
@click.argument("data", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "--run",
    "runs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Run folder to evaluate; with --matrix one for each DATA.",
)
@click.option("--engine", type=click.Path(path_type=Path), help="Engine folder to evaluate.")
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
    engine: Path | None,
    part: str,
    splits: tuple[Path, ...],
    every: int,
    spacing: tuple[float, float],
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
      gms-rt eval --matrix busi/ bus/ --run runs/busi --run runs/bus --out results/cross
      gms-rt eval ham10000/ --run runs/official --splits ham10000.json --every 20 --out results/ham
    """
    console = Console(json=as_json)
    check_flips(tta, flips)
    options = _Options(part, every, spacing, (flips or "both") if tta else None, gallery, device, console)
    if matrix:
        _matrix(data, runs, splits, options, out)
        return
    if len(data) != 1 or len(runs) + (engine is not None) != 1 or len(splits) > 1:
        raise UsageError(
            "needs one DATA, and one --run or --engine",
            where="gms-rt eval",
            fix="gms-rt eval DATA --run RUN --out OUT; several with --matrix",
        )
    lists = splits[0] if splits else None
    if engine is not None:
        with _engine(engine, device, trust) as model:
            result = _evaluate(data[0], lists, model, options, out)
    else:
        result = _evaluate(data[0], lists, _run(runs[0], device), options, out)
    values, text = result.summary, _screen(result.summary, out)
    if compare is not None:
        values, text = _compare(result, compare, out, text)
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


@dataclass(frozen=True)
class _Model:
    """What is evaluated, and the facts about it for the summary."""

    segmenter: Segmenter
    facts: dict[str, Any]
    run: Path | None = None


def _evaluate(data: Path, lists: Path | None, model: _Model, options: _Options, out: Path) -> Evaluation:
    """One evaluation into its folder."""
    from gms_rt.data.layouts import recognise
    from gms_rt.evaluate.choice import chosen_cases
    from gms_rt.evaluate.dataset import evaluate

    dataset = recognise(data)
    check_apart(out, dataset.root)
    cases, source = chosen_cases(dataset, options.part, file=lists, run=model.run, every=options.every)
    segmenter = model.segmenter
    if options.flips:
        height, width = segmenter.height, segmenter.width
        segmenter = Segmenter(infer_over_flips(segmenter.infer, options.flips, height, width), height, width)
    chosen = {"data": dataset.name, "split": options.part, "every": options.every, "split_source": source}
    facts = {**model.facts, "tta": options.flips is not None, "flips": options.flips, **chosen}
    with options.console.progress(f"eval {dataset.name}", len(cases)) as bar:
        return evaluate(
            cases,
            segmenter,
            out,
            spacing=options.spacing,
            gallery=options.gallery,
            facts=facts,
            progress=bar.advance,
        )


def _run(run: Path, device: str | None) -> _Model:
    from gms_rt.cli.extras import train_extra

    train_extra("the evaluation of a run")
    from gms_rt.train.device import torch_device
    from gms_rt.train.predict import segmenter_from_run

    segmenter = segmenter_from_run(run, device=torch_device(device or "cpu"))
    facts = {"run": str(run), "weights_sha256": sha256_file(run / "lmm.safetensors")}
    return _Model(segmenter, facts, run)


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
        yield _Model(engine, facts)


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


def result_row(label: str, summary: dict[str, Any]) -> list[str]:
    """DSC and IoU in percent and HD95, at 224x224 as published."""
    return [label, *_cells(summary["at_224"])]


def _cells(at: dict[str, Any]) -> list[str]:
    factors = {"dice": 100, "iou": 100, "hd95": 1}
    return [f"{at[name]['mean'] * factor:.2f}" if at[name] else "-" for name, factor in factors.items()]


def _screen(summary: dict[str, Any], out: Path) -> str:
    from gms_rt.evaluate.published import GMS, key_of, row

    rows = [["at source size", *_cells(summary["source_size"])], result_row("at 224x224", summary)]
    published = GMS.get(key_of(str(summary["data"])))
    rows += [row("published (paper, SD-VAE, 224x224)", published)] if published else []
    counts = summary["cases"]
    low, high = summary["source_size"]["dice"]["interval95"] if summary["source_size"]["dice"] else (0.0, 0.0)
    return "\n".join(
        [
            table(rows, header=HEADER),
            f"{counts['all']} cases: {counts['hit']} hits, {counts['miss']} misses, "
            f"{counts['false_alarm']} false alarms, {counts['both_empty']} both empty, {counts['failed']} failed",
            f"DSC at source size, 95 % interval {100 * low:.2f}-{100 * high:.2f}",
            f"{out}/cases.csv, {out}/summary.json, {out}/failures/",
        ]
    )


def _compare(result: Evaluation, other: Path, out: Path, text: str) -> tuple[dict[str, Any], str]:
    from gms_rt.evaluate.comparison import compare_evaluations
    from gms_rt.evaluate.dataset import read_cases

    found = compare_evaluations(read_cases(other), result.cases)
    write_json(out / "comparison.json", found)
    dice, area = found["dice"], found["area"]
    low, high = dice["interval95"]
    line = (
        f"against {other}: Dice {dice['difference']:+.4f} ({low:+.4f} to {high:+.4f}), "
        f"Wilcoxon p {dice['wilcoxon_p']:.3g}, {found['pairs']} pairs; "
        f"area bias {area['bias']:+.0f} pixels ({area['low']:+.0f} to {area['high']:+.0f})"
    )
    return {**result.summary, "comparison": found}, f"{text}\n{line}"


def _complain(result: Evaluation, out: Path) -> None:
    failed = [case for case in result.cases if case.error]
    if failed:
        raise CasesFailedError(f"{len(failed)} cases failed, the first: {failed[0].error}", where=out / "cases.csv")
