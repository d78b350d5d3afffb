"""The systems, and how each is trained: verbs of gms-rt, the same data, split, views and time for all.

With `--minutes`, a system may use so many minutes of wall time, encoding included. A comparator trains for all of them
with its own recipe, most with `pixels`; one that needs a frozen tokenizer gets that of GMS, or a VQ one where it needs
codes.
GMS trains as its recipe `fast` does: a part is spent on encoding augmented views, most of the rest on latents alone,
and a fifth through the decoder. How many views fit is measured, and the measuring counts. Without `--minutes` each
trains as the recipe `paper` says, for 1000 epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gms_rt.evaluate.published_systems import BY_KEY
from gms_rt.model.comparators.registry import COMPARATORS, comparator_facts
from paper.order import Folder, Order

Command = tuple[str, ...]  # a verb of gms-rt and its arguments

GMS, STUDENT = "gms", "student"
# The views of a data set, for every system: ultrasound has an up and a down, tissue and skin have none.
VIEWS = {
    "bus": ("flip=horizontal", "rotate=20", "shift=0.1", "zoom=1.3", "hue=0", "saturation=0", "contrast=0.3"),
    "busi": ("flip=horizontal", "rotate=20", "shift=0.1", "zoom=1.3", "hue=0", "saturation=0", "contrast=0.3"),
    "glas": ("flip=both", "rotate=180", "shift=0.06", "zoom=1.3", "hue=0.05", "saturation=0.3", "contrast=0.3"),
    "ham10000": ("flip=both", "rotate=180", "shift=0.06", "zoom=1.25", "hue=0.03", "saturation=0.2", "contrast=0.2"),
    "kvasir-instrument": ("flip=both", "rotate=30", "shift=0.06", "zoom=1.25", "hue=0.03", "saturation=0.2"),
}
_EPOCHS = "1000"  # of the paper
_LONG = "100000"  # epochs that no clock lets end
# Share of the time for views, at most; share of the rest for latents alone. With 0.4 in place of 0.75, BUSI, eight
# minutes, taef2 with levels: Dice on validation 0.674 in place of 0.711.
_ENCODING, _LATENTS = 0.4, 0.75
_MOST_VIEWS = 32


@dataclass(frozen=True)
class Done:
    """A command that is over."""

    command: Command
    seconds: float


def known_systems() -> list[str]:
    """What can be asked for: the systems of the published tables, and the models that these do not name."""
    return list(dict.fromkeys([*BY_KEY, *(facts.name for facts in COMPARATORS)]))


def title_of(system: str) -> str:
    """A system's name for people: as the paper writes it, where it does."""
    if system == STUDENT:
        return "GMS, edge student"
    return BY_KEY[system].title if system in BY_KEY else comparator_facts(system).title


def registered_models() -> set[str]:
    """The comparators that can be trained here: a few need a package that may not be installed."""
    return {facts.name for facts in COMPARATORS if facts.installed}


def missing_model(system: str) -> str:
    """Why a system of the tables that is not registered here cannot be trained."""
    if any(facts.name == system for facts in COMPARATORS):
        return "not installed: pip install 'gms-rt[comparators]'"
    return "no such model in this program"


def next_training(system: str, folder: Folder, order: Order, run: Path, done: Sequence[Done]) -> Command | None:
    """The next command of a training, given those that are over; None when it is trained."""
    if system == GMS and order.minutes:
        return _next_of_gms(folder, order, run, done)
    if done:
        return None
    what = ("--tokenizer", order.tokenizer) if system == GMS else _model(system, order)
    recipe = "pixels" if system == GMS else comparator_facts(system).recipe
    if order.minutes:
        return _train(folder, order, run, what, ("--recipe", recipe), clock_settings(order))
    if recipe == "pixels":
        return _train(folder, order, run, what, ("--recipe", "paper"), ())
    return _train(folder, order, run, what, ("--recipe", recipe), (f"epochs={_EPOCHS}",))


def clock_settings(order: Order) -> Command:
    """The settings by which the clock ends a training; none without minutes."""
    return (f"minutes={order.minutes:g}", f"epochs={_LONG}", "validate_every=5") if order.minutes else ()


def _model(system: str, order: Order) -> Command:
    """A comparator by its name, and the frozen tokenizer that it needs."""
    kind = comparator_facts(system).tokenizer
    if kind is None:
        return ("--model", system)
    with_codes = [name for name in order.tokenizers if name.partition(":")[0] == "vq"]
    return ("--model", system, "--tokenizer", order.tokenizer if kind != "vq" else (*with_codes, "vq")[0])


def _next_of_gms(folder: Folder, order: Order, run: Path, done: Sequence[Done]) -> Command | None:
    """Measure one view, encode as many as fit, train on latents, finish through the decoder."""
    what, fast = ("--tokenizer", order.tokenizer), ("--recipe", "fast")
    left = order.minutes - sum(each.seconds for each in done) / 60
    parts = run.parent / f"{run.name}-parts"  # by name: the last of them is the run itself
    encoding = (f"latent_epochs={_LONG}", "epochs=0", "minutes=0.001")  # and a single step
    first = (*fast, "--cache", str(parts / "one-view"))
    if not done:
        return _train(folder, order, parts / "measured", what, first, ("views=1", *encoding))
    views = max(1, min(_MOST_VIEWS, int(_ENCODING * order.minutes / (done[0].seconds / 60) + 1e-9) - 1))
    kept = (f"views={views}", "validate_every=5")
    # Where no more than one view fits, as on large data, it is the one that was measured.
    cached, begun = (first, 1) if views == 1 else ((*fast, "--cache", str(parts / "views")), 2)
    if len(done) < begun:
        return _train(folder, order, parts / "encoded", what, cached, (*kept, *encoding))
    if len(done) == begun:
        clock = (f"minutes={max(left * _LATENTS, 0.001):.4f}", f"latent_epochs={_LONG}", "epochs=0")
        return _train(folder, order, parts / "latents", what, cached, (*kept, *clock))
    if len(done) == begun + 1:
        clock = (f"minutes={max(left, 0.001):.4f}", "latent_epochs=0", f"epochs={_LONG}", "lr=4e-4", "warmup=0")
        return _train(folder, order, run, what, (*cached, "--init", str(parts / "latents")), (*kept, *clock))
    return None


def _train(folder: Folder, order: Order, out: Path, what: Command, how: Command, settings: Sequence[str]) -> Command:
    lists = ("--splits", str(folder.splits)) if folder.splits else ()
    every = (*VIEWS[folder.key], *settings, *order.settings)
    chosen = tuple(word for setting in every for word in ("--set", setting))
    device = ("--device", order.device)
    return ("train", str(folder.path), *what, *how, *chosen, *lists, *device, "--out", str(out), "--resume")
