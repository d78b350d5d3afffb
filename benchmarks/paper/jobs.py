"""The work as jobs. A job is a row of commands and the file that they leave; what it needs is done before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gms_rt.evaluate.published_systems import PAIRS, systems_of_table
from paper.order import Folder, Order
from paper.systems import GMS, VIEWS, Command, Done, clock_settings, next_training, registered_models

ABLATED = ("busi", "ham10000", "kvasir-instrument")  # tables 4 and 5
ONE = {"1": ("bus", "busi"), "2": ("glas", "ham10000", "kvasir-instrument")}  # tables of one training a cell
LOSSES = ("latent", "dice", "both")


@dataclass(frozen=True)
class Job:
    """One piece of work."""

    key: str  # its folder below the work folder
    title: str
    next_command: Callable[[Sequence[Done]], Command | None]  # given those that are over
    result: Path  # what is there when it is done
    minutes: float = 0.0  # that its trainings take, by the clock; 0: not known, or none
    needs: str = ""  # key of the job before it
    system: str = ""  # that it trains or tests
    images: Folder | None = None  # that are looked at once, where nothing is trained
    trained_on: Folder | None = None
    trainings: int = 1
    allowed: tuple[int, ...] = (0, 5)  # exit codes; 5: some cases failed, the rest are written and the numbers say so


def one_command(command: Command) -> Callable[[Sequence[Done]], Command | None]:
    """A job of a single command."""
    return lambda done: None if done else command


def can_train(system: str) -> bool:
    """Whether this program has the system."""
    return system == GMS or system in registered_models()


def jobs_of_order(order: Order) -> list[Job]:
    """Everything that a call needs, in order, each job once; what has no data or no model is left out."""
    found: dict[str, Job] = {}
    for table in order.tables:
        for job in _jobs_of_table(table, order):
            found.setdefault(job.key, job)
    return list(found.values())


def _jobs_of_table(table: str, order: Order) -> Iterator[Job]:
    if table in ONE or table == "figures":
        wanted = ONE.get(table) or tuple(key for each in ONE.values() for key in each)
        for name in wanted:
            for system in _trained(order):
                if folder := order.folder(name):
                    yield training(system, folder, order)
                    yield testing(system, folder, order)
    elif table == "3":
        for first, second in PAIRS:
            for system in _trained(order, table=3):
                source, target = order.folder(first), order.folder(second)
                if source and target:
                    yield training(system, source, order)
                    yield crossing(system, source, target, order)
    elif table in ("4", "5"):
        for name in ABLATED:
            if (folder := order.folder(name)) and (table == "4" or len(order.tokenizers) > 1):
                yield ablation("loss" if table == "4" else "tokenizer", folder, order)
    else:
        for name in order.data:
            for tokenizer in order.tokenizers:
                yield reconstruction(order.data[name], tokenizer, order)


def _trained(order: Order, table: int = 1) -> list[str]:
    rows = [system.key for system in systems_of_table(table)]
    return [key for key in rows if key in order.systems and can_train(key)]


def run_of(system: str, name: str, order: Order) -> Path:
    """The run folder of a system trained on a data set."""
    return order.work / "train" / system / name


def training(system: str, folder: Folder, order: Order) -> Job:
    """One system on one data set."""
    run = run_of(system, folder.key, order)
    return Job(
        f"train/{system}/{folder.key}",
        f"train {system} on {folder.key}",
        lambda done: next_training(system, folder, order, run, done),
        run / "config.toml",
        minutes=order.minutes,
        system=system,
        trained_on=folder,
    )


def testing(system: str, folder: Folder, order: Order) -> Job:
    """A trained system on the test part of its own data."""
    out = order.work / "test" / system / folder.key
    lists = ("--splits", str(folder.splits)) if folder.splits else ()
    command = ("eval", str(folder.path), "--run", str(run_of(system, folder.key, order)), *lists)
    return Job(
        f"test/{system}/{folder.key}",
        f"test {system} on {folder.key}",
        one_command((*command, *_how(order), "--out", str(out))),
        out / "summary.json",
        needs=f"train/{system}/{folder.key}",
        system=system,
        images=folder,
    )


def crossing(system: str, source: Folder, target: Folder, order: Order) -> Job:
    """A trained system on every case of another data set."""
    out = order.work / "cross" / system / f"{source.key}-{target.key}"
    command = ("eval", "--matrix", str(source.path), str(target.path), "--run")
    return Job(
        f"cross/{system}/{source.key}-{target.key}",
        f"test {system} of {source.key} on {target.key}",
        one_command((*command, str(run_of(system, source.key, order)), *_how(order), "--out", str(out))),
        out / "matrix.json",
        needs=f"train/{system}/{source.key}",
        system=system,
        images=target,
    )


def ablation(grid: str, folder: Folder, order: Order) -> Job:
    """One of the paper's ablations on one data set."""
    out = order.work / f"ablate-{grid}" / folder.key
    tokenizers = order.tokenizers if grid == "tokenizer" else (order.tokenizer,)
    cells = len(tokenizers) if grid == "tokenizer" else len(LOSSES)
    settings = tuple(
        w for setting in (*VIEWS[folder.key], *clock_settings(order), *order.settings) for w in ("--set", setting)
    )
    lists = ("--splits", str(folder.splits)) if folder.splits else ()
    named = tuple(word for tokenizer in tokenizers for word in ("--tokenizer", tokenizer))
    command = ("ablate", grid, str(folder.path), *named, "--recipe", "paper", *settings, *lists)
    return Job(
        f"ablate-{grid}/{folder.key}",
        f"ablate the {grid} on {folder.key}",
        one_command((*command, "--device", order.device, "--out", str(out))),
        out / "ablation.json",
        minutes=cells * order.minutes,
        system=GMS,
        trained_on=folder,
        trainings=cells,
    )


def reconstruction(folder: Folder, tokenizer: str, order: Order) -> Job:
    """What a tokenizer loses of a data set's test part."""
    safe = safe_name(tokenizer)
    out = order.work / "reconstruct" / safe / folder.key
    lists = ("--splits", str(folder.splits)) if folder.splits else ()
    command = ("eval", str(folder.path), "--reconstruct", "--tokenizer", tokenizer, *lists, *_how(order))
    return Job(
        f"reconstruct/{safe}/{folder.key}",
        f"reconstruct {folder.key} with {tokenizer}",
        one_command((*command, "--out", str(out))),
        out / "reconstruction.json",
        images=folder,
    )


def safe_name(text: str) -> str:
    """A name as a folder's."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)


def _how(order: Order) -> Command:
    every = ("--every", str(order.every)) if order.every > 1 else ()
    return (*every, "--device", order.device)
