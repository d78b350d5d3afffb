"""How a model is trained: one frozen dataclass, filled from a small TOML file by name and `key=value` settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from gms_rt.config import configured, read_toml, with_overrides
from gms_rt.errors import ConfigError, UsageError
from gms_rt.model.lmm import LmmConfig

RECIPES = Path(__file__).parent / "recipes"
Value = str | int | float | bool | list[int] | list[float] | list[str]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside data and tokenizer."""

    # The steps: `latent_epochs` on cached latents alone, then `epochs` with `loss`.
    epochs: int = 1000
    latent_epochs: int = 0
    batch: int = 8
    loss: Literal["both", "latent", "dice"] = "both"
    latent_weight: float = 1.0  # of the latent loss beside the Dice loss
    decoded: Literal["output", "all"] = "output"  # which supervised heads are drawn for the Dice loss
    sketch: float = 0.0  # weight of the sketched mask's loss in steps on cached latents; 0 leaves it out
    views: int = 0  # augmented views cached a case; 0 augments and encodes at every step
    latent_noise: float = 0.0  # share of steps whose image latent is a posterior sample
    # The optimiser.
    lr: float = 2e-3
    finish_lr: float = 0.0  # learning rate of `epochs` after `latent_epochs`; 0 takes `lr`
    weight_decay: float = 0.01
    clip: float = 0.0  # norm that gradients are clipped to; 0 does not clip
    anneal: Literal["epoch", "step"] = "epoch"
    warmup: float = 0.0  # epochs of linear warm-up
    average: float = 0.0  # decay of the running average of the weights, which is then what is kept; 0 keeps the last
    # The model.
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    groups: int = 16
    deep_supervision: bool = True
    # The pictures.
    size: int = 224
    flip: Literal["none", "horizontal", "both"] = "both"
    rotate: float = 0.0  # degrees to either side
    shift: float = 0.0  # share of the size
    zoom: float = 1.0  # largest factor, and its inverse the smallest
    hue: float = 0.0  # share of the circle to either side
    saturation: float = 0.0  # these three: largest relative change
    value: float = 0.0
    contrast: float = 0.0
    # The rest.
    validation: float = 0.1  # share carved from train
    validate_every: int = 1  # epochs
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = 0
    threads: int = 0  # processor threads; 0 takes what torch takes
    save_seconds: float = 20.0  # at most this much work is lost by a kill

    def checked(self) -> Recipe:
        """Itself, or an error that names the keys that do not go together."""
        positive = {"batch": self.batch, "size": self.size, "validate_every": self.validate_every, "lr": self.lr}
        for key, number in positive.items():
            if number <= 0:
                raise ConfigError(f"{key} is {number}", where="recipe", fix="give a positive number")
        if self.epochs < 0 or self.latent_epochs < 0 or self.epochs + self.latent_epochs == 0:
            raise ConfigError("there is no epoch to train", where="recipe", fix="set epochs or latent_epochs")
        if self.latent_epochs and not self.views:
            raise ConfigError("latent_epochs need cached views", where="recipe", fix="set views, such as views=16")
        if self.views and self.latent_noise:
            raise ConfigError("cached views hold no posterior", where="recipe", fix="set latent_noise=0 or views=0")
        for key, share in (("validation", self.validation), ("latent_noise", self.latent_noise)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{key} is {share}", where="recipe", fix="give a share between 0 and 1")
        if self.zoom < 1 or not 0 <= self.average < 1 or self.views < 0 or self.sketch < 0:
            raise ConfigError("zoom is below 1, average outside 0-1, or views or sketch negative", where="recipe")
        return self

    def check_stride(self, stride: int) -> None:
        """Refuse pictures that a tokenizer cannot cut into whole latents."""
        if self.size % stride:
            raise UsageError(
                f"size {self.size} is not a multiple of the tokenizer's {stride}",
                where="--set size",
                fix=f"use size={round(self.size / stride) * stride}",
            )

    def model(self, latent_channels: int) -> LmmConfig:
        """The shape of the latent mapping model."""
        return LmmConfig(latent_channels, self.width, self.multipliers, self.groups, self.deep_supervision)

    def table(self) -> dict[str, Value]:
        """Plain values for `config.toml`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def recipe_names() -> list[str]:
    """The recipes that come with the program."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str, settings: Iterable[str] = (), shape: LmmConfig | None = None) -> Recipe:
    """A recipe by name or TOML file, with the shape of a model to start from and then settings applied."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"unknown recipe '{name}'", fix=f"use {', '.join(recipe_names())} or a TOML file")
    recipe = configured(Recipe, read_toml(path), where=path)
    if shape is not None:
        recipe = replace(recipe, **{key: value for key, value in asdict(shape).items() if key != "latent_channels"})
    return with_overrides(recipe, settings).checked()
