"""Cases at network size, and their views: each is a pure function of seed, case and view number."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from gms_rt.arrays import U8
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.scan import resize_image
from gms_rt.scan.geometry import BILINEAR
from gms_rt.scan.mask import FOREGROUND, resize_mask
from gms_rt.train.augment import augment
from gms_rt.train.recipe import TrainingRecipe

_KEEP_BYTES = 2**30  # of pictures in memory, at least
_KEEP_SHARE = 8  # or this part of the machine's memory, where that is more
_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
_VIEW = 0x76696577


class Samples:
    """Cases by number. What fits stays in memory at the size that views start from; the rest is read again."""

    def __init__(self, cases: Sequence[Case], recipe: TrainingRecipe) -> None:
        self.cases = tuple(cases)
        self.recipe = recipe
        self._kept: dict[tuple[str, int], tuple[U8, U8]] = {}
        self._room = _room()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.cases)

    def plain(self, number: int) -> tuple[U8, U8]:
        """Image and mask at network size as `gms-rt infer` resizes them, not augmented."""
        return self._keep("plain", number, self._resized)

    def view(self, number: int, view: int) -> tuple[U8, U8]:
        """The view of this number; views are drawn from the seed and do not repeat."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, _VIEW, view, number])
        if recipe.augment_at == "native":
            stored = self._keep("native", number, lambda case: read_case(self.cases[case]))
            return self._resize(*augment(*stored, recipe, rng))
        if recipe.image_resize == "area" and recipe.mask_resize == "half":
            return augment(*self.plain(number), recipe, rng)
        image, mask = self._keep("view", number, lambda case: self._resize(*read_case(self.cases[case])))
        return augment(image, mask, recipe, rng)

    def view_or_plain(self, number: int, view: int) -> tuple[U8, U8]:
        """The view of this number, or for 0 the plain pair."""
        return self.view(number, view) if view else self.plain(number)

    def _resized(self, number: int) -> tuple[U8, U8]:
        image, mask = read_case(self.cases[number])
        size = self.recipe.size
        return resize_image(image, size, size), resize_mask(mask, size, size)

    def _resize(self, image: U8, mask: U8) -> tuple[U8, U8]:
        """To network size, as the recipe says for views."""
        side, recipe = (self.recipe.size, self.recipe.size), self.recipe
        if recipe.image_resize == "bilinear":
            image = np.asarray(cv2.resize(image, side, interpolation=BILINEAR), np.uint8)
        else:
            image = resize_image(image, *side)
        if recipe.mask_resize == "nearest":
            return image, np.asarray(cv2.resize(mask, side, interpolation=cv2.INTER_NEAREST), np.uint8)
        return image, resize_mask(mask, *side)

    def _keep(self, kind: str, number: int, read: Callable[[int], tuple[U8, U8]]) -> tuple[U8, U8]:
        """What `read` gives for this case, from memory where it was kept."""
        key = kind, number
        if key in self._kept:
            return self._kept[key]
        found = read(number)
        size = sum(part.nbytes for part in found)
        with self._lock:  # several threads read
            if key not in self._kept and size <= self._room:
                self._room -= size
                self._kept[key] = found
        return found


def mask_tensor(masks: Sequence[U8]) -> Tensor:
    """N×1×H×W of 0 and 1 from uint8 H×W."""
    return torch.from_numpy(np.stack(masks)[:, None] >= FOREGROUND).to(torch.float32)


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container on it, has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _LIMIT.read_text().strip() if _LIMIT.is_file() else "max"
    return min(memory, int(limit)) if limit.isdigit() else memory


def _room() -> int:
    return max(_KEEP_BYTES, machine_memory() // _KEEP_SHARE)
