"""One case, segmented and measured: by one model, or by several and by the mean of their probabilities.

Dice, IoU, HD95 and NSD are taken twice: at the picture's own size, as `gms-rt infer` makes the mask, and at 224x224, as
the published numbers are; lesions are counted at the picture's own size. A case that cannot be read or segmented
becomes a result with its error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gms_rt import metrics
from gms_rt.arrays import F32, U8
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.errors import GmsError, InputError
from gms_rt.evaluate.case_result import CaseResult
from gms_rt.scan.mask import mask_from_probability, resize_mask
from gms_rt.scan.segmenter import Segmenter

COMMON = (224, 224)


class Scale(NamedTuple):
    """What distances are measured in."""

    spacing: tuple[float, float] = (1.0, 1.0)  # of rows and columns at source size; at 224x224 it is one pixel
    tolerance: float = metrics.TOLERANCE  # of the surface Dice, in units of the spacing, and in pixels at 224x224


DEFAULT_SCALE = Scale()


class _Drawn(NamedTuple):
    """What a model says about one picture: probabilities (0-1) at its own size and at 224x224."""

    source: F32
    common: F32
    seconds: float


def results_from_case(case: Case, segmenters: Sequence[Segmenter], scale: Scale) -> tuple[list[CaseResult], CaseResult]:
    """Each model's result, and that of their mean; of one model, both are the same."""
    try:
        image, truth = read_case(case)
    except InputError as error:
        failed = CaseResult(case.name, error=error.line())
        return [failed] * len(segmenters), failed
    drawn, results = [], []
    for segmenter in segmenters:
        try:
            one = _draw(segmenter, image, truth.shape)
        except GmsError as error:
            results.append(CaseResult(case.name, truth.shape[0], truth.shape[1], error=error.line()))
        else:
            drawn.append(one)
            results.append(_measure(case.name, truth, one, scale))
    failed_ones = [result for result in results if result.error]
    if failed_ones or len(results) == 1:
        return results, (failed_ones or results)[0]
    return results, _measure(case.name, truth, _mean(drawn), scale)


def mean_mask(segmenters: Sequence[Segmenter], image: U8) -> U8:
    """The mask of the mean probability of these models."""
    return mask_from_probability(np.mean([segmenter.probability(image) for segmenter in segmenters], axis=0))


def _draw(segmenter: Segmenter, image: U8, shape: tuple[int, ...]) -> _Drawn:
    began = time.perf_counter()
    levels = segmenter.levels(image)
    seconds = time.perf_counter() - began
    return _Drawn(segmenter.restore(levels, shape), segmenter.restore(levels, COMMON), seconds)


def _mean(drawn: Sequence[_Drawn]) -> _Drawn:
    source, common, seconds = zip(*drawn, strict=True)
    return _Drawn(np.mean(source, axis=0), np.mean(common, axis=0), sum(seconds))


def _measure(name: str, truth: U8, drawn: _Drawn, scale: Scale) -> CaseResult:
    found, small = mask_from_probability(drawn.source), mask_from_probability(drawn.common)
    small_truth = resize_mask(truth, *COMMON)
    far = metrics.surface_distances(found, truth, scale.spacing)
    far_small = metrics.surface_distances(small, small_truth)
    counts = metrics.match_lesions(truth, found)
    return CaseResult(
        name=name,
        height=truth.shape[0],
        width=truth.shape[1],
        dice=metrics.dice(found, truth),
        iou=metrics.iou(found, truth),
        hd95=metrics.hd95_from_distances(far),
        dice_224=metrics.dice(small, small_truth),
        iou_224=metrics.iou(small, small_truth),
        hd95_224=metrics.hd95_from_distances(far_small),
        truth_pixels=int(np.count_nonzero(truth)),
        predicted_pixels=int(np.count_nonzero(found)),
        seconds=drawn.seconds,
        nsd=metrics.surface_dice_from_distances(far, scale.tolerance),
        nsd_224=metrics.surface_dice_from_distances(far_small, scale.tolerance),
        lesions=counts.lesions,
        lesions_found=counts.found,
        false_regions=counts.false_alarms,
    )
