"""`gms-rt ablate`: the paper's ablations on a data set, trained and evaluated, beside the published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gms_rt.artifacts import write_json
from gms_rt.cli.console import Console, table
from gms_rt.cli.eval import HEADER, result_row
from gms_rt.errors import UsageError


@click.command("ablate")
@click.argument("grid", type=click.Choice(["loss", "tokenizer"]))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", "tokenizers", multiple=True, required=True, metavar="NAME", help="Repeat for the tokenizer grid."
)
@click.option("--recipe", default="paper", show_default=True, help="paper, official, fast or a TOML file.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe; repeatable.")
@click.option("--splits", type=click.Path(path_type=Path), help="Lists of names: JSON, or the official pickle.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda[:N].")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of runs; a second call goes on.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    grid: str,
    data: Path,
    tokenizers: tuple[str, ...],
    recipe: str,
    settings: tuple[str, ...],
    splits: Path | None,
    device: str,
    out: Path,
    as_json: bool,
) -> None:
    """Train and test one model a cell: `loss` (latent, dice, both: table 4) or `tokenizer` (table 5).

    \b
    Examples:
      gms-rt ablate loss busi/ --tokenizer sd-vae --device cuda --out runs/ablate-loss
      gms-rt ablate tokenizer busi/ --tokenizer vq:vq-f8/ --tokenizer sd-vae --out runs/ablate-tokenizer
    """
    if len(tokenizers) < 2 if grid == "tokenizer" else len(tokenizers) != 1:
        raise UsageError(
            f"the {grid} grid cannot work with {len(tokenizers)} tokenizers",
            where="--tokenizer",
            fix="name one for loss, two or more for tokenizer",
        )
    from gms_rt.cli.extras import train_extra

    train_extra("an ablation")
    from gms_rt.data.layouts import recognise
    from gms_rt.evaluate.published import LOSS, TOKENIZER, key_of, row

    console = Console(json=as_json)
    name = key_of(recognise(data).name)
    cells = [("both", t) for t in tokenizers] if grid == "tokenizer" else [(loss, tokenizers[0]) for loss in LOSS]
    published = TOKENIZER if grid == "tokenizer" else LOSS
    rows: list[list[str]] = []
    values: dict[str, Any] = {}
    # A sketched mask loss would stand in for the one that the grid leaves out.
    fixed = ("sketch=0",) if grid == "loss" else ()
    for loss, tokenizer in cells:
        label = tokenizer if grid == "tokenizer" else loss
        folder = out / "".join(c if c.isalnum() or c in "-_" else "_" for c in label)
        console.note(f"{grid}: {label}")
        summary = _cell(data, tokenizer, recipe, (*settings, *fixed, f"loss={loss}"), splits, device, folder, console)
        values[label] = summary
        rows.append(result_row(label, summary))
        known = published.get(label.partition(":")[0], {}).get(name)
        if known is not None:
            rows.append(row(f"  published (paper, table {5 if grid == 'tokenizer' else 4})", known))
    write_json(out / "ablation.json", {"grid": grid, "data": name, "cells": values})
    console.result(values, table(rows, header=HEADER))


def _cell(
    data: Path,
    tokenizer: str,
    recipe: str,
    settings: tuple[str, ...],
    splits: Path | None,
    device: str,
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    """Train one cell, or go on with it, and test it."""
    from gms_rt.cli.train import Bars
    from gms_rt.data.layouts import recognise
    from gms_rt.data.splits import split_dataset
    from gms_rt.evaluate.choice import chosen_cases
    from gms_rt.evaluate.dataset import evaluate
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.scan.segmenter import Segmenter
    from gms_rt.train.device import torch_device
    from gms_rt.train.loop import train
    from gms_rt.train.predict import predictor
    from gms_rt.train.recipe import load_recipe

    chosen, where = load_recipe(recipe, settings), torch_device(device)
    dataset = recognise(data)
    split = split_dataset(dataset, file=splits, seed=chosen.seed, validation=chosen.validation)
    with Bars() as bars:
        train(dataset, split, load_tokenizer(tokenizer), chosen, folder, device=where, resume=True, progress=bars.show)
    predict, size = predictor(folder, device=where)
    cases, source = chosen_cases(dataset, "test", file=splits, run=folder)
    facts = {"run": str(folder), "data": dataset.name, "split": "test", "split_source": source}
    with console.progress("eval", len(cases)) as bar:
        result = evaluate(cases, Segmenter(predict, size, size), folder / "test", facts=facts, progress=bar.advance)
    return result.summary
