"""The batch of each step: from cached latents, or augmented and encoded on the way. Same seed and step, same batch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gms_rt.model.gms import Gms
from gms_rt.train.latents import LatentCache, encode_masks, mask_image
from gms_rt.train.recipe import TrainingRecipe
from gms_rt.train.samples import Samples, mask_tensor
from gms_rt.train.schedule import Schedule

_ORDER, _VIEWS, _NOISE = 0x6F72, 0x7669, 0x6E6F
_EXAMPLES = 256  # mask latents that the linear decoder is fitted to


@dataclass(frozen=True)
class Batch:
    """Cases of one step."""

    image: Tensor  # the encoded images: scaled latents and, behind them, the levels that the model sees
    target: Tensor  # scaled latents of the masks
    mask: Tensor  # N×1×H×W of 0 and 1
    names: list[str]  # of the cases, for messages

    def to(self, device: torch.device) -> Batch:
        """The same batch on this device."""
        return Batch(self.image.to(device), self.target.to(device), self.mask.to(device), self.names)


class BatchSource(Protocol):
    """Gives the batch of a step."""

    def batch(self, step: int) -> Batch:
        """The batch of this step."""

    def examples(self) -> tuple[Tensor, Tensor]:
        """Mask latents and masks of some cases, to fit the linear decoder to."""

    def close(self) -> None:
        """Release files and threads."""


class CachedBatches:
    """Batches of cached views, one view per case and epoch."""

    def __init__(self, cache: LatentCache, samples: Samples, schedule: Schedule) -> None:
        self._cache, self._samples, self._schedule = cache, samples, schedule

    def batch(self, step: int) -> Batch:
        """The batch of this step."""
        epoch = self._schedule.place(step).epoch
        numbers = case_numbers(self._schedule, step)
        drawn = np.random.default_rng([self._schedule.recipe.seed, _VIEWS, epoch])
        views = drawn.integers(0, self._cache.views, self._cache.cases)[numbers]
        image, target, mask = self._cache.batch(numbers.tolist(), views.tolist())
        return Batch(image, target, mask, [self._samples.cases[n].name for n in numbers])

    def examples(self) -> tuple[Tensor, Tensor]:
        """Mask latents and masks of some cases, to fit the linear decoder to."""
        cases = range(min(self._cache.cases, _EXAMPLES))
        _, targets, masks = self._cache.batch(cases, [case % self._cache.views for case in cases])
        return targets, masks

    def close(self) -> None:
        """Nothing to release."""


class LiveBatches:
    """Batches of fresh views, encoded when they are asked for; the next step's pictures are read at the same time."""

    def __init__(self, gms: Gms, samples: Samples, schedule: Schedule, device: torch.device) -> None:
        self._gms, self._samples, self._schedule, self._device = gms, samples, schedule, device
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="views")
        self._ahead: dict[int, list[Future[Any]]] = {}

    def batch(self, step: int) -> Batch:
        """The batch of this step."""
        waiting = self._ahead.pop(step, None) or self._ask(step)
        if step + 1 < self._schedule.steps and step + 1 not in self._ahead:
            self._ahead[step + 1] = self._ask(step + 1)
        pairs = [future.result() for future in waiting]
        images = torch.from_numpy(np.stack([image for image, _ in pairs])).to(self._device)
        masks = [mask for _, mask in pairs]
        drawn = torch.from_numpy(np.stack([mask_image(mask) for mask in masks])).to(self._device)
        target = self._gms.encode_masks(drawn)
        names = [self._samples.cases[n].name for n in case_numbers(self._schedule, step)]
        return Batch(self._latent(images, step), target, mask_tensor(masks), names)

    def examples(self) -> tuple[Tensor, Tensor]:
        """Mask latents and masks of some cases, to fit the linear decoder to."""
        numbers = range(min(len(self._samples), _EXAMPLES))
        masks = [self._samples.view(number, 1)[1] for number in numbers]
        return encode_masks(self._gms, masks), mask_tensor(masks)

    def _ask(self, step: int) -> list[Future[Any]]:
        # View 0 is the plain picture, which only validation sees.
        view = self._schedule.place(step).epoch + 1
        return [self._pool.submit(self._samples.view, int(n), view) for n in case_numbers(self._schedule, step)]

    def _latent(self, images: Tensor, step: int) -> Tensor:
        recipe = self._schedule.recipe
        if np.random.default_rng([recipe.seed, _NOISE, step]).random() >= recipe.latent_noise:
            return self._gms.encode_levels(images)
        with _moments(self._gms) as seen:
            latent = self._gms.encode_levels(images)
        if not seen:
            return latent
        spec = self._gms.tokenizer.spec
        spread = torch.exp(0.5 * seen[0][:, spec.channels :].float().clamp(-30, 20)) * spec.scale
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        noise = torch.randn(spread.shape, generator=generator).to(latent.device)
        return torch.cat([latent[:, : spec.channels] + spread * noise, latent[:, spec.channels :]], dim=1)

    def close(self) -> None:
        """End the readers."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def case_numbers(schedule: Schedule, step: int) -> NDArray[np.int64]:
    """The case numbers of a step: every epoch is a new order of all cases."""
    recipe: TrainingRecipe = schedule.recipe
    place = schedule.place(step)
    order = np.random.default_rng([recipe.seed, _ORDER, place.epoch]).permutation(schedule.cases)
    return np.asarray(order[place.batch * recipe.batch : (place.batch + 1) * recipe.batch], np.int64)


@contextmanager
def _moments(gms: Gms) -> Iterator[list[Tensor]]:
    """Collects the tokenizer's posterior (mean and log-variance) while it encodes; empty where it has none."""
    seen: list[Tensor] = []
    layer = getattr(getattr(gms.tokenizer, "autoencoder", None), "quant_conv", None)
    if layer is None:
        yield seen
        return
    handle = layer.register_forward_hook(lambda module, given, moments: seen.append(moments))
    try:
        yield seen
    finally:
        handle.remove()
