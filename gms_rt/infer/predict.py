"""Images to probability maps: whole or in tiles, plain or averaged over flips."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.engine.loaded import Engine
from gms_rt.infer.flips import mean_over_flips
from gms_rt.infer.options import InferOptions
from gms_rt.infer.tiles import tiled


class Predictor:
    """An engine with the options that decide what it sees. It may be called from many threads."""

    def __init__(self, engine: Engine, options: InferOptions) -> None:
        self.engine = engine
        self.options = options
        self.size = (engine.manifest.height, engine.manifest.width)

    def prepare(self, image: U8) -> U8:
        """What travels to the engine: the image at network size, or itself where it is cut into tiles."""
        return image if self.options.tile else self.engine.prepare(image)

    def predict(self, prepared: list[U8]) -> list[NDArray[Any]]:
        """Probability maps (0-255): at network size, or at source size where tiled."""
        options = self.options
        if not options.tile:
            return list(self._infer(np.stack(prepared)))
        return [tiled(image, self._infer, self.size, tile=options.tile, overlap=options.overlap) for image in prepared]

    def _infer(self, images: U8) -> NDArray[Any]:
        run = self.engine.runner.infer
        return mean_over_flips(run, images, self.options.flips or "both") if self.options.tta else run(images)
