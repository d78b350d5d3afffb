"""How a model is trained: one frozen dataclass, filled from a small TOML file by name and `key=value` settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from gms_rt.config import config_from_values, read_toml, values_as_set, with_overrides
from gms_rt.errors import ConfigError, UsageError
from gms_rt.model.lmm import LmmConfig

RECIPES = Path(__file__).parent / "recipes"
RENAMED = {"sketch": "linear_decoder"}  # keys of earlier versions, still read
_BASE = "base"  # key of a TOML file: the recipe by name that its keys change
# Keys that earlier versions did not know: where they are not set, a training is the one that it was before them.
VIEW_LATER = (
    "flip_share",
    "quarter_turns",
    "scale",
    "move_share",
    "colour_share",
    "colours",
    "augment_at",
    "image_resize",
    "mask_resize",
    "encode_in",
)
_STEP_LATER = ("latent_noise_scaled", "dice_smooth", "last_batch", "warmup_moves", "patience", "minutes")
LATER = (*VIEW_LATER, *_STEP_LATER, "levels", "pooling")


@dataclass(frozen=True)
class TrainingRecipe:
    """Everything that decides the weights, other than data and tokenizer."""

    # The steps: `latent_epochs` on cached latents alone, then `epochs` with `loss`.
    epochs: int = 1000  # passes over all cases through the tokenizer
    latent_epochs: int = 0  # passes over all cases before them, on cached latents
    batch: int = 8  # cases per step
    loss: Literal["both", "latent", "dice"] = "both"  # distance of the latents, Dice of the drawn masks, or their sum
    latent_weight: float = 1.0  # of the latent loss where it is added to a loss of the mask
    decoded: Literal["output", "all"] = "output"  # which supervised heads are drawn for the Dice loss
    linear_decoder: float = 0.0  # weight of the linear decoder's mask loss in latent epochs; 0 leaves it out
    views: int = 0  # augmented views cached per case; 0 augments and encodes at every step
    # Arithmetic of the frozen encoder for views on a CPU that has it, by OpenVINO: bf16 is several times as fast, and
    # rounds latents to a percent or less. Validation is encoded in fp32. On a GPU `precision` holds for it.
    encode_in: Literal["fp32", "bf16"] = "fp32"
    latent_noise: float = 0.0  # share of steps whose image latent is a posterior sample
    # Whether the posterior's spread is multiplied by the tokenizer's scale, as its mean is. The official program adds
    # it as it is, about five times as much with the Stable Diffusion VAE.
    latent_noise_scaled: bool = True
    dice_smooth: float = 1.0  # pixels added to both sides of the fraction in the Dice loss; only `epochs` use it
    last_batch: Literal["keep", "drop"] = "keep"  # what becomes of an epoch's last cases where they fill no batch
    # The optimiser.
    lr: float = 2e-3  # highest learning rate
    finish_lr: float = 0.0  # learning rate of `epochs` after `latent_epochs`; 0 takes `lr`
    weight_decay: float = 0.01  # of AdamW
    clip: float = 0.0  # norm that gradients are clipped to; 0 does not clip
    anneal: Literal["epoch", "step"] = "epoch"  # how often the learning rate moves along its cosine
    warmup: float = 0.0  # epochs of linear warm-up
    warmup_moves: Literal["step", "epoch"] = "step"  # when it rises; by epochs it starts at 0, which loses the first
    average: float = 0.0  # decay of the running average of the weights, which is then what is kept; 0 keeps the last
    # The model, see `LmmConfig`.
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    groups: int = 16
    deep_supervision: bool = True
    levels: tuple[int, ...] = ()  # strides of the encoder's inner activations that it sees beside the latent
    pooling: Literal["average", "max", "both"] = "average"
    # The pictures: first flips and quarter turns, then one move (rotate, shift, zoom, scale), and the colours.
    size: int = 224  # side in pixels
    augment_at: Literal["size", "native"] = "size"  # resized once, then augmented (fast); or augmented, then resized
    image_resize: Literal["area", "bilinear"] = "area"  # of training views; the rest is resized as `infer` does it
    mask_resize: Literal["half", "nearest"] = "half"  # of training views: foreground by half or more, or nearest pixel
    flip: Literal["none", "horizontal", "both"] = "both"  # directions of the flips that are drawn
    flip_share: float = 0.5  # share of views that are flipped, for each direction
    quarter_turns: float = 0.0  # share of views that are turned by 0, 1, 2 or 3 quarters, each as likely
    move_share: float = 1.0  # share of views that rotate, shift, zoom and scale apply to
    rotate: float = 0.0  # degrees to either side
    shift: float = 0.0  # share of the size
    zoom: float = 1.0  # largest factor, and its inverse the smallest
    scale: float = 0.0  # largest relative change of the size, drawn evenly to either side
    colour_share: float = 1.0  # share of views that the colours change in
    colours: Literal["hsv", "jitter"] = "hsv"  # contrast, then HSV; or four changes in a drawn order, as ColorJitter
    hue: float = 0.0  # share of the circle to either side
    saturation: float = 0.0  # largest relative change
    value: float = 0.0  # largest relative change of the brightness
    contrast: float = 0.0  # largest relative change of the distance to the mean brightness
    # The rest.
    validation: float = 0.1  # share carved from train
    validate_every: int = 1  # epochs
    patience: int = 0  # epochs of the last phase without a better validation, after which it ends; 0 never
    # Minutes of steps and validation after which training ends, inside an epoch where need be; the learning rate then
    # follows the clock, so that it has come down by the end. Two such trainings are not equal bit for bit. 0: never.
    minutes: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # of the forward pass; auto: half on a GPU, else fp32
    seed: int = 0  # of every random choice
    threads: int = 0  # processor threads; 0 takes what torch takes
    save_seconds: float = 20.0  # at most this much work is lost by a kill

    def check(self) -> None:
        """Refuse keys that do not go together, by name."""
        positive = {"batch": self.batch, "size": self.size, "validate_every": self.validate_every, "lr": self.lr}
        positive["dice_smooth"] = self.dice_smooth  # two empty masks would divide nothing by nothing
        for key, number in positive.items():
            if number <= 0:
                raise ConfigError(f"{key} is {number}", where="recipe", fix="give a positive number")
        if self.epochs < 0 or self.latent_epochs < 0 or self.epochs + self.latent_epochs == 0:
            raise ConfigError("there are no epochs to train", where="recipe", fix="set epochs or latent_epochs")
        if self.latent_epochs and not self.views:
            raise ConfigError("latent_epochs need cached views", where="recipe", fix="set views, such as views=16")
        if self.views and self.latent_noise:
            raise ConfigError(
                "cached views have no posterior",
                where="recipe",
                fix="set latent_noise=0 or views=0",
            )
        if self.minutes < 0 or (self.minutes and self.epochs and self.latent_epochs):
            raise ConfigError(
                "minutes is negative, or both epochs and latent_epochs are set, of which the clock can end only one",
                where="recipe",
                fix="set epochs=0 or latent_epochs=0",
            )
        for key in ("validation", "latent_noise", "flip_share", "quarter_turns", "move_share", "colour_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key} is {getattr(self, key)}", where="recipe", fix="give a share between 0 and 1")
        if not 0 <= self.scale < 1:
            raise ConfigError(f"scale is {self.scale}", where="recipe", fix="give 0 or more, and less than 1")
        if self.zoom < 1 or not 0 <= self.average < 1 or self.views < 0 or self.linear_decoder < 0:
            raise ConfigError(
                "zoom is below 1, average is outside 0-1, or views or linear_decoder is negative", where="recipe"
            )

    def check_stride(self, stride: int) -> None:
        """Refuse a size that a tokenizer of this stride cannot divide into whole latents."""
        if self.size % stride:
            raise UsageError(
                f"size {self.size} is not a multiple of the tokenizer's {stride}",
                where="--set size",
                fix=f"use size={round(self.size / stride) * stride}",
            )

    def for_pixels(self) -> TrainingRecipe:
        """The same for a network that has no tokenizer, without what concerns latents.

        An epoch's last cases are dropped where they fill no batch: batch normalisation learns nothing from one case.
        """
        if self.latent_epochs:
            raise ConfigError(
                "the recipe trains on latents first, and a comparator has none",
                where="--recipe",
                fix="use --recipe pixels or paper, or set latent_epochs=0",
            )
        return replace(
            self,
            views=0,
            latent_noise=0.0,
            linear_decoder=0.0,
            finish_lr=0.0,
            levels=(),
            encode_in="fp32",
            last_batch="drop",
        )

    def model(self, latent_channels: int, level_channels: tuple[int, ...] = ()) -> LmmConfig:
        """The shape of the latent mapping model, for a tokenizer with so many channels."""
        plain = LmmConfig(latent_channels, self.width, self.multipliers, self.groups, self.deep_supervision)
        return replace(plain, levels=self.levels, pooling=self.pooling, level_channels=level_channels)

    def to_values(self) -> dict[str, Any]:
        """Plain values, without later keys that are not set."""
        return values_as_set(self, LATER)


def recipe_names() -> list[str]:
    """The recipes that come with the program."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str, settings: Iterable[str] = (), shape: LmmConfig | None = None) -> TrainingRecipe:
    """A recipe by name or TOML file, with the shape of a model to start from and then settings applied."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        raise ConfigError(f"unknown recipe '{name}'", fix=f"use {', '.join(recipe_names())} or a TOML file")
    recipe = config_from_values(TrainingRecipe, _values(path), where=path)
    if shape is not None:
        keys = {field.name for field in fields(recipe)}  # how many channels come in is the tokenizer's
        recipe = replace(recipe, **{key: value for key, value in asdict(shape).items() if key in keys})
    recipe = with_overrides(recipe, (_current_key(setting) for setting in settings))
    recipe.check()
    return recipe


def _values(path: Path) -> dict[str, Any]:
    """The keys of a TOML file under their present names, over those of the recipe that it is based on."""
    values = {RENAMED.get(key, key): value for key, value in read_toml(path).items()}
    base = values.pop(_BASE, None)
    if base is None:
        return values
    if base not in recipe_names() or base == path.stem:
        raise ConfigError(f"unknown base '{base}'", where=path, fix=f"name one of {', '.join(recipe_names())}")
    return {**_values(RECIPES / f"{base}.toml"), **values}


def _current_key(setting: str) -> str:
    key, sign, value = setting.partition("=")
    return f"{RENAMED.get(key.strip(), key)}{sign}{value}"
