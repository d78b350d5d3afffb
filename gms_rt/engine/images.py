"""The images of a build: those given, else what the graph brings.

No image both calibrates and judges, and none judges twice. Where there are enough, INT8 is searched for with a third
set, so that the gate judges once, on images that no choice was made by.
How many is the request's to limit: a slow machine takes fewer, and the manifest says how many judged.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from gms_rt.demo.phantoms import phantom_images
from gms_rt.demo.seeds import CALIBRATION_SEEDS, GATE_SEEDS, SEARCH_SEEDS
from gms_rt.engine.golden import read_golden
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.source import SourceGraph
from gms_rt.errors import UsageError
from gms_rt.precision.images import ImageSet, halves, read_images, sixths

_LIMIT_CALIBRATION, _LIMIT_SEARCH, _LIMIT_GATE = 64, 128, 200
_ENOUGH_FOR_THREE = 90  # images of which a part can serve the search alone


@dataclass(frozen=True)
class BuildImages:
    """Images at the graph's size."""

    calibration: ImageSet | None  # give the ranges; None where none are needed
    gate: ImageSet | None  # masks are compared on these; None where there are none
    note: str = ""  # what whoever judges the engine should know about them
    search: ImageSet | None = None  # INT8 is chosen by these; None: by the gate's


def build_images(request: BuildRequest, source: SourceGraph) -> BuildImages:
    """The images that a request names, or those that stand in for them; no more than it wants."""
    images = _all_images(request, source)
    calibration = images.calibration and images.calibration.at_most(request.calibration_limit)
    gate = images.gate and images.gate.distinct().at_most(request.gate_limit)
    return dataclasses.replace(images, calibration=calibration, gate=gate)


def _all_images(request: BuildRequest, source: SourceGraph) -> BuildImages:
    _, height, width = source.graph.size
    if request.calibration is not None:
        return _given(request, height, width)
    gate = _gate_images(request, height, width, frozenset())
    calibration_seeds = CALIBRATION_SEEDS[: request.calibration_limit]
    gate_seeds = GATE_SEEDS[: request.gate_limit]
    if source.bundled:
        search = phantoms(SEARCH_SEEDS, height, width) if _promised(request) else None
        gate = gate or phantoms(gate_seeds, height, width)
        return BuildImages(phantoms(calibration_seeds, height, width), gate, search=search)
    if request.precision in ("fp32", "bf16") or request.recipe is not None:
        return BuildImages(None, gate)
    if request.precision == "int8":
        raise UsageError(
            "INT8 is calibrated on images like those it will see",
            where="--precision int8",
            fix="give a folder of them with --calib",
        )
    if source.reference.is_file():
        both = ImageSet(read_golden(source.reference).images, "the graph's reference pictures")
        first, rest = halves(both)
        note = (
            "no calibration images were given: ranges are those of reference pictures, which the certificate is about"
        )
        return BuildImages(first, gate or rest, note)
    note = "no calibration images were given: ranges are those of phantoms"
    return BuildImages(phantoms(calibration_seeds, height, width), gate or phantoms(gate_seeds, height, width), note)


def phantoms(seeds: range, height: int, width: int) -> ImageSet:
    """Phantoms as calibration or gate images."""
    return ImageSet(phantom_images(seeds, height, width), f"phantoms, seeds {seeds.start} to {seeds.stop - 1}")


def _given(request: BuildRequest, height: int, width: int) -> BuildImages:
    calibration = request.calibration
    assert calibration is not None
    searching = _searched(request)
    if not isinstance(calibration, ImageSet):
        limit = request.calibration_limit or _LIMIT_CALIBRATION
        limit += _LIMIT_SEARCH if searching and not request.calibration_limit else 0
        limit += (request.gate_limit or _LIMIT_GATE) if request.gate_images is None else 0
        calibration = read_images(calibration, height, width, limit=limit)
    three = searching and len(calibration.images) >= _ENOUGH_FOR_THREE
    if request.gate_images is None:
        if three:
            ranges, search, gate = sixths(calibration)
            return BuildImages(ranges, gate, search=search)
        ranges, gate = halves(calibration)
        return BuildImages(ranges, gate, search=ranges if _promised(request) else None)
    gate_images = _gate_images(request, height, width, frozenset(calibration.each_sha256()))
    if three:
        ranges, search = halves(calibration)
        return BuildImages(ranges, gate_images, search=search)
    return BuildImages(calibration, gate_images, search=calibration if _promised(request) else None)


def _promised(request: BuildRequest) -> bool:
    """Whether INT8 must be chosen by other images than the gate's: by those that give the ranges, if by no others."""
    return _searched(request) and request.gate.coverage is not None


def _searched(request: BuildRequest) -> bool:
    """Whether a choice by images is to be made: INT8 without a recipe that made it."""
    return request.precision == "int8" and request.recipe is None


def _gate_images(request: BuildRequest, height: int, width: int, skip: frozenset[str]) -> ImageSet | None:
    if request.gate_images is None or isinstance(request.gate_images, ImageSet):
        return request.gate_images
    return read_images(request.gate_images, height, width, limit=request.gate_limit or _LIMIT_GATE, skip=skip)
