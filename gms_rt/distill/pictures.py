"""The pictures of a training, decoded once at network size: in memory where they fit, else in a file that is mapped.

What the student sees is what `gms-rt infer` would show it; views are made from these on the device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.distill.mixed import Mixing, mixed_picture
from gms_rt.errors import UsageError
from gms_rt.runtime.device import cpu_from_files
from gms_rt.scan import resize_image
from gms_rt.scan.choose import image_from_scan, scans_from_place
from gms_rt.scan.mask import resize_mask
from gms_rt.train.samples import machine_memory

_AT_ONCE = 256  # pictures that are read before progress is told
_MEMORY_SHARE = 4  # this part of the machine's memory may hold pictures
_READERS = 8
OnRead = Callable[[int, int], None]


@dataclass(frozen=True)
class Pictures:
    """Pictures in their order: first those with a mask, then those without, last those that were made of the first."""

    names: tuple[str, ...]
    images: U8  # N×H×W×3
    masks: U8  # N×H×W of 0 and 255; without a mask, of 0
    labelled: int  # how many have a mask
    mixed: int = 0  # how many were made

    def __len__(self) -> int:
        return len(self.names)

    @property
    def unlabelled(self) -> int:
        """How many were given without a mask."""
        return len(self) - self.labelled - self.mixed

    def with_masks(self) -> Pictures:
        """Those with a mask alone."""
        count = self.labelled
        return Pictures(self.names[:count], self.images[:count], self.masks[:count], count)


def read_pictures(
    cases: Sequence[Case],
    unlabelled: Sequence[Path],
    size: int,
    spill: Path,
    progress: OnRead | None = None,
    mixing: Mixing | None = None,
) -> Pictures:
    """Decode all pictures, and mix others of the cases' own; `spill` is the folder for what memory does not hold."""
    made = mixing.each * len(cases) if mixing else 0
    stored = len(cases) + len(unlabelled)
    mixes = (f"mixed-{number:06}" for number in range(made))
    names = (*(case.name for case in cases), *(path.stem for path in unlabelled), *mixes)
    images = room_for((len(names), size, size, 3), spill)
    masks = room_for((len(names), size, size), spill)

    def read(number: int) -> None:
        if number < len(cases):
            image, mask = read_case(cases[number])
            images[number], masks[number] = resize_image(image, size, size), resize_mask(mask, size, size)
        elif number >= stored:
            assert mixing is not None
            images[number], masks[number] = mixed_picture(images[: len(cases)], number - stored, mixing), 0
        else:
            images[number] = image_from_scan(unlabelled[number - len(cases)], size, size)
            masks[number] = 0

    with ThreadPoolExecutor(min(_READERS, cpu_from_files().cores), thread_name_prefix="pictures") as pool:
        # What is mixed needs all that was read, so no group has both.
        starts = (*range(0, stored, _AT_ONCE), *range(stored, len(names), _AT_ONCE))
        for start, end in zip(starts, (*starts[1:], len(names)), strict=True):
            numbers = range(start, end)
            for _ in pool.map(read, numbers):
                pass
            if progress is not None:
                progress(numbers[-1] + 1, len(names))
    return Pictures(names, images, masks, len(cases), made)


def unlabelled_scans(places: Sequence[Path]) -> list[Path]:
    """The scans of some folders or lists, each once."""
    found: dict[Path, None] = {}
    for place in places:
        scans = scans_from_place(place)
        if not scans:
            raise UsageError("has no picture", where=place, fix="name a folder of pictures with --unlabelled")
        found |= dict.fromkeys(path.resolve() for path in scans)
    return list(found)


def room_for(shape: tuple[int, ...], spill: Path, kind: Any = np.uint8) -> NDArray[Any]:
    """An array of this shape: in memory where it fits, else in a nameless file in the folder `spill`."""
    wanted = int(np.prod(shape)) * np.dtype(kind).itemsize
    if wanted <= machine_memory() // _MEMORY_SHARE or not wanted:
        return np.empty(shape, kind)
    spill.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=spill) as stream:  # lives as long as its mapping
        return np.memmap(stream, np.dtype(kind), "w+", shape=shape)
