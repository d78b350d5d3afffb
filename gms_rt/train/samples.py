"""Cases at network size, and their views: each is a pure function of seed, case and view number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gms_rt.arrays import U8
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.scan import resize_image
from gms_rt.scan.mask import FOREGROUND, mask_from_levels
from gms_rt.train.augment import augment
from gms_rt.train.recipe import TrainingRecipe

_KEEP_BYTES = 2**30
_VIEW = 0x76696577


class Samples:
    """Cases by number. Small data sets stay in memory at network size; large ones are read again."""

    def __init__(self, cases: Sequence[Case], recipe: TrainingRecipe) -> None:
        self.cases = tuple(cases)
        self.recipe = recipe
        self._kept: dict[int, tuple[U8, U8]] = {}
        self._keep = len(self.cases) * recipe.size**2 * 4 <= _KEEP_BYTES

    def __len__(self) -> int:
        return len(self.cases)

    def plain(self, number: int) -> tuple[U8, U8]:
        """Image and mask at network size, not augmented."""
        if number in self._kept:
            return self._kept[number]
        image, mask = read_case(self.cases[number])
        size = self.recipe.size
        found = resize_image(image, size, size), mask_from_levels(resize_image(mask, size, size))
        if self._keep:
            self._kept[number] = found
        return found

    def view(self, number: int, view: int) -> tuple[U8, U8]:
        """The view of this number; views are drawn from the seed and do not repeat."""
        image, mask = self.plain(number)
        seed = [self.recipe.seed, _VIEW, view, number]
        return augment(image, mask, self.recipe, np.random.default_rng(seed))


def mask_tensor(masks: Sequence[U8]) -> Tensor:
    """N×1×H×W of 0 and 1 from uint8 H×W."""
    return torch.from_numpy(np.stack(masks)[:, None] >= FOREGROUND).to(torch.float32)
