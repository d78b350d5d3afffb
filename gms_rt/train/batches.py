"""The batch of each step: from cached latents, or augmented and encoded on the way. Same seed and step, same batch.

A GPU is fed by several processes, steps ahead, from pinned memory; a CPU, which has better uses for its cores, by two
threads and one step ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gms_rt.model.gms import Gms
from gms_rt.model.tokenizer import Tokenizer
from gms_rt.scan.mask import FOREGROUND
from gms_rt.train.frozen_stages import FrozenStages
from gms_rt.train.latents import LatentCache, encode_masks
from gms_rt.train.replay import Replay
from gms_rt.train.samples import Samples, mask_tensor
from gms_rt.train.schedule import Schedule
from gms_rt.train.views_ahead import ViewsAhead, case_numbers

_VIEWS, _NOISE = 0x7669, 0x6E6F
_EXAMPLES = 256  # mask latents that the linear decoder is fitted to


@dataclass(frozen=True)
class Batch:
    """Cases of one step."""

    image: Tensor  # the encoded images: scaled latents and, behind them, the levels that the model sees
    target: Tensor  # scaled latents of the masks
    mask: Tensor  # N×1×H×W of 0 and 1
    names: list[str]  # of the cases, for messages

    def to(self, device: torch.device) -> Batch:
        """The same batch on this device; from pinned memory, without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU copies from by itself."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(self, image=change(self.image), target=change(self.target), mask=change(self.mask))


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


class ReadAhead:
    """The batches of another source, read some steps ahead into pinned memory, for a GPU."""

    def __init__(self, source: BatchSource, schedule: Schedule, threads: int = 2, ahead: int = 8) -> None:
        self._source, self._schedule, self._steps = source, schedule, ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
        self._ahead: dict[int, Future[Batch]] = {}

    def batch(self, step: int) -> Batch:
        """The batch of this step."""
        for number in range(step, min(step + 1 + self._steps, self._schedule.steps)):
            if number not in self._ahead:
                self._ahead[number] = self._pool.submit(self._source.batch, number)
        return self._ahead.pop(step).result().pinned()

    def examples(self) -> tuple[Tensor, Tensor]:
        """Mask latents and masks of some cases, to fit the linear decoder to."""
        return self._source.examples()

    def close(self) -> None:
        """End the readers, and release what they read."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._source.close()


class LiveBatches:
    """Batches of fresh views, encoded when they are asked for; the next steps' pictures are read at the same time.

    On a GPU the encoder computes in `half`.
    """

    def __init__(
        self,
        gms: Gms,
        samples: Samples,
        schedule: Schedule,
        device: torch.device,
        half: torch.dtype = torch.float32,
        stages: FrozenStages | None = None,
    ) -> None:
        self._stages = stages or gms
        self._gms, self._samples, self._schedule, self._device = gms, samples, schedule, device
        self._cuda, self._half = device.type == "cuda", half
        self._encoded = Replay(self._encode) if self._cuda else self._encode_faster
        self._views = ViewsAhead(samples, schedule, device)

    def batch(self, step: int) -> Batch:
        """The batch of this step."""
        images, masks = self._views.views(step)
        drawn = masks[..., None].repeat(1, 1, 1, 3)  # a mask as the tokenizer sees it
        image, target = self._latents(images, drawn, step)
        return Batch(image, target, (masks[:, None] >= FOREGROUND).to(torch.float32), self._views.names(step))

    def examples(self) -> tuple[Tensor, Tensor]:
        """Mask latents and masks of some cases, to fit the linear decoder to."""
        numbers = range(min(len(self._samples), _EXAMPLES))
        masks = [self._samples.view(number, 1)[1] for number in numbers]
        return encode_masks(self._stages, masks), mask_tensor(masks)

    @torch.no_grad()
    def _encode(self, images: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled latents of images, levels behind them, and of masks."""
        half = self._cuda and self._half != torch.float32
        with torch.autocast(self._device.type, dtype=self._half, enabled=half):
            return self._gms.encode_levels(images).float(), self._gms.encode_masks(drawn).float()

    @torch.no_grad()
    def _encode_faster(self, images: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """The same where nobody looks into the encoder."""
        return self._stages.encode_levels(images), self._stages.encode_masks(drawn)

    @torch.no_grad()
    def _latents(self, images: Tensor, drawn: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Scaled latents of images and masks."""
        recipe = self._schedule.recipe
        noisy = bool(np.random.default_rng([recipe.seed, _NOISE, step]).random() < recipe.latent_noise)
        with _moments(self._gms, noisy) as seen:  # which a recording does not meet
            latent, target = (self._encode if noisy else self._encoded)(images, drawn)
        if not noisy:
            return latent, target
        channels = target.shape[1]  # of a latent; levels follow it
        spread = torch.exp(0.5 * seen[0][:, channels:].float().clamp(-30, 20))
        if recipe.latent_noise_scaled:
            spread = spread * self._gms.tokenizer.spec.scale
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        noise = torch.randn(spread.shape, generator=generator)
        if self._cuda:
            noise = noise.pin_memory().to(self._device, non_blocking=True)
        return torch.cat([latent[:, :channels] + spread * noise, latent[:, channels:]], dim=1), target

    def close(self) -> None:
        """End the readers."""
        self._views.close()


def posterior_layer(tokenizer: Tokenizer) -> nn.Module | None:
    """The layer that gives a tokenizer's posterior, mean and log-variance; None where it encodes to a point."""
    autoencoder: Any = getattr(tokenizer, "autoencoder", None)
    if tokenizer.spec.kind not in ("sd-vae", "compvis") or autoencoder is None:
        return None
    quant: nn.Module | None = getattr(autoencoder, "quant_conv", None)
    return autoencoder.encoder if quant is None else quant


@contextmanager
def _moments(gms: Gms, wanted: bool) -> Iterator[list[Tensor]]:
    """Collects the tokenizer's posterior while it encodes."""
    seen: list[Tensor] = []
    layer = posterior_layer(gms.tokenizer) if wanted else None
    if layer is None:
        yield seen
        return
    handle = layer.register_forward_hook(lambda module, given, moments: seen.append(moments))
    try:
        yield seen
    finally:
        handle.remove()
