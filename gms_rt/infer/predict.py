"""Images to probability maps: whole or in tiles, plain or averaged over flips."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from gms_rt.arrays import F32, U8
from gms_rt.engine.loaded import Engine
from gms_rt.errors import UsageError
from gms_rt.infer.options import InferOptions
from gms_rt.infer.postprocess import clean_mask
from gms_rt.infer.tiles import predict_in_tiles
from gms_rt.scan.flips import infer_over_flips
from gms_rt.scan.mask import mask_from_probability
from gms_rt.scan.segmenter import Infer, Segmenter


class Predictor(Segmenter):
    """An engine with the options that decide what it sees. It may be called from many threads."""

    def __init__(self, engine: Engine, options: InferOptions) -> None:
        infer: Infer = engine.runner.infer
        if options.tta:
            if engine.manifest.flips:
                raise UsageError(
                    f"averages over flips by itself ({engine.manifest.flips})",
                    where=engine.folder,
                    fix="leave --tta away",
                )
            infer = infer_over_flips(infer, options.flips or "both", engine.height, engine.width)
        super().__init__(infer, engine.height, engine.width)
        self.engine = engine
        self.options = options

    def prepare(self, image: U8) -> U8:
        """What travels to the engine: the image at network size, or itself where it is cut into tiles."""
        return image if self.options.tile else super().prepare(image)

    def predict(self, prepared: list[U8]) -> list[NDArray[Any]]:
        """Probability maps (0-255): at network size, or at source size where tiled."""
        if not self.options.tile:
            return super().predict(prepared)
        return [predict_in_tiles(image, self, self.options.tile, self.options.overlap) for image in prepared]

    def mask(self, restored: F32) -> U8:
        """The mask of 0 and 255 of a probability map (0-1) at source size, cleaned as the options say."""
        options = self.options
        found = mask_from_probability(restored, options.threshold)
        return clean_mask(found, largest=options.largest, fill=options.fill_holes, min_area=options.min_area)
