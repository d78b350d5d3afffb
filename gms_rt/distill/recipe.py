"""How a student is trained: one frozen dataclass, filled from a small TOML file by name and `key=value` settings.

Keys of steps and views mean what they mean in `TrainingRecipe`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from gms_rt.config import config_from_values, read_toml, values_as_set, with_overrides
from gms_rt.errors import ConfigError
from gms_rt.train.recipe import TrainingRecipe

RECIPES = Path(__file__).parent / "recipes"
LATER = ("minutes", "teacher_flips", "mixed")  # keys that earlier versions did not know


@dataclass(frozen=True)
class DistillRecipe:
    """Everything that decides a student's weights, other than its shape, the data and the teacher."""

    # The losses.
    teacher_weight: float = 1.0  # of what the teacher says, beside the ground truth
    teacher_finish: float = 0.0  # that weight at the end; it moves there evenly, epoch by epoch
    # Flips and turns over which the teacher's soft masks are averaged, each picture once, before training.
    teacher_flips: Literal["none", "horizontal", "both", "quarter-turns"] = "none"
    mixed: int = 0  # pictures made of each that has a mask, warped and mixed: the teacher alone teaches them
    latent_weight: float = 0.1  # of the distance to the teacher's mask latent, within what the teacher says
    plain_share: float = 0.25  # share of views that are not moved: the teacher's latents hold for these alone
    # The steps.
    epochs: int = 100  # passes over all pictures, at most
    # Minutes of steps and validation after which `epochs` end; rate and teacher's weight follow the clock. 0: never.
    minutes: float = 0.0
    int8_epochs: int = 0  # passes behind them in which the student computes as its INT8 engine will; 0: none
    batch: int = 32  # pictures per step
    last_batch: Literal["keep", "drop"] = "drop"  # what becomes of an epoch's last pictures where they fill no batch
    lr: float = 2e-3  # highest learning rate
    int8_lr: float = 2e-4  # the same in `int8_epochs`
    weight_decay: float = 0.02  # of AdamW
    clip: float = 1.0  # norm that gradients are clipped to; 0 does not clip
    warmup: float = 3.0  # epochs of linear warm-up
    average: float = 0.998  # decay of the running average of the weights, which is then what is kept; 0 keeps the last
    # The views.
    size: int = 224  # side of the pictures in pixels: the teacher's
    flip: Literal["none", "horizontal", "both"] = "both"
    flip_share: float = 0.5
    quarter_turns: float = 0.0
    move_share: float = 1.0
    rotate: float = 180.0  # degrees to either side
    shift: float = 0.08  # share of the size
    zoom: float = 1.3  # largest factor, and its inverse the smallest
    colour_share: float = 0.8
    hue: float = 0.03  # share of the circle to either side
    saturation: float = 0.25  # largest relative change
    value: float = 0.25
    contrast: float = 0.25
    # The rest.
    validation: float = 0.1  # share carved from train
    validate_every: int = 1  # epochs
    patience: int = 0  # epochs without a better validation, after which the training ends; 0 never
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = 0
    threads: int = 0
    save_seconds: float = 20.0

    def check(self) -> None:
        """Refuse values that mean nothing, by name."""
        self.steps().check()
        for key in ("teacher_weight", "teacher_finish", "latent_weight", "mixed", "int8_epochs", "int8_lr"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{key} is negative", where="recipe", fix="give 0 or more")
        if not 0 <= self.plain_share <= 1:
            raise ConfigError(f"plain_share is {self.plain_share}", where="recipe", fix="give a share between 0 and 1")
        if not self.epochs:
            raise ConfigError("there are no epochs to train", where="recipe", fix="set epochs")

    def steps(self) -> TrainingRecipe:
        """The keys that steps and schedules read."""
        shared = {field.name for field in fields(TrainingRecipe)} & {field.name for field in fields(self)}
        return replace(TrainingRecipe(**{name: getattr(self, name) for name in shared}), anneal="step")

    def int8_phase(self) -> DistillRecipe:
        """The recipe of the epochs in which the student computes as INT8 will; the teacher's weight is its last."""
        weight = self.teacher_finish
        phase = replace(self, epochs=self.int8_epochs, minutes=0.0, lr=self.int8_lr, teacher_weight=weight)
        return replace(phase, warmup=min(self.warmup, self.int8_epochs / 10), patience=0, latent_weight=0.0)

    def teaching(self, epoch: int, spent: float | None = None) -> float:
        """The weight of what the teacher says in this epoch, or when this share of the minutes is over."""
        share = min(1.0, epoch / max(self.epochs - 1, 1) if spent is None else spent)
        return self.teacher_weight + (self.teacher_finish - self.teacher_weight) * share

    @property
    def taught(self) -> bool:
        """Whether a teacher has a say at all."""
        return max(self.teacher_weight, self.teacher_finish) > 0

    def untaught(self) -> DistillRecipe:
        """The same without a teacher."""
        return replace(self, teacher_weight=0.0, teacher_finish=0.0, mixed=0)

    def to_values(self) -> dict[str, Any]:
        """Plain values, without later keys that are not set: a training of an earlier version goes on."""
        return values_as_set(self, LATER)


def distill_recipe_names() -> list[str]:
    """The recipes that come with the program."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_distill_recipe(name: str, settings: Iterable[str] = ()) -> DistillRecipe:
    """A recipe by name or TOML file, with settings applied."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"unknown recipe '{name}'", fix=f"use {', '.join(distill_recipe_names())} or a TOML file")
    recipe = with_overrides(config_from_values(DistillRecipe, read_toml(path), where=path), settings)
    recipe.check()
    return recipe
