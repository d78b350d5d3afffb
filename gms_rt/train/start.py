"""What a training starts from: a fresh model that follows from the seed, or the weights of another run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gms_rt.artifacts import sha256_file
from gms_rt.errors import UsageError
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.run import WEIGHTS, load_mapper
from gms_rt.train.recipe import TrainingRecipe


@dataclass(frozen=True)
class Start:
    """The first weights and, where another run gave them, the table of `config.toml` that says so."""

    mapper: LatentMapper
    origin: dict[str, str]
    fitted: bool = True  # whether the levels' statistics are known already; without levels there are none


def first_weights(
    recipe: TrainingRecipe, channels: int, init: Path | None = None, level_channels: tuple[int, ...] = ()
) -> Start:
    """The weights of the run `init`, else random ones that follow from the seed."""
    wanted = recipe.model(channels, level_channels)
    if init is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return Start(LatentMapper(wanted), {}, fitted=not wanted.levels)
    # Its tokenizer may be another one of the same latent space, such as the small copy of a large autoencoder: only
    # the shape must fit.
    mapper = load_mapper(init)
    fitted = mapper.config.levels == wanted.levels
    if not fitted and not mapper.config.levels:
        mapper = _with_levels(mapper, wanted)
    if mapper.config != wanted:
        raise UsageError(
            f"has {mapper.config}, and this training needs {wanted}",
            where=init,
            fix="start from a run with as many latent channels, and set none of the model's keys",
        )
    return Start(mapper, {"run": init.resolve().name, "sha256": sha256_file(init / WEIGHTS)}, fitted)


def _with_levels(mapper: LatentMapper, wanted: LmmConfig) -> LatentMapper:
    """The same model with levels, which change nothing until they are trained."""
    levels = {key: getattr(wanted, key) for key in ("levels", "pooling", "level_channels")}
    grown = LatentMapper(replace(mapper.config, **levels))
    silent = {name: value for name, value in grown.state_dict().items() if name.startswith("levels.")}
    silent = {name: torch.zeros_like(value) if name.endswith("mix.weight") else value for name, value in silent.items()}
    grown.load_state_dict({**mapper.state_dict(), **silent})
    return grown
