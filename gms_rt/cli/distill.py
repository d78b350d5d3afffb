"""`gms-rt distill`: a trained run teaches an edge student."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gms_rt.artifacts import check_apart
from gms_rt.cli.console import Console, StageBars
from gms_rt.errors import UsageError

if TYPE_CHECKING:
    from gms_rt.distill.request import Distilled
    from gms_rt.model.student import StudentShape

_BUDGET = 1.0  # GFLOP
_INT8_EPOCHS = 10


@click.command("distill")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data set folder, as for gms-rt train.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The student's run folder to write.")
@click.option("--budget-gflop", type=float, help=f"Operations for one picture, in GFLOP  [default: {_BUDGET:g}]")
@click.option("--budget", metavar="TIME", help="Time for one picture on this machine's CPU, such as 2ms: students with "
              "random weights are timed, and the largest that fits is trained.")  # fmt: skip
@click.option("--sweep", metavar="GFLOP,…", help="Train several sizes, each with and without the teacher, and print "
              "the table of all; OUT is their folder. The same command again goes on.")  # fmt: skip
@click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True,
              help="Cases that a sweep is measured on.")  # fmt: skip
@click.option("--unlabelled", type=click.Path(path_type=Path), multiple=True, metavar="DIR", help="Pictures without "
              "masks, which the teacher alone teaches; repeatable.")  # fmt: skip
@click.option("--also", type=click.Path(path_type=Path), multiple=True, metavar="RUN", help="Another run that teaches: "
              "what the average of all says; repeatable.")  # fmt: skip
@click.option("--no-teacher", is_flag=True, help="Train the same student on the ground truth alone.")
@click.option("--int8", is_flag=True, help="End with epochs in the arithmetic of an INT8 engine (10, or the recipe's "
              "int8_epochs), so that INT8 costs little.")  # fmt: skip
@click.option("--init", type=click.Path(path_type=Path), help="Student's run whose weights are the first ones.")
@click.option("--recipe", default="edge", show_default=True, help="How to train: edge or a TOML file.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
@click.option("--epochs", type=click.IntRange(min=1), help="The same as --set epochs=N.")
@click.option("--splits", type=click.Path(path_type=Path), help="File with the names of the train and test cases: JSON "
              "or the official pickle.")  # fmt: skip
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for what the teacher says of each picture  "
              "[default: OUT/teacher]")  # fmt: skip
@click.option("--classes", "class_file", type=click.Path(path_type=Path), help="Names, codes and colours of what the "
              "masks show: TOML or dcmqi's JSON  [default: the teacher's]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on where a stopped training was saved.")
@click.option("--device", default="cpu", show_default=True, help="Device to train on: cpu or cuda[:N].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(
    run: Path,
    data: Path,
    out: Path,
    budget_gflop: float | None,
    budget: str | None,
    sweep: str | None,
    split: str,
    unlabelled: tuple[Path, ...],
    also: tuple[Path, ...],
    no_teacher: bool,
    int8: bool,
    init: Path | None,
    recipe: str,
    settings: tuple[str, ...],
    epochs: int | None,
    splits: Path | None,
    cache: Path | None,
    class_file: Path | None,
    resume: bool,
    device: str,
    as_json: bool,
) -> None:
    """Train a small network of the whole, from picture to mask, on what the trained RUN says and on the ground truth.

    The student is a run like any other: gms-rt export, build, infer, eval and bench take it.

    \b
    Examples:
      gms-rt distill runs/ham10000 --data ham10000/ --out runs/ham10000-edge
      gms-rt distill runs/busi --data busi/ --budget-gflop 0.5 --epochs 400 --out runs/busi-edge
      gms-rt distill runs/busi --data busi/ --budget 2ms --out runs/busi-edge
      gms-rt distill runs/busi --data busi/ --sweep 0.25,0.5,1,2 --out runs/busi-sweep
      gms-rt distill runs/busi --data busi/ --unlabelled archive/ --out runs/busi-edge
      gms-rt distill runs/busi --data busi/ --set mixed=8 --set teacher_finish=1 --out runs/busi-edge
      gms-rt distill runs/seed0 --also runs/seed1 --data busi/ --out runs/busi-edge
      gms-rt distill runs/busi --data busi/ --no-teacher --out runs/busi-plain
      gms-rt distill runs/busi --data busi/ --init runs/ham10000-edge --out runs/busi-tuned
    """
    from gms_rt.cli.extras import train_extra

    train_extra("distilling")
    from gms_rt.class_lists import classes_from_file
    from gms_rt.data.layouts import recognise
    from gms_rt.data.splits import split_dataset
    from gms_rt.distill.loop import distill
    from gms_rt.distill.recipe import load_distill_recipe
    from gms_rt.distill.request import DistillRequest
    from gms_rt.model.run import check_run
    from gms_rt.model.size import trained_size
    from gms_rt.model.student import student_shape
    from gms_rt.model.student_run import shape_from_run
    from gms_rt.train.device import torch_device

    console = Console(json=as_json)
    check_run(run)
    more = [f"epochs={epochs}"] if epochs else []
    how = load_distill_recipe(recipe, (f"size={trained_size(run)}", *settings, *more))
    how = how.untaught() if no_teacher else how
    if int8 and not how.int8_epochs:
        how = replace(how, int8_epochs=_INT8_EPOCHS)
    named = [
        name for name, value in (("--budget-gflop", budget_gflop), ("--budget", budget), ("--sweep", sweep)) if value
    ]
    if len(named) > 1:
        raise UsageError("say the size in two ways", where=" and ".join(named), fix="give one of them")
    if also and (no_teacher or sweep):
        told = "has no teacher" if no_teacher else "compares students of one teacher"
        where = "--no-teacher" if no_teacher else "--sweep"
        raise UsageError(f"{where} {told}", where="--also", fix=f"leave --also or {where} away")
    if budget_gflop is not None and not budget_gflop > 0:
        raise UsageError(f"{budget_gflop:g} is not a budget", where="--budget-gflop", fix="give a number above 0")
    if init is not None and not named:
        shape = shape_from_run(init)
    elif budget is not None:
        shape = _shape_within(budget, how.size, console)
    else:
        shape = student_shape(budget_gflop or _BUDGET, how.size)
    classes = () if class_file is None else classes_from_file(class_file)
    where = torch_device(device)
    dataset = recognise(data)
    check_apart(out, dataset.root)
    lists = split_dataset(dataset, file=splits, seed=how.seed, validation=how.validation)
    console.say(
        f"{dataset.name} ({dataset.layout}): {len(lists.train)} cases train, {len(lists.validation)} validate, "
        f"{len(lists.test)} are kept for the test; split: {lists.source}"
    )
    request = DistillRequest(
        run,
        dataset,
        lists,
        shape,
        how,
        out,
        unlabelled=unlabelled,
        device=where,
        init=init,
        resume=resume,
        cache=cache,
        also=also,
        classes=classes,
    )
    if sweep is not None:
        from gms_rt.cli.distill_sweep import budgets_from_text, sweep_and_print

        sweep_and_print(request, budgets_from_text(sweep), split, console)
        return
    with StageBars() as bars:
        found = distill(request, bars.show)
    console.result(_values(found), _screen(found, data, splits))


def _shape_within(budget: str, size: int, console: Console) -> StudentShape:
    """The largest student that takes at most so long on this machine."""
    from gms_rt.distill.speed import fast_execution, shape_within

    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|us|s)\s*", budget)
    if found is None or not float(found[1]):
        raise UsageError(f"'{budget}' is not a time", where="--budget", fix="give one with its unit, such as 2ms")
    wanted = float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]
    timed = shape_within(
        wanted, size, lambda tried: console.note(f"{tried.gflop:.2f} GFLOP: {tried.milliseconds:.2f} ms")
    )
    console.say(f"{timed.gflop:.2f} GFLOP take {timed.milliseconds:.2f} ms here ({fast_execution()}), of {wanted:g} ms")
    return timed.shape


def _values(found: Distilled) -> dict[str, object]:
    outcome = found.outcome
    return {
        "run": str(outcome.run),
        "validation_dice": outcome.best_dice if outcome.best_dice >= 0 else None,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "seconds": round(outcome.seconds, 1),
        "images_per_second": round(outcome.images_per_second, 2),
        "parameters": outcome.parameters,
        "gflop": round(found.gflop, 4),
        "taught": found.taught,
        "pictures": found.pictures,
        "without_mask": found.without_mask,
        "mixed": found.mixed,
        "int8_validation_dice": found.int8_dice if found.int8_dice is not None and found.int8_dice >= 0 else None,
    }


def _screen(found: Distilled, data: Path, splits: Path | None) -> str:
    outcome = found.outcome
    best = f"validation Dice {outcome.best_dice:.4f}" if outcome.best_dice >= 0 else "no validation, last weights kept"
    lists = f" --splits {splits}" if splits else ""
    taught = "taught" if found.taught else "without a teacher"
    if found.int8_dice is not None and found.int8_dice >= 0:
        best += f", {found.int8_dice:.4f} as INT8"
    return (
        f"{outcome.run}: {found.gflop:.2f} GFLOP, {taught}: {best} (epoch {outcome.best_epoch} of {outcome.epochs}), "
        f"{outcome.seconds:.0f} s, {outcome.images_per_second:.1f} images/s, {outcome.parameters:,} parameters\n"
        f"next: gms-rt eval {data} --run {outcome.run}{lists} --out {outcome.run}/test"
    )
