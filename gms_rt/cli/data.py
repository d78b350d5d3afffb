"""`gms-rt data`: known data sets, preparation of folders, and what is wrong with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from gms_rt.artifacts import write_json
from gms_rt.cli.console import Console
from gms_rt.errors import CasesFailedError


@click.group("data")
def command() -> None:
    """Data sets: which are known, how to prepare them, what is wrong with them.

    \b
    Examples:
      gms-rt data list
      gms-rt data check Dataset_BUSI_with_GT/
      gms-rt data prepare Dataset_BUSI_with_GT/ --splits busi.json --out data/busi
    """


@command.command("list")
@click.argument("root", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def list_command(root: Path | None, as_json: bool) -> None:
    """List the known data sets, and those found in the folders below ROOT.

    \b
    Examples:
      gms-rt data list
      gms-rt data list data/ --json
    """
    from gms_rt.data.known import KNOWN
    from gms_rt.data.layouts import found_below

    found = {} if root is None else found_below(root)
    values = {
        "known": [dataclasses.asdict(entry) for entry in KNOWN],
        "found": [
            {"folder": str(folder), "name": d.name, "layout": d.layout, "cases": len(d.cases)}
            for folder, d in found.items()
        ],
    }
    lines = []
    for entry in KNOWN:
        lines += [
            f"{entry.key:<18} {entry.cases:>6} cases  {entry.subject}",
            f"  from    {entry.site}",
            f"  layout  {entry.layout}",
            f"  terms   {entry.terms}",
        ]
    lines.append("Any folder with images/ and masks/ (equal names) works too.")
    lines += [f"found: {folder} ({d.name}, {d.layout}): {len(d.cases)} cases" for folder, d in found.items()]
    Console(json=as_json).result(values, "\n".join(lines))


@command.command("prepare")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder to write the prepared data set into."
)
@click.option("--splits", type=click.Path(path_type=Path), help="Lists of names: JSON, or the official pickle.")
@click.option("--seed", default=0, show_default=True, help="Seed for lists that are drawn.")
@click.option(
    "--size",
    type=click.IntRange(min=8),
    help="Resize every image to a square of this many pixels  [default: keep the size].",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def prepare_command(data: Path, out: Path, splits: Path | None, seed: int, size: int | None, as_json: bool) -> None:
    """Write DATA as images/, masks/ (merged, 0 and 255) and split.json.

    \b
    Examples:
      gms-rt data prepare Dataset_BUSI_with_GT/ --out data/busi
      gms-rt data prepare HAM10000/ --splits ham10000.json --size 224 --out data/ham10000
    """
    from gms_rt.data.layouts import recognise
    from gms_rt.data.prepare import prepare
    from gms_rt.data.splits import split_dataset

    console = Console(json=as_json)
    dataset = recognise(data)
    split = split_dataset(dataset, file=splits, seed=seed, training=False)
    with console.progress("prepare", len(dataset.cases)) as bar:
        done = prepare(dataset, split, out, size=size, progress=bar.advance)
    text = f"{out}: {done.written} cases written, {done.kept} kept, {len(done.failed)} failed; split: {split.source}"
    value = {"out": str(out), **dataclasses.asdict(done)}
    if done.failed:
        name, why = next(iter(done.failed.items()))
        words = f"{len(done.failed)} cases failed, the first is {name}: {why}"
        console.fail(value, text, CasesFailedError(words, where=data))
    console.result(value, text)


@command.command("check")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--splits", type=click.Path(path_type=Path), help="Lists of names: JSON, or the official pickle.")
@click.option("--seed", default=0, show_default=True, help="Seed for lists that are drawn.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the report as JSON into this file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def check_command(data: Path, splits: Path | None, seed: int, out: Path | None, as_json: bool) -> None:
    """Report what is wrong with DATA: pairs, files, sizes, empty masks, look-alikes across train and test.

    \b
    Examples:
      gms-rt data check busi/ --splits busi.json
      gms-rt data check images-and-masks/ --json
    """
    from gms_rt.data.check import check_dataset
    from gms_rt.data.layouts import recognise
    from gms_rt.data.splits import split_dataset

    console = Console(json=as_json)
    dataset = recognise(data)
    split = split_dataset(dataset, file=splits, seed=seed, training=False)
    with console.progress("check", len(dataset.cases)) as bar:
        report = check_dataset(dataset, split, bar.advance)
    if out is not None:
        write_json(out, report.to_json())
    if report.problems:
        error = CasesFailedError(f"{report.problems} problems", where=data, fix="fix or remove these files")
        console.fail(report.to_json(), report.text(), error)
    console.result(report.to_json(), report.text())
