"""Training: `train` writes a run folder and can be stopped and resumed anywhere without changing its result.

Every random choice follows from the seed and the step's number, so a checkpoint needs no generator states. The best
weights on validation become `lmm.safetensors`; validation is carved from train, test is never looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gms_rt.artifacts import sha256_json, write_json
from gms_rt.class_lists import CLASSES, classes_value
from gms_rt.data.splits import Split, write_split
from gms_rt.errors import UsageError
from gms_rt.model.gms import Gms, pooled_channels
from gms_rt.model.kind import CONFIG
from gms_rt.model.run import WEIGHTS, save_run, write_weights
from gms_rt.model.tokenizer import Tokenizer
from gms_rt.train.batches import Batch, BatchSource, CachedBatches, LiveBatches, ReadAhead, posterior_layer
from gms_rt.train.checkpoint import STATE
from gms_rt.train.device import tuned_torch
from gms_rt.train.frozen_stages import bf16_stages, stages_for
from gms_rt.train.interrupt import StopRequest, stop_requests
from gms_rt.train.latents import cached_latents, encode
from gms_rt.train.linear_decoder import fit_linear_decoder
from gms_rt.train.objective import losses
from gms_rt.train.recipe import RENAMED, TrainingRecipe
from gms_rt.train.request import Outcome, Progress, TrainingRequest
from gms_rt.train.samples import Samples
from gms_rt.train.schedule import Place, Schedule
from gms_rt.train.start import Start, first_weights
from gms_rt.train.steps import Ground, Steps
from gms_rt.train.validation import Validation

_FITTED = 32  # training cases whose levels give the statistics by which levels are standardised


def train(request: TrainingRequest, progress: Progress | None = None) -> Outcome:
    """Train a latent mapping model into a run folder, from scratch or from another run's weights."""
    out, recipe = request.out, request.recipe
    if not request.resume and any((out / name).exists() for name in (STATE, WEIGHTS)):
        raise UsageError("already contains a run", where=out, fix="go on with --resume, or choose another --out")
    with tuned_torch(recipe.threads), stop_requests() as stop:
        recipe.check_stride(request.tokenizer.spec.stride)
        if recipe.latent_noise and posterior_layer(request.tokenizer) is None:
            raise UsageError(
                f"the tokenizer {request.tokenizer.spec.kind} encodes to a point, and latent_noise needs a posterior",
                where=request.tokenizer.spec.source,
                fix="train with --set latent_noise=0, or with an sd-vae or compvis tokenizer",
            )
        levels = pooled_channels(request.tokenizer, recipe.levels, recipe.pooling)
        start = first_weights(recipe, request.tokenizer.spec.channels, request.init, levels)
        return _Training(request, start, stop, progress).run()


class _Mapping:
    """The latent mapping model as what is trained."""

    columns = ("loss", "latent_loss", "dice_loss")
    repeatable = True

    def __init__(self, request: TrainingRequest, gms: Gms, tables: dict[str, dict[str, Any]]) -> None:
        self.recipe, self.out, self.gms, self.network = request.recipe, request.out, gms, gms.mapper
        self.device = torch.device(request.device)
        self.tables = tables
        self.linear: Tensor | None = None  # the fitted linear decoder
        self.validation: Validation | None = None  # none before the first step

    def inputs(self, batch: Batch, place: Place) -> tuple[Tensor | str, ...]:
        """The phase, and the batch on the device."""
        batch = batch.to(self.device)
        return place.phase, batch.image, batch.target, batch.mask

    def losses(self, phase: str, image: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The total, and of it the latents' distance and the drawn masks' Dice loss."""
        outputs = self.gms.mapper.supervised_latents(image)
        found = losses(self.gms, self.recipe, phase, Batch(image, target, mask, []), outputs, self.linear)
        return found.total, found.latent, found.drawn

    def score(self, weights: dict[str, Tensor]) -> tuple[float, float] | None:
        """Mean Dice and mean latent loss of the validation cases."""
        return self.validation.score(weights) if self.validation else None

    def keep(self, weights: dict[str, Tensor]) -> None:
        """Write the run with these weights."""
        if (self.out / CONFIG).is_file():  # only the weights have changed, and the tokenizer takes time to hash
            write_weights(self.out / WEIGHTS, weights)
        else:
            save_run(self.out, self.gms, self.tables, weights=weights)


class _Training:
    """One training: what it works on, and the order of its parts."""

    def __init__(self, request: TrainingRequest, start: Start, stop: StopRequest, progress: Progress | None) -> None:
        recipe, dataset, split, tokenizer = request.recipe, request.dataset, request.split, request.tokenizer
        self.recipe, self.out, self.split, self.stop = recipe, request.out, split, stop
        self.device = torch.device(request.device)
        self.progress = progress or (lambda stage, done, total, note: None)
        self.gms, self.fitted = Gms(tokenizer, start.mapper).to(self.device), start.fitted
        self.gms.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.samples = Samples(dataset.named(split.train), recipe)
        self.held_out = Samples(dataset.named(split.validation), recipe)
        self.schedule = Schedule(recipe, len(self.samples))
        pictures = 2 * len(self.samples) * (recipe.views or recipe.epochs)  # each with its mask
        self.stages = stages_for(self.gms, pictures, recipe.size, recipe.threads)
        short = recipe.encode_in == "bf16"
        self.encoder = bf16_stages(self.gms, recipe.size, recipe.threads) if short else self.stages
        self.cache = request.cache or request.out / "latents"
        data = {"name": dataset.name, "folder": str(dataset.root.resolve()), "split": split.source}
        self.classes = request.classes
        tables: dict[str, dict[str, Any]] = {"training": recipe.to_values(), "data": data}
        if start.origin:
            tables["origin"] = start.origin
        self.mapping = _Mapping(request, self.gms, tables)
        fingerprint = training_fingerprint(recipe, split, tokenizer, start)
        ground = Ground(recipe, self.schedule, self.out, self.device, fingerprint)
        self.steps: Steps[Batch] = Steps(self.mapping, ground, stop, self.progress)

    def run(self) -> Outcome:
        if not self.steps.restore():
            if not self.fitted:
                self._fit_levels()
            self.steps.start_average()
        state = self.steps.state
        write_split(self.out / "split.json", self.split)
        if self.classes:  # named anew at a resume: they change no weight
            write_json(self.out / CLASSES, classes_value(self.classes))
        source = self._source()
        try:
            if self.recipe.linear_decoder and self.recipe.latent_epochs and state.linear_decoder is None:
                fitted = fit_linear_decoder(*source.examples())
                state.linear_decoder = None if fitted is None else fitted.to(self.device)
            self.mapping.linear = state.linear_decoder
            # Without cases it is empty, and false.
            self.mapping.validation = Validation(self.gms, self.held_out, self.stages)
            self.steps.run(source)
        finally:
            source.close()
        return self.steps.outcome(sum(parameter.numel() for parameter in self.gms.mapper.parameters()))

    def _fit_levels(self) -> None:
        """Standardise the levels by some training cases, evenly spread."""
        count = len(self.samples)
        numbers = sorted({i * count // _FITTED for i in range(_FITTED)})
        encoded = encode(self.stages, [self.samples.plain(number)[0] for number in numbers])
        self.gms.mapper.fit_levels(encoded.to(self.device))

    def _source(self) -> BatchSource:
        if not self.recipe.views:
            return LiveBatches(self.gms, self.samples, self.schedule, self.device, self.steps.half, self.encoder)

        def report(done: int, total: int) -> None:
            self.progress("encode", done, total, "")
            if self.stop.made:
                raise KeyboardInterrupt

        cache = cached_latents(self.gms, self.samples, self.cache, report, self.encoder)
        source = CachedBatches(cache, self.samples, self.schedule)
        return ReadAhead(source, self.schedule) if self.device.type == "cuda" else source


def training_fingerprint(recipe: TrainingRecipe, split: Split, tokenizer: Tokenizer, start: Start) -> dict[str, str]:
    """What must be equal for a resume to be the same training."""
    # How often it is saved and on how many threads it runs are the user's business at any time.
    settings = replace(recipe, save_seconds=0.0, threads=0).to_values()
    for first_name, name in RENAMED.items():  # hashed under the names of the first version, whose states go on
        settings[first_name] = settings.pop(name)
    parts = {
        "recipe": settings,
        "split": [split.train, split.validation],
        "tokenizer": tokenizer.weights_sha256(),
    }
    hashes = {name: sha256_json(value) for name, value in parts.items()}
    return {**hashes, "start": start.origin.get("sha256", "")}
