"""A data set, case by case: `cases.csv`, `summary.json` and a gallery of the worst cases.

Dice, IoU and HD95 are taken twice: at the picture's own size, as `gms-rt infer` makes the mask, and at 224x224, as the
published numbers are. A case that cannot be read is listed with its error and makes the result incomplete; it is never
dropped in silence.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gms_rt import metrics
from gms_rt.artifacts import atomic_path, write_bytes, write_json
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.errors import GmsError, InputError, UsageError
from gms_rt.evaluate.summary import summarise
from gms_rt.scan import resize_image
from gms_rt.scan.encode import encode_picture
from gms_rt.scan.mask import mask_from_probability, resize_mask
from gms_rt.scan.segmenter import Segmenter
from gms_rt.spreadsheet import cell_from_text, text_from_cell

COMMON = (224, 224)
GALLERY = "failures"
_PANEL = 320


@dataclass(frozen=True)
class CaseResult:
    """One row of `cases.csv`. Pixels and HD95 are at the picture's own size, `…_224` at 224x224."""

    name: str
    height: int = 0
    width: int = 0
    dice: float = math.nan
    iou: float = math.nan
    hd95: float = math.nan
    dice_224: float = math.nan
    iou_224: float = math.nan
    hd95_224: float = math.nan
    truth_pixels: int = 0
    predicted_pixels: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def outcome(self) -> str:
        """`failed`, `hit`, `miss` (a lesion, nothing found), `false alarm`, or `both empty`."""
        if self.error:
            return "failed"
        if self.truth_pixels and self.predicted_pixels:
            return "hit"
        if self.truth_pixels:
            return "miss"
        return "false alarm" if self.predicted_pixels else "both empty"


@dataclass(frozen=True)
class Evaluation:
    """All cases and their summary."""

    cases: tuple[CaseResult, ...]
    summary: dict[str, Any]


def evaluate(
    cases: Sequence[Case],
    segmenter: Segmenter,
    out: Path,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    gallery: int = 12,
    facts: dict[str, Any] | None = None,
    progress: Callable[[int, str], None] | None = None,
) -> Evaluation:
    """Segment and measure all cases, and write the result into `out`.

    `facts` (what was evaluated, on what) are written into the summary.
    """
    if not cases:
        raise UsageError("there are no cases to evaluate", where=out, fix="choose another --split")
    results, scored = [], []
    for number, case in enumerate(cases):
        result = _measure(case, segmenter, spacing)
        results.append(result)
        if not result.error:
            scored.append((result.dice, number))
        if progress is not None:
            done = [r.dice for r in results if not r.error]
            progress(1, f"Dice {np.mean(done):.4f}" if done else "")
    summary = {**(facts or {}), "spacing": list(spacing), **summarise(results)}
    _write_cases(out / "cases.csv", results)
    write_json(out / "summary.json", summary)
    worst = [number for score, number in sorted(scored) if score < 1][:gallery]
    _write_gallery(out / GALLERY, [cases[number] for number in worst], segmenter)
    return Evaluation(tuple(results), summary)


def read_cases(folder: Path) -> list[CaseResult]:
    """The rows of an evaluation's `cases.csv`."""
    path = folder / "cases.csv" if folder.is_dir() else folder
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "str": text_from_cell}
        names = {f.name: kinds[str(f.type)] for f in fields(CaseResult)}
        return [CaseResult(**{key: names[key](row[key]) for key in names}) for row in rows]
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})", where=path, fix="name a folder of gms-rt eval"
        ) from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"is not a table of gms-rt eval ({error})", where=path) from error


def _measure(case: Case, segmenter: Segmenter, spacing: tuple[float, float]) -> CaseResult:
    try:
        image, truth = read_case(case)
    except InputError as error:
        return CaseResult(case.name, error=error.line())
    try:
        began = time.perf_counter()
        levels = segmenter.levels(image)
        seconds = time.perf_counter() - began
    except GmsError as error:
        return CaseResult(case.name, truth.shape[0], truth.shape[1], error=error.line())
    found = mask_from_probability(segmenter.restore(levels, truth.shape))
    small, small_truth = mask_from_probability(segmenter.restore(levels, COMMON)), resize_mask(truth, *COMMON)
    return CaseResult(
        name=case.name,
        height=truth.shape[0],
        width=truth.shape[1],
        dice=metrics.dice(found, truth),
        iou=metrics.iou(found, truth),
        hd95=metrics.hd95(found, truth, spacing),
        dice_224=metrics.dice(small, small_truth),
        iou_224=metrics.iou(small, small_truth),
        hd95_224=metrics.hd95(small, small_truth),
        truth_pixels=int(np.count_nonzero(truth)),
        predicted_pixels=int(np.count_nonzero(found)),
        seconds=seconds,
    )


def _write_cases(path: Path, results: Sequence[CaseResult]) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, [f.name for f in fields(CaseResult)], lineterminator="\n")
    table.writeheader()
    for result in results:
        row = asdict(result)
        table.writerow(row | {key: cell_from_text(value) for key, value in row.items() if isinstance(value, str)})
    write_bytes(path, text.getvalue().encode())


def _write_gallery(folder: Path, cases: Sequence[Case], segmenter: Segmenter) -> None:
    """The worst cases, worst first: each picture plain, and with truth (green) and prediction (yellow)."""
    if folder.is_dir():
        for old in folder.glob("*.png"):
            old.unlink()
    for rank, case in enumerate(cases, 1):
        image, truth = read_case(case)
        found = segmenter(image)
        factor = _PANEL / max(truth.shape)
        height, width = (max(1, round(side * factor)) for side in truth.shape)
        plain = resize_image(image, height, width)
        drawn = plain.copy()
        for mask, colour in ((truth, (0, 255, 0)), (found, (255, 255, 0))):
            lines, _ = cv2.findContours(resize_mask(mask, height, width), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(drawn, lines, -1, colour, 1, cv2.LINE_AA)
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in case.name)
        score = metrics.dice(found, truth)
        with atomic_path(folder / f"{rank:02d}-dice{score:.3f}-{safe}.png", durable=False) as part:
            part.write_bytes(encode_picture(".png", np.hstack([plain, drawn])))
