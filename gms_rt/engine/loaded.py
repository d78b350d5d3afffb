"""An engine folder, loaded: images of any size in, masks at source size out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from gms_rt import scan
from gms_rt.arrays import U8
from gms_rt.engine.manifest import EngineManifest
from gms_rt.errors import InputError
from gms_rt.runtime.base import Runner
from gms_rt.scan.mask import mask_from_probability


class Engine:
    """A loaded engine; call it with an image, or give `batch` many. Use it as a context manager.

    It may be called from many threads. Images are uint8, H×W or H×W×3 (RGB); masks are uint8 with 0 and 255.
    """

    def __init__(self, folder: Path, manifest: EngineManifest, runner: Runner) -> None:
        self.folder = folder
        self.manifest = manifest
        self.runner = runner

    def __call__(self, image: U8, *, threshold: float = 0.5) -> U8:
        """The mask of one image, at the image's size."""
        return mask_from_probability(self.probability(image), threshold)

    def probability(self, image: U8) -> NDArray[np.float32]:
        """The foreground probability (0-1) of each pixel of one image, at the image's size."""
        return self.restore(self.runner.infer(self.prepare(image)[None])[0], image.shape)

    def batch(self, images: Sequence[U8], *, threshold: float = 0.5) -> list[U8]:
        """The masks of many images, of any sizes, in order."""
        if not images:
            return []
        raw = self.runner.infer(np.stack([self.prepare(image) for image in images]))
        return [
            mask_from_probability(self.restore(probability, image.shape), threshold)
            for probability, image in zip(raw, images, strict=True)
        ]

    def prepare(self, image: U8) -> U8:
        """An image at network size, RGB."""
        if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))):
            raise InputError(
                f"an image of type {image.dtype} and shape {image.shape} cannot be segmented",
                fix="give uint8, H×W or H×W×3 in RGB order",
            )
        if image.size == 0:
            raise InputError(f"an image of shape {image.shape} is empty")
        return scan.resize_image(scan.rgb(image), self.manifest.height, self.manifest.width)

    def restore(self, probability: U8, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A probability map of network size (0-255), back at source size (0-1)."""
        return scan.resize_probability(probability, shape[0], shape[1])

    def close(self) -> None:
        """Release the runner; a second call does nothing."""
        self.runner.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.runner.info
        return f"<Engine {self.manifest.name}: {self.manifest.precision} on {info.device}, {info.execution}>"
