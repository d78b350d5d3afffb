"""What a training is asked for, and what it reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gms_rt.classes import SegmentClass
from gms_rt.data.layouts import Dataset
from gms_rt.data.splits import Split
from gms_rt.model.tokenizer import Tokenizer
from gms_rt.train.recipe import TrainingRecipe

Progress = Callable[[str, int, int, str], None]  # stage, done, total, note


@dataclass(frozen=True)
class TrainingRequest:
    """One training: the data, the frozen part, how to train, and where to write."""

    dataset: Dataset
    split: Split  # its test cases are never read
    tokenizer: Tokenizer  # stays frozen
    recipe: TrainingRecipe
    out: Path  # the run folder
    device: str = "cpu"  # a name for torch, see `torch_device`
    init: Path | None = None  # a run whose weights are the first ones; None starts from random weights
    resume: bool = False  # go on with the training that was stopped in `out`; else a run there is refused
    cache: Path | None = None  # folder of cached latents; None takes `out`/latents
    classes: tuple[SegmentClass, ...] = ()  # what the masks show, kept in the run; empty names nothing


@dataclass(frozen=True)
class ComparatorRequest:
    """One training of a comparator: the model, the data, how to train, and where to write."""

    model: str  # its name in the registry
    dataset: Dataset
    split: Split  # its test cases are never read
    recipe: TrainingRecipe  # what it says of latents does not count, see `for_pixels`
    out: Path  # the run folder
    tokenizer: Tokenizer | None = None  # stays frozen; for a model that works in its latents
    device: str = "cpu"  # a name for torch, see `torch_device`
    init: Path | None = None  # a run of the same model whose weights are the first ones
    resume: bool = False  # go on with the training that was stopped in `out`; else a run there is refused
    classes: tuple[SegmentClass, ...] = ()  # what the masks show, kept in the run; empty names nothing


@dataclass(frozen=True)
class Outcome:
    """What a training reached."""

    run: Path
    best_dice: float  # on the validation cases; -1 where there are none
    best_epoch: int  # the epoch of the weights that were kept, from 1; -1 before any was
    epochs: int  # all epochs of the recipe
    seconds: float  # spent in steps and validation, over all resumes
    images_per_second: float  # over all epochs
    parameters: int  # of what was trained
