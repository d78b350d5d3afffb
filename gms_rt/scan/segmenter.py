"""The order of an image's way through a model: prepare_image, infer, restore, threshold. It stands nowhere else.

What computes the probabilities does not matter: an engine, a run in PyTorch, an average over flips. A caller that
overlaps the steps, or times them, calls them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import F32, U8
from gms_rt.errors import InputError
from gms_rt.scan.geometry import resize_image, resize_probability, rgb
from gms_rt.scan.mask import mask_from_probability

Infer = Callable[[U8], NDArray[Any]]  # N×H×W×3 at network size to levels N×H×W of 0-255


class Segmenter:
    """A model of one input size; call it with an image, or give `batch` many.

    Images are uint8, H×W or H×W×3 (RGB), of any size; masks are uint8 with 0 and 255 at the image's size.
    """

    def __init__(self, infer: Infer, height: int, width: int) -> None:
        self.infer = infer
        self.height = height
        self.width = width

    def __call__(self, image: U8, *, threshold: float = 0.5) -> U8:
        """The mask of one image, at the image's size."""
        return mask_from_probability(self.probability(image), threshold)

    def batch(self, images: Sequence[U8], *, threshold: float = 0.5) -> list[U8]:
        """The masks of many images, of any sizes, in order."""
        if not images:
            return []
        found = self.predict([self.prepare(image) for image in images])
        return [
            mask_from_probability(self.restore(levels, image.shape), threshold)
            for levels, image in zip(found, images, strict=True)
        ]

    def probability(self, image: U8) -> F32:
        """The foreground probability (0-1) of each pixel of one image, at the image's size."""
        return self.restore(self.levels(image), image.shape)

    def levels(self, image: U8) -> NDArray[Any]:
        """The probability map (0-255) of one image, at network size."""
        return self.predict([self.prepare(image)])[0]

    def prepare(self, image: U8) -> U8:
        """An image at network size, RGB."""
        return prepare_image(image, self.height, self.width)

    def predict(self, prepared: list[U8]) -> list[NDArray[Any]]:
        """The probability maps (0-255) of prepared images."""
        one = len(prepared) == 1  # need not be copied
        return list(self.infer(prepared[0][None] if one else np.stack(prepared)))

    def restore(self, levels: NDArray[Any], shape: tuple[int, ...]) -> F32:
        """A probability map (0-255), at the size of an image of this shape and from 0 to 1."""
        return resize_probability(levels, shape[0], shape[1])


def prepare_image(image: U8, height: int, width: int) -> U8:
    """An image as a model of this size takes it: resized, RGB."""
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))):
        raise InputError(
            f"an image of type {image.dtype} and shape {image.shape} cannot be segmented",
            fix="give uint8, H×W or H×W×3 in RGB order",
        )
    if image.size == 0:
        raise InputError(f"an image of shape {image.shape} is empty")
    return resize_image(rgb(image), height, width)
