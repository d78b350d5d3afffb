"""The pictures of a training, decoded once at network size: in memory where they fit, else in a file that is mapped.

What the student sees is what `gms-rt infer` would show it; views are made from these on the device.
"""

from __future__ import annotations

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
    """Pictures in their order: first those with a mask, then those without."""

    names: tuple[str, ...]
    images: U8  # N×H×W×3
    masks: U8  # N×H×W of 0 and 255; without a mask, of 0
    labelled: int  # how many have a mask

    def __len__(self) -> int:
        return len(self.names)

    def with_masks(self) -> Pictures:
        """Those with a mask alone."""
        count = self.labelled
        return Pictures(self.names[:count], self.images[:count], self.masks[:count], count)


def read_pictures(
    cases: Sequence[Case], unlabelled: Sequence[Path], size: int, spill: Path, progress: OnRead | None = None
) -> Pictures:
    """Decode all pictures; `spill` is the folder for those that do not fit into memory."""
    names = (*(case.name for case in cases), *(path.stem for path in unlabelled))
    images = room_for((len(names), size, size, 3), spill / "images.npy")
    masks = room_for((len(names), size, size), spill / "masks.npy")

    def read(number: int) -> None:
        if number < len(cases):
            image, mask = read_case(cases[number])
            images[number], masks[number] = resize_image(image, size, size), resize_mask(mask, size, size)
        else:
            images[number] = image_from_scan(unlabelled[number - len(cases)], size, size)
            masks[number] = 0

    with ThreadPoolExecutor(min(_READERS, cpu_from_files().cores), thread_name_prefix="pictures") as pool:
        for start in range(0, len(names), _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, len(names)))
            for _ in pool.map(read, numbers):
                pass
            if progress is not None:
                progress(numbers[-1] + 1, len(names))
    return Pictures(names, images, masks, len(cases))


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
    """An array of this shape: in memory where it fits, else in the file `spill`."""
    wanted = int(np.prod(shape)) * np.dtype(kind).itemsize
    if wanted <= machine_memory() // _MEMORY_SHARE or not wanted:
        return np.empty(shape, kind)
    spill.parent.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(spill, "w+", np.dtype(kind), shape)
