"""The batch of each step: pictures, ground truth and what the teacher says, as views made on the student's device.

Same seed and step, same batch. On a GPU all pictures lie in its memory where they fit; else each batch is copied there
from pinned memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gms_rt.distill.pictures import Pictures
from gms_rt.distill.recipe import DistillRecipe
from gms_rt.distill.teacher_cache import Lessons
from gms_rt.distill.views import change_colours, draw_views, warp_pictures
from gms_rt.train.schedule import Schedule
from gms_rt.train.views_ahead import case_numbers

_GPU_SHARE = 0.5  # of its free memory that pictures may take


@dataclass(frozen=True)
class StudentBatch:
    """Views of one step, on the student's device."""

    image: Tensor  # N×3×H×W from 0 to 1
    truth: Tensor  # N×1×H×W of 0 and 1
    labelled: Tensor  # N: 1 where there is a ground truth
    soft: Tensor | None  # N×1×H×W: the teacher's probabilities
    latent: Tensor | None  # N×C×h×w: its mask latents, of plain views alone
    plain: Tensor  # N: 1 where the view is plain
    names: list[str]  # of the pictures, for messages


class ViewedBatches:
    """Batches of views."""

    def __init__(
        self,
        pictures: Pictures,
        lessons: Lessons | None,
        recipe: DistillRecipe,
        schedule: Schedule,
        device: torch.device,
    ) -> None:
        self._pictures, self._recipe, self._schedule, self._device = pictures, recipe, schedule, device
        arrays: dict[str, NDArray[np.generic]] = {"images": pictures.images, "masks": pictures.masks}
        if lessons is not None:
            arrays |= {"soft": lessons.masks, "latents": lessons.latents}
        self._store = _Store(arrays, device)

    def batch(self, step: int) -> StudentBatch:
        """The batch of this step."""
        numbers = case_numbers(self._schedule, step)
        found = self._store.take(numbers)
        drawn = draw_views(self._recipe, step, len(numbers))
        warp, mix, contrast, plain = (
            self._moved(part) for part in (drawn.warp, drawn.mix, drawn.contrast, drawn.plain)
        )
        labelled = self._moved(torch.from_numpy((numbers < self._pictures.labelled).astype(np.float32)))
        stack = [found["images"].permute(0, 3, 1, 2), found["masks"][:, None]]
        soft = found.get("soft")
        stack += [soft[:, None]] if soft is not None else []
        # Joined as bytes: one conversion and one warp for all.
        viewed = warp_pictures(torch.cat(stack, dim=1).to(torch.float32).div_(255), warp)
        image = change_colours(viewed[:, :3], mix, contrast)
        return StudentBatch(
            image.contiguous(memory_format=torch.channels_last),
            (viewed[:, 3:4] >= 0.5).to(torch.float32),
            labelled,
            viewed[:, 4:5] if soft is not None else None,
            found["latents"].to(torch.float32) if soft is not None else None,
            plain,
            [self._pictures.names[number] for number in numbers],
        )

    def _moved(self, part: Tensor) -> Tensor:
        return _to_device(part, self._device)


class _Store:
    """Arrays whose rows are taken by number."""

    def __init__(self, arrays: dict[str, NDArray[np.generic]], device: torch.device) -> None:
        self._arrays, self._device = arrays, device
        self._held: dict[str, Tensor] = {}
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if sum(array.nbytes for array in arrays.values()) <= _GPU_SHARE * free:
                self._held = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}

    def take(self, numbers: NDArray[np.int64]) -> dict[str, Tensor]:
        """These rows on the device."""
        if self._held:
            rows = _to_device(torch.from_numpy(numbers), self._device)
            return {name: array.index_select(0, rows) for name, array in self._held.items()}
        return {
            name: _to_device(torch.from_numpy(array[numbers]), self._device) for name, array in self._arrays.items()
        }


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Without waiting for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
