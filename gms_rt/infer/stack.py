"""The masks of a source's frames, kept small until all are in: bits for masks, compressed levels for probabilities."""

from __future__ import annotations

import zlib

import numpy as np

from gms_rt.arrays import U8


class MaskStack:
    """Masks (and probabilities, where given) by frame number. Add from one thread at a time."""

    def __init__(self) -> None:
        self._bits: dict[int, tuple[tuple[int, ...], U8]] = {}
        self._levels: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._bits)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the frames that are in, in order."""
        return sorted(self._bits)

    @property
    def even(self) -> bool:
        """Whether all frames have one size."""
        return len({shape for shape, _ in self._bits.values()}) <= 1

    def add(self, number: int, mask: U8, levels: U8 | None = None) -> None:
        """Keep a frame's mask (non-zero is foreground) and its probabilities of 0-255."""
        self._bits[number] = (mask.shape, np.packbits(mask != 0))
        if levels is not None:
            self._levels[number] = zlib.compress(levels.tobytes(), 1)

    def mask(self, number: int) -> U8:
        """One frame's mask of 0 and 1."""
        shape, bits = self._bits[number]
        return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape)

    def labels(self) -> U8:
        """All frames as a label map: 0 is background, 1 the first class."""
        return np.stack([self.mask(number) for number in self.numbers])

    def probabilities(self) -> U8 | None:
        """All frames' probabilities of 0-255, None where they were not kept."""
        if not self._bits or len(self._levels) != len(self._bits):
            return None
        shape = self._bits[self.numbers[0]][0]
        return np.stack(
            [np.frombuffer(zlib.decompress(self._levels[number]), np.uint8).reshape(shape) for number in self.numbers]
        )

    def clear(self) -> None:
        """Forget everything."""
        self._bits.clear()
        self._levels.clear()
