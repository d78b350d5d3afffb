"""What a training starts from: a fresh model that follows from the seed, or the weights of another run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from gms_rt.artifacts import sha256_file
from gms_rt.errors import UsageError
from gms_rt.model.lmm import LatentMapper
from gms_rt.model.run import WEIGHTS, load_mapper
from gms_rt.train.recipe import TrainingRecipe


@dataclass(frozen=True)
class Start:
    """The first weights and, where another run gave them, the table of `config.toml` that says so."""

    mapper: LatentMapper
    origin: dict[str, str]


def first_weights(recipe: TrainingRecipe, channels: int, init: Path | None = None) -> Start:
    """The weights of the run `init`, else random ones that follow from the seed."""
    wanted = recipe.model(channels)
    if init is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return Start(LatentMapper(wanted), {})
    # Its tokenizer may be another one of the same latent space, such as the small copy of a large autoencoder: only
    # the shape must fit.
    mapper = load_mapper(init)
    if mapper.config != wanted:
        raise UsageError(
            f"has {mapper.config}, and this training needs {wanted}",
            where=init,
            fix="start from a run with as many latent channels, and set none of the model's keys",
        )
    return Start(mapper, {"run": init.resolve().name, "sha256": sha256_file(init / WEIGHTS)})
