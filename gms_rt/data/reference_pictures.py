"""Reference pictures of a graph: which pictures the FP32 original's masks are stored for. Needs no torch.

Pictures of the model's own domain: those that are named, else validation pictures of the data that the run was trained
on, which had no part in its weights. Only where there are none phantoms are drawn, and marked so: no verdict rests on
them. The pictures are stored with the graph and travel with every engine built from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.data.layouts import Case, recognise
from gms_rt.data.reading import read_mask
from gms_rt.data.validation_part import validation_part
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import REFERENCE_SEEDS
from gms_rt.errors import GmsError, UsageError
from gms_rt.scan import resize_probability
from gms_rt.scan.choose import evenly, image_from_scan, scans_from_place
from gms_rt.scan.mask import mask_from_probability

# Builds without images of their own take ranges, gate and certificate from different ones of these.
REFERENCE_LIMIT = 24
PHANTOMS = "phantoms"  # instead of a place: store none of the model's own pictures


@dataclass(frozen=True)
class ReferencePictures:
    """The pictures whose masks are stored with a graph."""

    images: U8  # [K,H,W,3] RGB at the graph's size
    truth: U8 | None  # [K,H,W] masks of 0 and 255, where the truth is known
    names: list[str]  # one for each picture, for reports
    source: str  # which pictures these are, in words
    synthetic: bool = False  # drawn because nothing else was known


def phantom_pictures(height: int, width: int, why: str = "") -> ReferencePictures:
    """Phantoms that nothing was trained on; `why` says why there is nothing better."""
    drawn = [phantom(seed, height, width) for seed in REFERENCE_SEEDS]
    names = [f"phantom-{seed}" for seed in REFERENCE_SEEDS]
    source = f"{len(drawn)} phantoms" + (f" ({why})" if why else "")
    images, truth = np.stack([p.rgb for p in drawn]), np.stack([p.mask for p in drawn])
    return ReferencePictures(images, truth, names, source, synthetic=True)


def reference_from_place(place: Path, height: int, width: int) -> ReferencePictures:
    """The pictures of a folder, or of a text file of paths; with true masks where the folder is a data set."""
    if str(place) == PHANTOMS and not place.exists():
        return phantom_pictures(height, width, "as asked")
    cases = _cases(place)
    if cases:
        return _from_cases(evenly(cases, REFERENCE_LIMIT), height, width, place.resolve().name)
    files = evenly(scans_from_place(place), REFERENCE_LIMIT)
    if not files:
        raise UsageError("has no images", where=place, fix="give a folder of images or a text file that lists them")
    images = np.stack([image_from_scan(file, height, width) for file in files])
    return ReferencePictures(images, None, [file.name for file in files], f"{len(files)} pictures of {place.name}")


def reference_from_run(run: Path, height: int, width: int) -> ReferencePictures:
    """Validation pictures of the data a run was trained on, else phantoms that say why."""
    part = validation_part(run, REFERENCE_LIMIT)
    if part.why:
        return phantom_pictures(height, width, part.why)
    try:
        return _from_cases(part.cases, height, width, f"the validation part of {part.name}")
    except (GmsError, OSError) as error:
        return phantom_pictures(height, width, f"the run's data cannot be read: {error}")


def _cases(place: Path) -> Sequence[Case]:
    try:
        return recognise(place).cases if place.is_dir() else ()
    except UsageError:  # pictures without masks
        return ()


def _from_cases(cases: Sequence[Case], height: int, width: int, name: str) -> ReferencePictures:
    images = np.stack([image_from_scan(case.image, height, width) for case in cases])
    truth = [mask_from_probability(resize_probability(read_mask(case), height, width)) for case in cases]
    return ReferencePictures(images, np.stack(truth), [case.name for case in cases], f"{len(cases)} pictures of {name}")
