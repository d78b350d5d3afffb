"""`gms-rt ablate`: the paper's ablations on a data set, trained and evaluated, next to the published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gms_rt.artifacts import check_apart, write_json
from gms_rt.cli.console import Console, StageBars, table
from gms_rt.cli.eval_text import HEADER, metric_notes, published_row, result_row
from gms_rt.errors import UsageError

if TYPE_CHECKING:
    from gms_rt.train.recipe import TrainingRecipe
    from gms_rt.train.request import TrainingRequest


@click.command("ablate")
@click.argument("grid", type=click.Choice(["loss", "tokenizer"]))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer",
    "tokenizers",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Frozen autoencoder, as for gms-rt train; repeat it for the tokenizer grid.",
)
@click.option(
    "--recipe",
    default="paper",
    show_default=True,
    help="How to train: fast, paper, official, official-ham10000 or a TOML file.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option(
    "--splits",
    type=click.Path(path_type=Path),
    help="File with the names of the train and test cases: JSON or the official pickle.",
)
@click.option("--device", default="cpu", show_default=True, help="Device to train and test on: cpu or cuda[:N].")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of runs to write; the same command again goes on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
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
    """Train and test one model per cell of a grid: `loss` (latent, dice, both: table 4) or `tokenizer` (table 5).

    \b
    Examples:
      gms-rt ablate loss busi/ --tokenizer sd-vae --device cuda --out runs/ablate-loss
      gms-rt ablate tokenizer busi/ --tokenizer vq --tokenizer sd-vae --out runs/ablate-tokenizer
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
    from gms_rt.data.splits import split_dataset
    from gms_rt.evaluate.published import LOSS, TOKENIZER, key_of
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.train.device import torch_device
    from gms_rt.train.recipe import load_recipe
    from gms_rt.train.request import TrainingRequest

    console = Console(json=as_json)
    dataset, where = recognise(data), torch_device(device)
    check_apart(out, dataset.root)
    name = key_of(dataset.name)
    cells = [("both", t) for t in tokenizers] if grid == "tokenizer" else [(loss, tokenizers[0]) for loss in LOSS]
    published = TOKENIZER if grid == "tokenizer" else LOSS
    rows: list[list[str]] = []
    values: dict[str, Any] = {}
    if grid == "loss":
        _check_losses(load_recipe(recipe, settings))
    for loss, tokenizer in cells:
        label = tokenizer if grid == "tokenizer" else loss
        folder = out / "".join(c if c.isalnum() or c in "-_" else "_" for c in label)
        console.note(f"{grid}: {label}")
        how = load_recipe(recipe, (*settings, f"loss={loss}"))
        split = split_dataset(dataset, file=splits, seed=how.seed, validation=how.validation)
        cache = out / "latents" if grid == "loss" else None  # the losses differ, the latents do not
        frozen = load_tokenizer(tokenizer, note=console.note)
        request = TrainingRequest(dataset, split, frozen, how, folder, device=where, resume=True, cache=cache)
        values[label] = summary = _train_and_test(request, splits, console)
        rows.append(result_row(label, summary))
        known = published.get(label.partition(":")[0], {}).get(name)
        if known is not None:
            rows.append(published_row(f"  published (paper, table {5 if grid == 'tokenizer' else 4})", known))
    write_json(out / "ablation.json", {"grid": grid, "data": name, "cells": values})
    notes = metric_notes(next(iter(values.values())), published=len(rows) > len(values))
    console.result(values, "\n".join([table(rows, header=HEADER), *notes]))


def _check_losses(recipe: TrainingRecipe) -> None:
    """Refuse a recipe with steps in which every cell would learn the same loss."""
    if recipe.latent_epochs:
        every = recipe.latent_epochs + recipe.epochs
        raise UsageError(
            f"{recipe.latent_epochs} of its {every} epochs learn from latents alone, whichever loss a cell is named "
            "after",
            where="--recipe",
            fix=f"use --recipe paper, or --set latent_epochs=0 --set epochs={every}, which keeps the cached views",
        )


def _train_and_test(request: TrainingRequest, splits: Path | None, console: Console) -> dict[str, Any]:
    """Train one cell, or go on with it, and test it."""
    from gms_rt.evaluate.choice import chosen_cases
    from gms_rt.evaluate.dataset import Judge, evaluate
    from gms_rt.train.loop import train
    from gms_rt.train.predict import segmenter_from_run

    with StageBars() as bars:
        train(request, bars.show)
    run, dataset = request.out, request.dataset
    segmenter = segmenter_from_run(run, device=request.device)
    cases, source = chosen_cases(dataset, "test", file=splits, run=run)
    facts = {"run": str(run), "data": dataset.name, "split": "test", "split_source": source}
    with console.progress("eval", len(cases)) as bar:
        result = evaluate(cases, segmenter, run / "test", Judge(facts=facts, progress=bar.advance))
    return result.summary
