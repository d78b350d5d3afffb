"""A large image segmented in overlapping tiles at its own scale, blended so that no seam is seen.

Weights fall off towards a tile's edges in a straight line. They are a product of a row and a column weight, so their
sum is one too, and only one band of rows is held as float at a time.
"""

from __future__ import annotations

import cv2
import numpy as np

from gms_rt.arrays import F32, U8
from gms_rt.scan.segmenter import Segmenter, prepare_image

_BATCH = 8


def starts(length: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along one axis: evenly spread, at least `overlap` of a tile shared, the last one at the end.

    >>> starts(500, 224, 0.25)
    [0, 138, 276]
    """
    if length <= tile:
        return [0]
    count = 1 + int(np.ceil((length - tile) / max(1, round(tile * (1 - overlap)))))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def predict_in_tiles(image: U8, model: Segmenter, tile: int, overlap: float) -> U8:
    """The probability map (0-255) of a whole image at its own size, from tiles of this many pixels."""
    height, width = image.shape[:2]
    tall, wide = max(height, tile), max(width, tile)
    if (tall, wide) != (height, width):  # smaller than a tile: mirror it outwards
        image = _mirror(image, tall, wide)
    rows, columns = starts(tall, tile, overlap), starts(wide, tile, overlap)
    weight = _ramp(tile)
    row_sum, column_sum = _sum_weights(rows, weight, tall), _sum_weights(columns, weight, wide)
    result = np.empty((tall, wide), np.uint8)
    band = np.zeros((tile, wide), np.float32)
    for index, top in enumerate(rows):
        for left, probability in _row_of_tiles(image[top : top + tile], model, columns, tile):
            band[:, left : left + tile] += probability * weight[:, None] * weight
        below = rows[index + 1] if index + 1 < len(rows) else tall
        done = below - top
        blended = band[:done] / row_sum[top:below, None] / column_sum
        result[top:below] = np.clip(np.rint(blended), 0, 255)
        band[: tile - done] = band[done:].copy()
        band[tile - done :] = 0
    return result[:height, :width]


def _row_of_tiles(band: U8, model: Segmenter, columns: list[int], tile: int) -> list[tuple[int, F32]]:
    found = []
    for first in range(0, len(columns), _BATCH):
        lefts = columns[first : first + _BATCH]
        crops = [prepare_image(band[:, left : left + tile], model.height, model.width) for left in lefts]
        maps = model.infer(np.stack(crops))
        for left, probability in zip(lefts, maps, strict=True):
            values = probability.astype(np.float32)
            if values.shape != (tile, tile):
                values = np.asarray(cv2.resize(values, (tile, tile), interpolation=cv2.INTER_LINEAR), np.float32)
            found.append((left, values))
    return found


def _ramp(tile: int) -> F32:
    distance = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1))
    return np.asarray(distance / distance.max(), np.float32)


def _sum_weights(begins: list[int], weight: F32, length: int) -> F32:
    total = np.zeros(length, np.float32)
    for begin in begins:
        total[begin : begin + len(weight)] += weight
    return total


def _mirror(image: U8, height: int, width: int) -> U8:
    # One reflection cannot fill more than the image's own size, so tiny images repeat it.
    rows = np.pad(np.arange(image.shape[0]), (0, height - image.shape[0]), mode="symmetric")
    columns = np.pad(np.arange(image.shape[1]), (0, width - image.shape[1]), mode="symmetric")
    return np.asarray(image[rows][:, columns], np.uint8)
