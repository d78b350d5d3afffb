"""`gms-rt train`: a data set and a frozen tokenizer, or a comparator by name, to a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gms_rt.artifacts import check_apart
from gms_rt.cli.console import Console, StageBars
from gms_rt.errors import UsageError

if TYPE_CHECKING:
    from gms_rt.train.request import Outcome


def _list_models(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    """Print the registry and end, before DATA is asked for."""
    if wanted:
        from gms_rt.cli.model_list import model_list_text

        click.echo(model_list_text())
        context.exit()


@click.command("train")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--tokenizer", metavar="NAME", help="Frozen autoencoder: a preset (sd-vae, sd-vae-ft-mse, "
              "sdxl-vae, taesd, vq), sd-vae:SOURCE, taesd:SOURCE, vq:SOURCE (a folder or a hub id), onnx:FOLDER or "
              "compvis:FILE.")  # fmt: skip
@click.option("--model", metavar="NAME", help="Train a model that GMS is compared with instead, such as unet; some "
              "need a tokenizer too.")  # fmt: skip
@click.option("--list-models", is_flag=True, is_eager=True, expose_value=False, callback=_list_models,
              help="Print the names that --model takes, their papers and parameters, and exit.")  # fmt: skip
@click.option("--recipe", help="How to train: fast, paper, official, official-ham10000, pixels, diffusion or a TOML "
              "file  [default: fast; with --model pixels, or as --list-models says]")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option("--splits", type=click.Path(path_type=Path), help="File with the names of the train and test cases: JSON "
              "or the official pickle.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run folder to write.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for cached latents  [default: OUT/latents]")
@click.option("--init", type=click.Path(path_type=Path), help="Run whose weights are the first ones (fine-tuning).")
@click.option("--classes", "class_file", type=click.Path(path_type=Path), help="Names, codes and colours of what the "
              "masks show: TOML or dcmqi's JSON.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on where a stopped training was saved.")
@click.option("--device", default="cpu", show_default=True, help="Device to train on: cpu or cuda[:N].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(
    data: Path,
    tokenizer: str | None,
    model: str | None,
    recipe: str | None,
    settings: tuple[str, ...],
    splits: Path | None,
    out: Path,
    cache: Path | None,
    init: Path | None,
    resume: bool,
    device: str,
    class_file: Path | None,
    as_json: bool,
) -> None:
    """Train a latent mapping model on DATA, a data set folder, between the halves of a frozen autoencoder.

    With --model another network is trained with the same data, views, validation and metrics. Its run is a run like any
    other: gms-rt eval, export, build, infer and bench take it.

    \b
    Examples:
      gms-rt train busi/ --tokenizer sd-vae --recipe paper --out runs/busi
      gms-rt train busi/ --tokenizer onnx:taef2/ --splits busi.json --out runs/busi-fast
      gms-rt train glas/ --tokenizer taesd --set latent_epochs=100 --set seed=1 --out runs/glas
      gms-rt train busi/ --tokenizer sd-vae --recipe paper --out runs/busi --resume
      gms-rt train busi/ --tokenizer sd-vae --classes breast-lesion.toml --out runs/busi-named
      gms-rt train busi/ --tokenizer sd-vae --init runs/ham10000 --set latent_epochs=50 --out runs/busi-tuned
      gms-rt train busi/ --model ege-unet --recipe paper --out runs/busi-ege-unet
      gms-rt train busi/ --model sdseg --tokenizer sd-vae --out runs/busi-sdseg
    """
    from gms_rt.cli.extras import train_extra

    train_extra("training")
    from gms_rt.class_lists import classes_from_file
    from gms_rt.data.layouts import recognise
    from gms_rt.data.splits import split_dataset
    from gms_rt.model.comparators.registry import comparator_facts
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.model.run import model_shape
    from gms_rt.train.comparator import train_comparator
    from gms_rt.train.device import torch_device
    from gms_rt.train.loop import train
    from gms_rt.train.recipe import load_recipe
    from gms_rt.train.request import ComparatorRequest, TrainingRequest

    console = Console(json=as_json)
    if tokenizer is None and model is None:
        raise UsageError(
            "what is to be trained?",
            where="--tokenizer, --model",
            fix="give --tokenizer for a latent mapping model, or --model for a comparator (--list-models)",
        )
    facts = None if model is None else comparator_facts(model)
    if facts is not None:
        facts.check_tokenizer(tokenizer is not None)
    recipe = recipe or ("fast" if facts is None else facts.recipe)
    how = load_recipe(recipe, settings, model_shape(init) if init and model is None else None)
    classes = () if class_file is None else classes_from_file(class_file)
    where = torch_device(device)
    dataset = recognise(data)
    check_apart(out, dataset.root)
    split = split_dataset(dataset, file=splits, seed=how.seed, validation=how.validation)
    console.say(
        f"{dataset.name} ({dataset.layout}): {len(split.train)} cases train, {len(split.validation)} validate, "
        f"{len(split.test)} are kept for the test; split: {split.source}"
    )
    frozen = None if tokenizer is None else load_tokenizer(tokenizer, note=console.note)
    if model is not None:
        plain = ComparatorRequest(
            model,
            dataset,
            split,
            how,
            out,
            tokenizer=frozen,
            device=where,
            init=init,
            resume=resume,
            classes=classes,
        )
        with StageBars() as bars:
            outcome = train_comparator(plain, bars.show)
    else:
        assert frozen is not None
        request = TrainingRequest(
            dataset,
            split,
            frozen,
            how,
            out,
            device=where,
            init=init,
            resume=resume,
            cache=cache,
            classes=classes,
        )
        with StageBars() as bars:
            outcome = train(request, bars.show)
    console.result(_values(outcome), _screen(outcome, data, splits))


def _values(outcome: Outcome) -> dict[str, object]:
    return {
        "run": str(outcome.run),
        "validation_dice": outcome.best_dice if outcome.best_dice >= 0 else None,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "seconds": round(outcome.seconds, 1),
        "images_per_second": round(outcome.images_per_second, 2),
        "parameters": outcome.parameters,
    }


def _screen(outcome: Outcome, data: Path, splits: Path | None) -> str:
    best = f"validation Dice {outcome.best_dice:.4f}" if outcome.best_dice >= 0 else "no validation, last weights kept"
    lists = f" --splits {splits}" if splits else ""
    return (
        f"{outcome.run}: {best} (epoch {outcome.best_epoch} of {outcome.epochs}), "
        f"{outcome.seconds:.0f} s, {outcome.images_per_second:.1f} images/s, {outcome.parameters:,} parameters\n"
        f"next: gms-rt eval {data} --run {outcome.run}{lists} --out {outcome.run}/test"
    )
