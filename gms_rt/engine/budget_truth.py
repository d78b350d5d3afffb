"""How a run's engines do against the truth: on validation pictures of the data that the run was trained on.

Sizes other than the trained one, and students, answer another question than "is it still FP32's mask": only true masks
can tell. They are compared at the size of each picture, so that no size has an advantage, and picture by picture with
FP32 at the trained size. The validation part had a say in which weights were kept, and a choice by these pictures
promises nothing about others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gms_rt import metrics
from gms_rt.arrays import F64
from gms_rt.data.layouts import Case
from gms_rt.data.reading import read_case
from gms_rt.engine.loaded import Engine
from gms_rt.statistics import bootstrap

LIMIT = 64  # pictures; each is segmented by every engine


def dice_to_truth(engine: Engine, cases: Sequence[Case]) -> F64:
    """Dice of an engine's mask to the true one, case by case, at the size of the picture."""
    found = []
    for case in cases:
        image, mask = read_case(case)
        found.append(metrics.dice(engine(image), mask))
    return np.array(found)


def truth_record(dice: F64, fp32: F64) -> dict[str, Any]:
    """The mean with its interval, and what is lost against FP32 at the trained size, of the same pictures."""
    around, lost = bootstrap(dice), bootstrap(fp32 - dice)
    return {
        "mean": round(float(dice.mean()), 6),
        "low": round(around.low, 6),
        "high": round(around.high, 6),
        "images": len(dice),
        "loss": round(float((fp32 - dice).mean()), 6),
        "loss_at_most": round(lost.high, 6),
        "level": around.level,
    }


def why_too_far(truth: dict[str, Any] | None, allowed: float, unknown: str) -> str:
    """Why a size or a student cannot take the run's place; empty where it can."""
    if truth is None:
        return f"it is not judged: {unknown}"
    if truth["loss_at_most"] <= allowed:
        return ""
    return (
        f"its Dice to the truth may be {truth['loss_at_most']:.4f} below FP32's at the trained size (mean "
        f"{truth['loss']:.4f} on {truth['images']} pictures; the gate allows {allowed:.4f})"
    )
