"""The steps of a training, whatever is trained: rates, averages, checkpoints, what is kept, and what stops it.

A `Trainee` says what is trained: its network, the losses of a batch, its score, and how its weights are kept. Every
random choice follows from the seed and the step's number, so a checkpoint needs no generator states.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from gms_rt.errors import GmsError
from gms_rt.train.checkpoint import Row, State, copy_weights, load_state, save_state
from gms_rt.train.device import forward_type
from gms_rt.train.interrupt import StopRequest
from gms_rt.train.recipe import TrainingRecipe
from gms_rt.train.record import Record
from gms_rt.train.replay import Replay
from gms_rt.train.request import Outcome, Progress
from gms_rt.train.schedule import Place, Schedule


class StepBatch(Protocol):
    """The cases of a step."""

    @property
    def names(self) -> list[str]:
        """The cases' names, for messages."""


AnyBatch = TypeVar("AnyBatch", bound=StepBatch)
_Taken = TypeVar("_Taken", bound=StepBatch, contravariant=True)
_Given = TypeVar("_Given", covariant=True)


class StepSource(Protocol[_Given]):
    """Gives the batch of a step."""

    def batch(self, step: int) -> _Given:
        """The batch of this step."""


class Trainee(Protocol[_Taken]):
    """What is trained."""

    @property
    def network(self) -> nn.Module:
        """What the steps change."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the losses in `metrics.csv`; the first is minimised."""

    @property
    def repeatable(self) -> bool:
        """Whether `losses` gives nothing but its results, of strings and tensors: a GPU may record and replay it."""

    def inputs(self, batch: _Taken, place: Place) -> tuple[Any, ...]:
        """What the losses of a batch are computed from."""

    def losses(self, *inputs: Any) -> tuple[Tensor, ...]:
        """The losses, as many as there are columns; the network is in training mode."""

    def score(self, weights: dict[str, Tensor]) -> tuple[float, float] | None:
        """Dice and loss of these weights on the validation cases; None where there are none."""

    def keep(self, weights: dict[str, Tensor]) -> None:
        """Write the run with these weights."""


@dataclass(frozen=True)
class Ground:
    """Where and how the steps are made."""

    recipe: TrainingRecipe
    schedule: Schedule
    out: Path  # the run folder
    device: torch.device
    fingerprint: dict[str, str]  # what must be equal for a resume to be the same training


@dataclass(frozen=True)
class _Report:
    """What a step said of itself, on its device until it is read."""

    parts: Tensor  # the losses, and behind them the norm of the gradient
    names: list[str]  # of its cases
    place: Place


class Steps(Generic[AnyBatch]):
    """One training's steps, and the state that a checkpoint saves."""

    def __init__(self, trainee: Trainee[AnyBatch], ground: Ground, stop: StopRequest, progress: Progress) -> None:
        self.trainee, self.network = trainee, trainee.network
        self.recipe, self.schedule, self.out, self.device = ground.recipe, ground.schedule, ground.out, ground.device
        self.stop, self.progress = stop, progress
        self.half = forward_type(self.recipe.precision, self.device)
        self.trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.half == torch.float16)
        self.state = State(ground.fingerprint)
        self._start_sums()
        # Reports that are not read yet. Reading one waits for its step, so a GPU gets the next step first.
        self._reports: list[_Report] = []
        self._lag = _lag(self.device)
        # A scaler's factor changes from step to step, so float16 is not recorded.
        recorded = self.device.type == "cuda" and trainee.repeatable and not self.scaler.is_enabled()
        self._derived = Replay(self._derive) if recorded else self._derive
        self._live: list[tuple[Tensor, Tensor]] = []  # each average with the weights that it follows

    def restore(self) -> bool:
        """Go on with the training that was stopped here, if there is one; whether there was."""
        found = load_state(self.out, self.state.fingerprint, self.device)
        if found is None:
            return False
        self.state = found
        self.network.load_state_dict(found.mapper)
        self.optimiser.load_state_dict(found.optimiser)
        for values in self.optimiser.state.values():  # AdamW reads it at every step, which a GPU would be waited for
            values["step"] = values["step"].cpu()
        if found.scaler:
            self.scaler.load_state_dict(found.scaler)
        return True

    def start_average(self) -> None:
        """Begin the running average at the present weights, where the recipe wants one."""
        self.state.average = copy_weights(self.network.state_dict()) if self.recipe.average else {}
        self._live = []

    def outcome(self, parameters: int) -> Outcome:
        """What was reached, by a network of so many parameters."""
        state, schedule = self.state, self.schedule
        speed = self.images_per_second
        return Outcome(self.out, state.best, state.best_epoch, schedule.epochs, state.seconds, speed, parameters)

    def run(self, source: StepSource[AnyBatch]) -> None:
        """Make the steps that are left."""
        record = Record(self.out, self.trainee.columns)
        saved = began = time.monotonic()
        spent = self.state.seconds
        while not self.finished:
            place = self.schedule.place(self.state.step)
            self._step(source.batch(self.state.step), place)
            self.state.step += 1
            self._read_reports(0 if place.last_of_epoch else self._lag)
            self.state.seconds = spent + time.monotonic() - began
            loss = self.state.sums[0] / max(self.state.sums[-1], 1)
            note = f"epoch {place.epoch + 1}, loss {loss:.4f}, Dice {max(self.state.best, 0):.4f}"
            self.progress("train", *self._progress, note)
            if place.last_of_epoch or self.time_is_over:
                self._read_reports(0)
                self._end_epoch(place, record)
            finished = self.finished
            if self.stop.made or finished or time.monotonic() - saved >= self.recipe.save_seconds:
                self._save()
                saved = time.monotonic()
            if self.stop.made and not finished:
                raise KeyboardInterrupt

    @property
    def finished(self) -> bool:
        """Whether all steps are made, the time is over, or the last phase has brought nothing better for too long."""
        step, rows = self.state.step, self.state.rows
        if step == self.schedule.steps or self.time_is_over:
            return True
        if not self.recipe.patience or not rows or rows[-1]["step"] != step or self.state.best_epoch < 0:
            return False
        first = self.recipe.latent_epochs  # of the last phase
        waited = len(rows) - max(self.state.best_epoch, first)
        return len(rows) > first and self.state.best >= 0 and waited >= self.recipe.patience

    @property
    def time_is_over(self) -> bool:
        """Whether the minutes of the recipe are spent, if it has any."""
        return bool(self.recipe.minutes) and self._time_share >= 1

    @property
    def _progress(self) -> tuple[int, int]:
        """How much is done of how much: steps, or seconds where the clock ends the training."""
        if self.recipe.minutes:
            limit = math.ceil(60 * self.recipe.minutes)
            return min(int(self.state.seconds), limit), limit
        return self.state.step, self.schedule.steps

    @property
    def _time_share(self) -> float:
        """How much of the recipe's minutes is spent."""
        return self.state.seconds / (60 * self.recipe.minutes)

    @property
    def images_per_second(self) -> float:
        """Over all epochs."""
        epochs = self.state.step / self.schedule.batches
        return epochs * self.schedule.images / max(self.state.seconds, 1e-9)

    def _step(self, batch: AnyBatch, place: Place) -> None:
        if self.recipe.minutes:
            spent = self._time_share
            place = replace(place, lr=self.schedule.rate_at(place, spent), spent=spent)
        for group in self.optimiser.param_groups:
            group["lr"] = place.lr
        self.network.train()
        found, gradients = self._derived(*self.trainee.inputs(batch, place))
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            parameter.grad = gradient
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.recipe.clip or math.inf)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self._average()
        parts = torch.stack([*found, norm])
        self._reports.append(_Report(parts, batch.names, place))

    def _derive(self, *inputs: Any) -> tuple[list[Tensor], Sequence[Tensor | None]]:
        """The losses, and the gradients of the first; None for weights that it does not depend on."""
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half != torch.float32):
            found = self.trainee.losses(*inputs)
        scaled: Tensor = self.scaler.scale(found[0])
        return [part.detach() for part in found], torch.autograd.grad(scaled, self.trained, allow_unused=True)

    def _read_reports(self, leave: int) -> None:
        """Add up what the steps said, and stop where one is lost, before its weights are saved; `leave` the last."""
        while len(self._reports) > leave:
            report = self._reports.pop(0)
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
        if not self._live:  # the tensors stay the same ones; only their values change
            now = self.network.state_dict()
            self._live = [(self.state.average[name], value) for name, value in now.items()]
        blended = [pair for pair in self._live if pair[1].is_floating_point()]
        counts = [pair for pair in self._live if not pair[1].is_floating_point()]  # such as BatchNorm's of its batches
        torch._foreach_lerp_([mean for mean, _ in blended], [value for _, value in blended], 1 - decay)
        if counts:
            torch._foreach_copy_([mean for mean, _ in counts], [value for _, value in counts])

    def _end_epoch(self, place: Place, record: Record) -> None:
        *sums, count = self.state.sums
        rate = float(self.optimiser.param_groups[0]["lr"])
        row: Row = {"epoch": place.epoch + 1, "step": self.state.step, "phase": place.phase, "lr": rate}
        row |= {name: part / count for name, part in zip(self.trainee.columns, sums, strict=True)}
        if place.last_of_phase or self.time_is_over or (place.epoch + 1) % self.recipe.validate_every == 0:
            self._validate(place, row)
        earlier = float(self.state.rows[-1]["seconds"]) if self.state.rows else 0.0
        row["seconds"] = self.state.seconds
        row["images_per_second"] = count / max(self.state.seconds - earlier, 1e-9)
        self.state.rows.append(row)
        self._start_sums()
        record.write(self.state.rows)

    def _start_sums(self) -> None:
        self.state.sums = [0.0] * (len(self.trainee.columns) + 1)

    def _validate(self, place: Place, row: Row) -> None:
        weights = self.state.average or self.network.state_dict()
        found = self.trainee.score(weights)
        better = True
        if found is not None:
            score, loss = found
            row["validation_dice"], row["validation_loss"] = score, loss
            better = (score, -loss) > (self.state.best, -self.state.best_loss)
        if better:
            self.state.best_epoch = place.epoch + 1
            if found is not None:
                self.state.best, self.state.best_loss = found
            self.trainee.keep(weights)

    def _save(self) -> None:
        self._read_reports(0)
        self.state.mapper = copy_weights(self.network.state_dict())
        self.state.optimiser = self.optimiser.state_dict()
        self.state.scaler = self.scaler.state_dict()
        save_state(self.out, self.state)


def _lag(device: torch.device) -> int:
    """How many steps later a step's losses are read."""
    return 1 if device.type == "cuda" else 0
