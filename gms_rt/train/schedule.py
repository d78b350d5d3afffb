"""Which step belongs to which epoch and phase, and the learning rate there: all from the step's number alone, unless
the recipe gives minutes; then the rate follows the clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gms_rt.train.recipe import TrainingRecipe

_WARM_SHARE = 0.05  # of the minutes, at most


@dataclass(frozen=True)
class Place:
    """A step's place in the training."""

    epoch: int  # of both phases, from 0
    batch: int  # within the epoch, from 0
    phase: str  # "latent" or "image"
    lr: float
    last_of_epoch: bool
    last_of_phase: bool
    spent: float | None = None  # share of the recipe's minutes that is over; None where it gives none


@dataclass(frozen=True)
class Schedule:
    """The steps of a training of `cases` cases."""

    recipe: TrainingRecipe
    cases: int

    @property
    def batches(self) -> int:
        """Steps per epoch."""
        if self.recipe.last_batch == "drop":
            return max(1, self.cases // self.recipe.batch)  # fewer cases than a batch are one step all the same
        return -(-self.cases // self.recipe.batch)

    @property
    def images(self) -> int:
        """Images per epoch."""
        return min(self.cases, self.batches * self.recipe.batch)

    @property
    def epochs(self) -> int:
        """All epochs of both phases."""
        return self.recipe.latent_epochs + self.recipe.epochs

    @property
    def steps(self) -> int:
        """All steps."""
        return self.epochs * self.batches

    def place(self, step: int) -> Place:
        """The place of this step (from 0)."""
        epoch, batch = divmod(step, self.batches)
        latent = epoch < self.recipe.latent_epochs
        first, length = (0, self.recipe.latent_epochs) if latent else (self.recipe.latent_epochs, self.recipe.epochs)
        last = batch == self.batches - 1
        lr = self._rate(latent, epoch - first, batch, length)
        return Place(epoch, batch, "latent" if latent else "image", lr, last, last and epoch - first == length - 1)

    def rate_at(self, place: Place, share: float) -> float:
        """The learning rate at a place of a training of so many minutes, of which this share is over."""
        recipe, warmth = self.recipe, 1.0
        if recipe.warmup:
            risen = (place.epoch * self.batches + place.batch + 1) / (recipe.warmup * self.batches)
            warmth = min(1.0, max(risen, share / _WARM_SHARE))
        top = recipe.finish_lr if place.phase == "image" and recipe.finish_lr else recipe.lr
        return top * warmth * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def _rate(self, latent: bool, epoch: int, batch: int, length: int) -> float:
        recipe = self.recipe
        top = recipe.lr if latent or not recipe.finish_lr else recipe.finish_lr
        now = epoch if recipe.anneal == "epoch" else epoch + batch / self.batches
        warm = min(recipe.warmup, length / 2)
        if now < warm and recipe.warmup_moves == "epoch":
            return top * min(1.0, epoch / max(warm - 1, 1))
        if now < warm:
            # The first rate is not 0, or the first steps would be lost.
            return top * (epoch * self.batches + batch + 1) / (warm * self.batches)
        return top * 0.5 * (1 + math.cos(math.pi * (now - warm) / (length - warm)))
