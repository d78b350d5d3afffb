"""What a tokenizer loses of the pictures and masks of a data set: `reconstruction.csv` and `reconstruction.json`.

Each case is resized as for a model of this size, encoded and decoded. The mask is then thresholded as a predicted one
is: its Dice is what a pipeline with this tokenizer would reach if its latent mapping model were perfect. Of the image
PSNR and SSIM are taken. A case that cannot be read is listed with its error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import metrics
from gms_rt.arrays import F32, U8
from gms_rt.artifacts import write_json
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.errors import GmsError, UsageError
from gms_rt.evaluate.case_result import write_rows
from gms_rt.evaluate.summary import describe_values
from gms_rt.scan.mask import mask_from_probability, resize_mask
from gms_rt.scan.segmenter import prepare_image

TABLE, SUMMARY = "reconstruction.csv", "reconstruction.json"
DEFINITIONS = {
    "mask_dice": "Dice of the true mask at network size to itself after encoding, decoding, the mean over RGB and the "
    "threshold of 0.5: the most that a model with this tokenizer can reach",
    "image_psnr": "10 log10(1 / mean squared error) over RGB, values from 0 to 1, in dB; images without any error "
    "are counted in exact_images and are in no mean",
    "image_ssim": "Wang et al. 2004, Gaussian window of 11x11 and 1.5 pixels, mean over places and RGB",
}


@dataclass(frozen=True)
class ReconstructedCase:
    """One row of `reconstruction.csv`, at network size."""

    name: str
    mask_dice: float = math.nan
    mask_iou: float = math.nan
    mask_hd95: float = math.nan
    image_psnr: float = math.nan
    image_ssim: float = math.nan
    truth_pixels: int = 0
    error: str = ""


@dataclass(frozen=True)
class Reconstructor:
    """What is judged, and at which size."""

    reconstruct: Callable[[U8], F32]  # N×H×W×3 levels to N×H×W×3 values, 0 to 1
    size: int  # side of the pictures
    facts: dict[str, Any]  # about data and tokenizer, for the summary
    progress: Callable[[int, str], None] | None = None  # called after each case with 1 and the mean mask Dice so far


def evaluate_reconstruction(cases: Sequence[Case], what: Reconstructor, out: Path) -> dict[str, Any]:
    """Encode and decode every case, and write the result into `out`; the summary."""
    if not cases:
        raise UsageError("there are no cases to reconstruct", where=out, fix="choose another --split")
    results: list[ReconstructedCase] = []
    for case in cases:
        results.append(_result(case, what))
        if what.progress is not None:
            scores = [r.mask_dice for r in results if not r.error]
            what.progress(1, f"mask Dice {np.mean(scores):.4f}" if scores else "")
    summary = {**what.facts, "size": what.size, "definitions": DEFINITIONS, **summarise_reconstruction(results)}
    write_rows(out / TABLE, ReconstructedCase, results)
    write_json(out / SUMMARY, summary)
    return summary


def summarise_reconstruction(results: Sequence[ReconstructedCase]) -> dict[str, Any]:
    """Means, spreads and intervals over the cases that could be read."""
    good = [r for r in results if not r.error]

    def described(name: str) -> dict[str, float | list[float]] | None:
        return describe_values([value for r in good if math.isfinite(value := float(getattr(r, name)))])

    return {
        "cases": {"all": len(results), "failed": len(results) - len(good)},
        "exact_images": sum(math.isinf(r.image_psnr) for r in good),
        "mask": {name: described(f"mask_{name}") for name in ("dice", "iou", "hd95")},
        "image": {name: described(f"image_{name}") for name in ("psnr", "ssim")},
    }


def _result(case: Case, what: Reconstructor) -> ReconstructedCase:
    try:
        image, truth = read_case(case)
    except GmsError as error:
        return ReconstructedCase(case.name, error=error.line())
    shown, mask = prepare_image(image, what.size, what.size), resize_mask(truth, what.size, what.size)
    # One at a time, as a model sees them: what a batch holds must not decide about a case.
    drawn = what.reconstruct(shown[None])[0].clip(0, 1)
    found = mask_from_probability(what.reconstruct(np.repeat(mask[None, ..., None], 3, axis=3))[0].mean(axis=2))
    pixels = np.asarray(shown / np.float32(255), np.float32)
    return ReconstructedCase(
        case.name,
        metrics.dice(found, mask),
        metrics.iou(found, mask),
        metrics.hd95(found, mask),
        metrics.psnr(drawn, pixels),
        metrics.ssim(drawn, pixels),
        int(np.count_nonzero(mask)),
    )
