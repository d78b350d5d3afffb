"""The views of each step as tensors on the training's device, with the next steps' pictures read at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gms_rt.arrays import U8
from gms_rt.train.device import readers
from gms_rt.train.recipe import TrainingRecipe
from gms_rt.train.samples import Samples
from gms_rt.train.schedule import Schedule
from gms_rt.train.view_readers import ViewReaders

_ORDER = 0x6F72


class ViewsAhead:
    """Fresh views of the cases of each step. Same seed and step, same views."""

    def __init__(self, samples: Samples, schedule: Schedule, device: torch.device) -> None:
        self._samples, self._schedule, self._device = samples, schedule, device
        self._cuda = device.type == "cuda"
        count, self._steps = readers(device, schedule.recipe.batch)
        self._readers = ViewReaders(samples, count, processes=self._cuda)
        self._ahead: dict[int, list[Future[tuple[U8, U8]]]] = {}

    def views(self, step: int) -> tuple[Tensor, Tensor]:
        """Images N×H×W×3 and masks N×H×W of this step, as bytes."""
        waiting = self._ahead.pop(step, None) or self._ask(step)
        for later in range(step + 1, min(step + 1 + self._steps, self._schedule.steps)):
            if later not in self._ahead:
                self._ahead[later] = self._ask(later)
        pairs = [future.result() for future in waiting]
        images, masks = (self._stack([pair[part] for pair in pairs]) for part in (0, 1))
        return images, masks

    def names(self, step: int) -> list[str]:
        """The names of this step's cases."""
        return [self._samples.cases[number].name for number in case_numbers(self._schedule, step)]

    def close(self) -> None:
        """End the readers."""
        self._readers.close()

    def _ask(self, step: int) -> list[Future[Any]]:
        # View 0 is the plain picture, which only validation sees.
        view = self._schedule.place(step).epoch + 1
        return [self._readers.ask(int(n), view) for n in case_numbers(self._schedule, step)]

    def _stack(self, pictures: Sequence[U8]) -> Tensor:
        """The pictures on the device, as they are."""
        if not self._cuda:
            return torch.from_numpy(np.stack(pictures))
        held = torch.empty((len(pictures), *pictures[0].shape), dtype=torch.uint8, pin_memory=True)
        np.stack(pictures, out=held.numpy())
        return held.to(self._device, non_blocking=True)


def case_numbers(schedule: Schedule, step: int) -> NDArray[np.int64]:
    """The case numbers of a step: every epoch is a new order of all cases."""
    recipe: TrainingRecipe = schedule.recipe
    place = schedule.place(step)
    order = np.random.default_rng([recipe.seed, _ORDER, place.epoch]).permutation(schedule.cases)
    return np.asarray(order[place.batch * recipe.batch : (place.batch + 1) * recipe.batch], np.int64)
