"""Training of a comparator: the same data, views, steps, validation and checkpoints as `train`.

The loss is cross entropy plus 1 - Dice of each picture, which most of the models' own papers train with; further
outputs that a paper supervises are added with its weights. A model that does not learn so says its loss itself. The
best weights on validation become `comparator.safetensors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gms_rt.artifacts import sha256_file, sha256_json, write_json
from gms_rt.class_lists import CLASSES, classes_value
from gms_rt.data.splits import write_split
from gms_rt.errors import UsageError
from gms_rt.model.comparators.network import Comparator, LearnsItsOwnWay
from gms_rt.model.comparators.registry import comparator_facts
from gms_rt.model.comparators.run import comparator_from_run, save_comparator
from gms_rt.model.kind import COMPARATOR_WEIGHTS, CONFIG
from gms_rt.model.mask_loss import mask_loss
from gms_rt.model.run import fill, write_weights
from gms_rt.scan.mask import FOREGROUND
from gms_rt.train.checkpoint import STATE
from gms_rt.train.device import tuned_torch
from gms_rt.train.interrupt import StopRequest, stop_requests
from gms_rt.train.pixel_validation import PixelValidation, image_pixels
from gms_rt.train.request import ComparatorRequest, Outcome, Progress
from gms_rt.train.samples import Samples
from gms_rt.train.schedule import Place, Schedule
from gms_rt.train.steps import Ground, Steps
from gms_rt.train.views_ahead import ViewsAhead

_VALIDATED = 16  # pictures at once


def train_comparator(request: ComparatorRequest, progress: Progress | None = None) -> Outcome:
    """Train a comparator into a run folder, from scratch or from another run's weights."""
    out, recipe = request.out, request.recipe.for_pixels()
    if not request.resume and any((out / name).exists() for name in (STATE, COMPARATOR_WEIGHTS)):
        raise UsageError("already contains a run", where=out, fix="go on with --resume, or choose another --out")
    with tuned_torch(recipe.threads), stop_requests() as stop:
        return _ComparatorTraining(replace(request, recipe=recipe), stop, progress).run()


@dataclass(frozen=True)
class PictureBatch:
    """Views of one step, on the training's device."""

    image: Tensor  # N×3×H×W from 0 to 1
    mask: Tensor  # N×1×H×W of 0 and 1
    names: list[str]  # of the cases, for messages


class PictureBatches:
    """Batches of fresh views."""

    def __init__(self, samples: Samples, schedule: Schedule, device: torch.device) -> None:
        self._views = ViewsAhead(samples, schedule, device)

    def batch(self, step: int) -> PictureBatch:
        """The batch of this step."""
        images, masks = self._views.views(step)
        return PictureBatch(image_pixels(images), (masks[:, None] >= FOREGROUND).float(), self._views.names(step))

    def close(self) -> None:
        """End the readers."""
        self._views.close()


class _ComparatorTraining:
    """A comparator as what is trained, and the order of the parts of its training."""

    repeatable = False  # BatchNorm counts its batches

    def __init__(self, request: ComparatorRequest, stop: StopRequest, progress: Progress | None) -> None:
        recipe, dataset, split = request.recipe, request.dataset, request.split
        self.request, self.recipe, self.out = request, recipe, request.out
        self.device = torch.device(request.device)
        self.network, origin = _first_comparator(request)
        own = isinstance(self.network.network, LearnsItsOwnWay)
        self.columns: tuple[str, ...] = ("loss",) if own else ("loss", "entropy_loss", "dice_loss")
        self.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        data = {"name": dataset.name, "folder": str(dataset.root.resolve()), "split": split.source}
        self.tables: dict[str, dict[str, Any]] = {"training": recipe.to_values(), "data": data}
        if origin:
            self.tables["origin"] = origin
        self.samples = Samples(dataset.named(split.train), recipe)
        self.validation = self._held_out(Samples(dataset.named(split.validation), recipe))
        self.schedule = Schedule(recipe, len(self.samples))
        ground = Ground(recipe, self.schedule, self.out, self.device, comparator_fingerprint(request, origin))
        tell = progress or (lambda stage, done, total, note: None)
        self.steps: Steps[PictureBatch] = Steps(self, ground, stop, tell)

    def run(self) -> Outcome:
        if not self.steps.restore():
            self.steps.start_average()
        write_split(self.out / "split.json", self.request.split)
        if self.request.classes:  # named anew at a resume: they change no weight
            write_json(self.out / CLASSES, classes_value(self.request.classes))
        source = PictureBatches(self.samples, self.schedule, self.device)
        try:
            self.steps.run(source)
        finally:
            source.close()
        return self.steps.outcome(self.network.parameter_count)

    def inputs(self, batch: PictureBatch, place: Place) -> tuple[PictureBatch, Place]:
        """The batch as it is, and where the step stands."""
        return batch, place

    def losses(self, batch: PictureBatch, place: Place) -> tuple[Tensor, ...]:
        """The total; of it, the cross entropy and the Dice loss of the result, where the logits are compared."""
        with _drawn_from(self.recipe.seed, place, self.device):
            own = self.network.training_loss(batch.image, batch.mask)
            if own is not None:
                return (own,)
            said = [(weight, logits.float()) for weight, logits in self.network.supervised(batch.image)]
        each = [(weight, mask_loss(logits, batch.mask).mean()) for weight, logits in said]
        total = torch.stack([weight * loss for weight, loss in each]).sum()
        entropy = F.binary_cross_entropy_with_logits(said[0][1].detach(), batch.mask)
        return total, entropy, each[0][1].detach() - entropy

    def score(self, weights: dict[str, Tensor]) -> tuple[float, float] | None:
        """Mean Dice and loss of the validation cases."""
        return self.validation.score(weights) if self.validation else None

    def keep(self, weights: dict[str, Tensor]) -> None:
        """Write the run with these weights."""
        if (self.out / CONFIG).is_file():  # only the weights have changed
            write_weights(self.out / COMPARATOR_WEIGHTS, weights)
        else:
            save_comparator(self.out, self.network, self.tables, weights=weights)

    def _held_out(self, samples: Samples) -> PixelValidation | None:
        if not len(samples):
            return None
        pairs = [samples.plain(number) for number in range(len(samples))]
        images, masks = (np.stack(part) for part in zip(*pairs, strict=True))
        return PixelValidation(self.network, images, masks, self.device, _VALIDATED)


def comparator_fingerprint(request: ComparatorRequest, origin: dict[str, str]) -> dict[str, str]:
    """What must be equal for a resume to be the same training."""
    # How often it is saved and on how many threads it runs are the user's business at any time.
    parts: dict[str, Any] = {
        "recipe": replace(request.recipe, save_seconds=0.0, threads=0).to_values(),
        "model": request.model,
        "split": [request.split.train, request.split.validation],
    }
    hashes = {name: sha256_json(value) for name, value in parts.items()}
    tokenizer = "" if request.tokenizer is None else request.tokenizer.weights_sha256()
    return {**hashes, "tokenizer": tokenizer, "start": origin.get("sha256", "")}


def _first_comparator(request: ComparatorRequest) -> tuple[Comparator, dict[str, str]]:
    """The model before its first step, and the table of `config.toml` that says where its weights come from."""
    facts, recipe = comparator_facts(request.model), request.recipe
    if request.tokenizer is not None:
        recipe.check_stride(request.tokenizer.spec.stride)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        comparator = Comparator(facts, recipe.size, request.tokenizer)
    if request.init is None:
        return comparator, {}
    theirs = comparator_from_run(request.init)
    if theirs.facts != facts or (facts.fixed_size and theirs.size != recipe.size):
        raise UsageError(
            f"is a {theirs.facts.title} for {theirs.size}x{theirs.size}, and this training is of a {facts.title} for "
            f"{recipe.size}x{recipe.size}",
            where=request.init,
            fix="start from a run of the same model and size",
        )
    weights = request.init / COMPARATOR_WEIGHTS
    fill(comparator, weights)
    return comparator, {"run": request.init.resolve().name, "sha256": sha256_file(weights)}


@contextmanager
def _drawn_from(seed: int, place: Place, device: torch.device) -> Iterator[None]:
    """What a network draws (dropped branches, mixed styles) follows from the seed and the step alone."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed((seed * 1_000_003 + place.epoch) * 1_000_003 + place.batch)
        yield
