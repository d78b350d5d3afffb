"""The images of a build: those given, else what the graph brings.

No image both calibrates and judges, and none judges twice. Where there are enough, INT8 is searched for with a third
set, so that the gate judges once, on images that no choice was made by. Where the graph's own reference pictures give
ranges or a gate, the certificate is about the others of them: only these come into the engine's folder.
How many is the request's to limit: a slow machine takes fewer, and the manifest says how many judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from gms_rt.demo.phantoms import phantom_images
from gms_rt.demo.seeds import CALIBRATION_SEEDS, GATE_SEEDS, SEARCH_SEEDS
from gms_rt.engine.golden import Golden, read_golden
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.source import SourceGraph
from gms_rt.errors import UsageError
from gms_rt.precision.images import ImageSet, halves, read_images, sixths
from gms_rt.precision.learned import has_learned_ranges

_LIMIT_CALIBRATION, _LIMIT_SEARCH, _LIMIT_GATE = 64, 128, 200
_ENOUGH_FOR_THREE = 90  # images of which a part can serve the search alone
_FEWEST_REFERENCES = 4  # reference pictures that can be shared out; fewer are all for the certificate
REFERENCE = "the graph's reference pictures"


@dataclass(frozen=True)
class BuildImages:
    """Images at the graph's size."""

    calibration: ImageSet | None  # give the ranges; None where none are needed
    gate: ImageSet | None  # masks are compared on these; None where there are none
    note: str = ""  # what whoever judges the engine should know about them
    search: ImageSet | None = None  # INT8 is chosen by these; None: by the gate's
    reference: Golden | None = None  # what the certificate is about; None where the graph came without


def build_images(request: BuildRequest, source: SourceGraph) -> BuildImages:
    """The images that a request names, or those that stand in for them; no more than it wants."""
    reference = read_golden(source.reference) if source.reference.is_file() else None
    images = _all_images(request, source, reference)
    calibration = images.calibration and images.calibration.at_most(request.calibration_limit)
    gate = images.gate and images.gate.distinct().at_most(request.gate_limit)
    images = dataclasses.replace(images, calibration=calibration, gate=gate)
    return images if reference is None else _certified_on_others(images, reference)


def _certified_on_others(images: BuildImages, reference: Golden) -> BuildImages:
    """The same build, its certificate about those reference pictures that have no other part in it."""
    sets = [each for each in (images.calibration, images.search, images.gate) if each is not None]
    used = {digest for each in sets for digest in each.each_sha256()}
    digests = ImageSet(reference.images, REFERENCE).each_sha256()
    left = [place for place, digest in enumerate(digests) if digest not in used]
    if len(left) == len(digests):
        return dataclasses.replace(images, reference=reference)
    return dataclasses.replace(images, reference=reference.part(left) if left else None)


def _all_images(request: BuildRequest, source: SourceGraph, reference: Golden | None) -> BuildImages:
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
    learned = request.precision == "int8" and has_learned_ranges(source.graph)
    if request.precision == "fp32" or ((learned or request.recipe is not None) and gate is not None):
        return BuildImages(None, gate)
    if request.precision == "int8" and request.recipe is None and not learned:
        raise UsageError(
            "INT8 is calibrated on images like those it will see",
            where="--precision int8",
            fix="give a folder of them with --calib",
        )
    ranged = request.precision == "fp16" and request.recipe is None
    if reference is not None and not reference.synthetic:
        parts = _shared_out(reference, ("ranges",) * ranged + ("gate",) * (gate is None))
        if parts:
            words = " and ".join(f"{len(each.images)} for {name}" for name, each in parts.items())
            note = f"no images were given for it: of {REFERENCE} {words}, the certificate is about the others"
            return BuildImages(parts.get("ranges"), gate or parts["gate"], note)
    if not ranged:
        return BuildImages(None, gate)
    note = "no calibration images were given: ranges are those of phantoms"
    return BuildImages(phantoms(calibration_seeds, height, width), gate or phantoms(gate_seeds, height, width), note)


def _shared_out(reference: Golden, wanted: Collection[str]) -> dict[str, ImageSet]:
    """A quarter of the reference pictures for each of two uses, half of them for one; none where there are too few.

    A picture that is there twice serves one use only.
    """
    distinct = ImageSet(reference.images, REFERENCE).distinct().images
    if not wanted or len(distinct) < _FEWEST_REFERENCES:
        return {}
    step = 2 * len(wanted)
    starts = {name: 2 * place for place, name in enumerate(wanted)}
    return {name: ImageSet(distinct[start::step], f"{REFERENCE} (one of {step})") for name, start in starts.items()}


def phantoms(seeds: range, height: int, width: int) -> ImageSet:
    """Phantoms as calibration or gate images."""
    name = f"phantoms, seeds {seeds.start} to {seeds.stop - 1}"
    return ImageSet(phantom_images(seeds, height, width), name, synthetic=True)


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
