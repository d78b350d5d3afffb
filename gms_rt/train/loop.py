"""Training: `train` writes a run folder and can be stopped and resumed anywhere without changing its result.

Every random choice follows from the seed and the step's number, so a checkpoint needs no generator states. The best
weights on validation become `lmm.safetensors`; validation is carved from train, test is never looked at.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gms_rt.artifacts import sha256_json, write_json
from gms_rt.class_lists import CLASSES, classes_value
from gms_rt.data.splits import Split, write_split
from gms_rt.errors import GmsError, UsageError
from gms_rt.model.gms import Gms, pooled_channels
from gms_rt.model.kind import CONFIG
from gms_rt.model.run import WEIGHTS, save_run, write_weights
from gms_rt.model.tokenizer import Tokenizer
from gms_rt.train.batches import Batch, BatchSource, CachedBatches, LiveBatches, ReadAhead, posterior_layer
from gms_rt.train.checkpoint import STATE, Row, State, copy_weights, load_state, save_state
from gms_rt.train.device import forward_type
from gms_rt.train.interrupt import StopRequest, stop_requests
from gms_rt.train.latents import cached_latents, encode
from gms_rt.train.linear_decoder import fit_linear_decoder
from gms_rt.train.objective import losses
from gms_rt.train.recipe import RENAMED, TrainingRecipe
from gms_rt.train.record import Record
from gms_rt.train.request import Outcome, Progress, TrainingRequest
from gms_rt.train.samples import Samples
from gms_rt.train.schedule import Place, Schedule
from gms_rt.train.start import Start, first_weights
from gms_rt.train.validation import Validation

_FITTED = 32  # training cases whose levels give the statistics by which levels are standardised


def train(request: TrainingRequest, progress: Progress | None = None) -> Outcome:
    """Train a latent mapping model into a run folder, from scratch or from another run's weights."""
    out, recipe = request.out, request.recipe
    if not request.resume and any((out / name).exists() for name in (STATE, WEIGHTS)):
        raise UsageError("already contains a run", where=out, fix="go on with --resume, or choose another --out")
    before, searched = torch.get_num_threads(), torch.backends.cudnn.benchmark
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    torch.backends.cudnn.benchmark = True  # of a GPU: all steps have one size
    try:
        with stop_requests() as stop:
            recipe.check_stride(request.tokenizer.spec.stride)
            if recipe.latent_noise and posterior_layer(request.tokenizer) is None:
                raise UsageError(
                    f"the tokenizer {request.tokenizer.spec.kind} encodes to a point, and latent_noise needs a "
                    "posterior",
                    where=request.tokenizer.spec.source,
                    fix="train with --set latent_noise=0, or with an sd-vae or compvis tokenizer",
                )
            levels = pooled_channels(request.tokenizer, recipe.levels, recipe.pooling)
            start = first_weights(recipe, request.tokenizer.spec.channels, request.init, levels)
            return _Training(request, start, stop, progress).run()
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.benchmark = searched


@dataclass(frozen=True)
class _Report:
    """What a step said of itself, on its device until it is read."""

    parts: Tensor  # total, latent and Dice loss, and the norm of the gradient
    names: list[str]  # of its cases
    place: Place


class _Training:
    """One training: what it works on, and the state that a checkpoint saves."""

    def __init__(self, request: TrainingRequest, start: Start, stop: StopRequest, progress: Progress | None) -> None:
        recipe, dataset, split, tokenizer = request.recipe, request.dataset, request.split, request.tokenizer
        self.recipe, self.out, self.split, self.stop = recipe, request.out, split, stop
        self.device = torch.device(request.device)
        self.progress = progress or (lambda stage, done, total, note: None)
        self.gms, self.fitted = Gms(tokenizer, start.mapper).to(self.device), start.fitted
        if self.device.type == "cpu":
            self.gms.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.samples = Samples(dataset.named(split.train), recipe)
        self.held_out = Samples(dataset.named(split.validation), recipe)
        self.schedule = Schedule(recipe, len(self.samples))
        self.half = forward_type(recipe.precision, self.device)
        self.optimiser = torch.optim.AdamW(self.gms.mapper.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        self.cache = request.cache or request.out / "latents"
        data = {"name": dataset.name, "folder": str(dataset.root.resolve()), "split": split.source}
        self.classes = request.classes
        self.tables: dict[str, Any] = {"training": recipe.to_values(), "data": data}
        if start.origin:
            self.tables["origin"] = start.origin
        self.state = State(training_fingerprint(recipe, split, tokenizer, start))
        # Reports that are not read yet. Reading one waits for its step, so a GPU gets the next step first.
        self.reports: list[_Report] = []
        self.lag = _lag(self.device)

    def run(self) -> Outcome:
        self._restore()
        write_split(self.out / "split.json", self.split)
        if self.classes:  # named anew at a resume: they change no weight
            write_json(self.out / CLASSES, classes_value(self.classes))
        source = self._source()
        if self.recipe.linear_decoder and self.recipe.latent_epochs and self.state.linear_decoder is None:
            fitted = fit_linear_decoder(*source.examples())
            self.state.linear_decoder = None if fitted is None else fitted.to(self.device)
        validation = Validation(self.gms, self.held_out)
        record = Record(self.out)
        try:
            self._steps(source, validation, record)
        finally:
            source.close()
        images = len(self.state.rows) * self.schedule.images  # a row per epoch
        return Outcome(
            self.out,
            self.state.best,
            self.state.best_epoch,
            self.schedule.epochs,
            self.state.seconds,
            images / max(self.state.seconds, 1e-9),
            sum(parameter.numel() for parameter in self.gms.mapper.parameters()),
        )

    def _restore(self) -> None:
        found = load_state(self.out, self.state.fingerprint, self.device)
        if found is None:
            if not self.fitted:
                self._fit_levels()
            self.state.average = copy_weights(self.gms.mapper.state_dict()) if self.recipe.average else {}
            return
        self.state = found
        self.gms.mapper.load_state_dict(found.mapper)
        self.optimiser.load_state_dict(found.optimiser)
        for values in self.optimiser.state.values():  # AdamW reads it at every step, which a GPU would be waited for
            values["step"] = values["step"].cpu()
        if found.scaler:
            self.scaler.load_state_dict(found.scaler)

    def _fit_levels(self) -> None:
        """Standardise the levels by some training cases, evenly spread."""
        count = len(self.samples)
        numbers = sorted({i * count // _FITTED for i in range(_FITTED)})
        encoded = encode(self.gms, [self.samples.plain(number)[0] for number in numbers])
        self.gms.mapper.fit_levels(encoded.to(self.device))

    def _source(self) -> BatchSource:
        if not self.recipe.views:
            return LiveBatches(self.gms, self.samples, self.schedule, self.device, self.half)

        def report(done: int, total: int) -> None:
            self.progress("encode", done, total, "")
            if self.stop.made:
                raise KeyboardInterrupt

        cache = cached_latents(self.gms, self.samples, self.cache, report)
        source = CachedBatches(cache, self.samples, self.schedule)
        return ReadAhead(source, self.schedule) if self.device.type == "cuda" else source

    def _steps(self, source: BatchSource, validation: Validation, record: Record) -> None:
        saved = began = time.monotonic()
        spent = self.state.seconds
        while self.state.step < self.schedule.steps:
            place = self.schedule.place(self.state.step)
            self._step(source.batch(self.state.step), place)
            self.state.step += 1
            self._read_reports(0 if place.last_of_epoch else self.lag)
            self.state.seconds = spent + time.monotonic() - began
            loss = self.state.sums[0] / max(self.state.sums[3], 1)
            note = f"epoch {place.epoch + 1}, loss {loss:.4f}, Dice {max(self.state.best, 0):.4f}"
            self.progress("train", self.state.step, self.schedule.steps, note)
            if place.last_of_epoch:
                self._end_epoch(place, validation, record)
            finished = self.state.step == self.schedule.steps
            if self.stop.made or finished or time.monotonic() - saved >= self.recipe.save_seconds:
                self._save()
                saved = time.monotonic()
            if self.stop.made and not finished:
                raise KeyboardInterrupt

    def _step(self, batch: Batch, place: Place) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = place.lr
        self.gms.mapper.train()
        batch = batch.to(self.device)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half != torch.float32):
            outputs = self.gms.mapper.supervised_latents(batch.image)
            found = losses(self.gms, self.recipe, place, batch, outputs, self.state.linear_decoder)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(found.total).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.gms.mapper.parameters(), self.recipe.clip or math.inf)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self._average()
        parts = torch.stack([part.detach() for part in (found.total, found.latent, found.drawn, norm)])
        self.reports.append(_Report(parts, batch.names, place))

    def _read_reports(self, leave: int) -> None:
        """Add up what the steps said, and stop where one is lost, before its weights are saved; `leave` the last."""
        while len(self.reports) > leave:
            report = self.reports.pop(0)
            *parts, norm = report.parts.tolist()
            if not math.isfinite(parts[0]):
                raise self._broken(f"the loss is {parts[0]}", report.names, report.place)
            # The scaler skips a step that overflowed in float16; anywhere else it means that training is lost.
            if not math.isfinite(norm) and self.half != torch.float16:
                raise self._broken(f"the gradient is {norm}", report.names, report.place)
            count = len(report.names)
            for index, part in enumerate((*parts, 1.0)):
                self.state.sums[index] += part * count

    def _broken(self, what: str, names: list[str], place: Place) -> GmsError:
        return GmsError(
            f"{what} in epoch {place.epoch + 1}, batch {place.batch + 1}, with cases {', '.join(names)}",
            where=self.out,
            fix="the last good checkpoint is kept; try a smaller --set lr=, --set clip=1, or look at these cases",
        )

    @torch.no_grad()
    def _average(self) -> None:
        if not self.recipe.average:
            return
        # Short at first, or the random start would stay in the average for a long time.
        decay = min(self.recipe.average, (1 + self.state.step) / (10 + self.state.step))
        now = self.gms.mapper.state_dict()
        torch._foreach_lerp_([self.state.average[name] for name in now], list(now.values()), 1 - decay)

    def _end_epoch(self, place: Place, validation: Validation, record: Record) -> None:
        loss, latent, drawn, count = self.state.sums
        row: Row = {
            "epoch": place.epoch + 1,
            "step": self.state.step,
            "phase": place.phase,
            "lr": place.lr,
            "loss": loss / count,
            "latent_loss": latent / count,
            "dice_loss": drawn / count,
        }
        if place.last_of_phase or (place.epoch + 1) % self.recipe.validate_every == 0:
            self._validate(place, validation, row)
        earlier = float(self.state.rows[-1]["seconds"]) if self.state.rows else 0.0
        row["seconds"] = self.state.seconds
        row["images_per_second"] = count / max(self.state.seconds - earlier, 1e-9)
        self.state.rows.append(row)
        self.state.sums = [0.0, 0.0, 0.0, 0.0]
        record.write(self.state.rows)

    def _validate(self, place: Place, validation: Validation, row: Row) -> None:
        weights = self.state.average or self.gms.mapper.state_dict()
        better = True
        if len(validation):
            score, loss = validation.score(weights)
            row["validation_dice"], row["validation_loss"] = score, loss
            better = (score, -loss) > (self.state.best, -self.state.best_loss)
        if better:
            self.state.best_epoch = place.epoch + 1
            if len(validation):
                self.state.best, self.state.best_loss = score, loss
            self._keep(weights)

    def _keep(self, weights: dict[str, Tensor]) -> None:
        """Write the run with these weights."""
        if (self.out / CONFIG).is_file():  # only the weights have changed, and the tokenizer takes time to hash
            write_weights(self.out / WEIGHTS, weights)
        else:
            save_run(self.out, self.gms, self.tables, weights=weights)

    def _save(self) -> None:
        self._read_reports(0)
        self.state.mapper = copy_weights(self.gms.mapper.state_dict())
        self.state.optimiser = self.optimiser.state_dict()
        self.state.scaler = self.scaler.state_dict()
        save_state(self.out, self.state)


def _lag(device: torch.device) -> int:
    """How many steps later a step's losses are read."""
    return 1 if device.type == "cuda" else 0


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
