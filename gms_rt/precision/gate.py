"""The Dice gate: how far masks may differ from the FP32 masks, how far they do, and what that promises.

The lowest Dice of some images says nothing certain about the next image. What can be promised without knowing how Dice
is distributed is a share: "with 95 % confidence at least 97 % of images like these keep Dice of 0.95". A verdict on
images that had no part in choosing the precision states such a promise, and a gate can ask for one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.errors import UsageError
from gms_rt.scan.mask import mask_from_levels
from gms_rt.statistics import assured_coverage, tolerance_bound, values_below_bound, values_for_coverage

GATE_MEAN, GATE_MIN = 0.99, 0.95  # what an engine must keep unless told otherwise
GATE_FLOOR = 0.95  # of a promise, unless told otherwise
STATED_COVERAGE = 0.97  # what a verdict states where the gate asks for no promise and there are images enough
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gate:
    """What passes."""

    mean: float = GATE_MEAN  # the lowest mean Dice
    minimum: float = GATE_MIN  # the lowest Dice of any image
    coverage: float | None = None  # the share of images to come that must keep `floor`, with 95 % confidence
    floor: float = GATE_FLOOR  # the Dice that they must keep

    def __post_init__(self) -> None:
        for name, value in (("--gate-mean", self.mean), ("--gate-min", self.minimum), ("--gate-floor", self.floor)):
            if not 0 <= value <= 1:
                raise UsageError(f"{value} is not between 0 and 1", where=name)
        if self.coverage is not None and not 0.5 <= self.coverage < 1:
            raise UsageError(f"{self.coverage} is not from 0.5 to below 1", where="--gate-coverage")

    @property
    def stricter(self) -> Gate:
        """What a choice must reach on the images it is made by, so that it holds on others: a third closer to one."""

        def closer(value: float) -> float:
            return value + (1 - value) / 3

        return Gate(closer(self.mean), closer(self.tail))

    @property
    def tail(self) -> float:
        """The Dice that the worst images must keep: all of them, or all but the few that a promise leaves out."""
        return self.minimum if self.coverage is None else max(self.minimum, self.floor)

    def check_count(self, images: int) -> None:
        """Refuse a gate whose promise takes more images than there are, before anything long begins."""
        if self.coverage is not None and not self.promises(images):
            raise UsageError(
                f"a promise for {self.coverage:.1%} of images needs {values_for_coverage(self.coverage, CONFIDENCE)} "
                f"gate images at least, there are {images}",
                where="--gate-coverage",
                fix="give more images with --gate-data, or a lower coverage",
            )

    def looks(self, images: int) -> int:
        """How many verdicts by so many images can keep a promise, all of them together with 95 % confidence.

        Two, for two arithmetics, where there are images enough. Without a promise it is one.
        """
        return 2 if self.promises(images, looks=2) else 1

    def promises(self, images: int, looks: int = 1) -> bool:
        """Whether so many images can promise what is asked, each of `looks` times; never where nothing is asked."""
        return self.coverage is not None and values_below_bound(images, self.coverage, _shared_confidence(looks)) >= 0

    def fails_for_certain(self, some: NDArray[np.float64], total: int) -> bool:
        """Whether the Dice of some images settles that all `total` cannot pass, were the others perfect."""
        best = 1 - float((1 - some).sum()) / total
        if float(some.min()) < self.minimum or best < self.mean:
            return True
        if self.coverage is None:
            return False
        return int((some < self.floor).sum()) > values_below_bound(total, self.coverage, CONFIDENCE)


@dataclass(frozen=True)
class GateVerdict:
    """Dice of each gate image against its FP32 mask, and whether that passes."""

    dice: NDArray[np.float64]
    gate: Gate
    unseen: bool = True  # no choice was made by these images; only then they promise anything about others
    looks: int = 1  # verdicts that these images may have to give before one passes; they share the 5 % of doubt

    @property
    def mean(self) -> float:
        """Mean Dice."""
        return float(self.dice.mean())

    @property
    def minimum(self) -> float:
        """The lowest Dice of any image."""
        return float(self.dice.min())

    @property
    def bound(self) -> float | None:
        """The Dice that the asked share of images to come keeps; None if none was asked, or these cannot promise it."""
        if self.gate.coverage is None or not self.unseen:
            return None
        return tolerance_bound(self.dice, self.gate.coverage, _shared_confidence(self.looks))

    @property
    def promise(self) -> dict[str, float] | None:
        """What these images promise about others like them: share, Dice, confidence."""
        if not self.unseen:
            return None
        coverage = self.gate.coverage or STATED_COVERAGE
        confidence = _shared_confidence(self.looks)
        bound = tolerance_bound(self.dice, coverage, confidence)
        if bound is None:
            coverage, bound = assured_coverage(len(self.dice), confidence), self.minimum
        return {"coverage": round(coverage, 6), "dice": round(bound, 6), "confidence": CONFIDENCE}

    @property
    def passed(self) -> bool:
        """Whether mean, minimum and, where one was asked for, the promise are high enough."""
        kept = self.mean >= self.gate.mean and self.minimum >= self.gate.minimum
        return kept and (self.gate.coverage is None or (self.bound is not None and self.bound >= self.gate.floor))

    def failure(self) -> str:
        """What to say where it did not pass."""
        said = [
            f"mean {self.mean:.4f} (gate {self.gate.mean})",
            f"minimum {self.minimum:.4f} (gate {self.gate.minimum})",
        ]
        if self.gate.coverage is not None and self.bound is not None:
            said.append(f"{self.gate.coverage:.1%} of images keep {self.bound:.4f} (gate {self.gate.floor})")
        return f"the accuracy gate is not met: Dice to FP32 {', '.join(said)}"

    def record(self) -> dict[str, Any]:
        """For `engine.json`."""
        return {
            "mean": round(self.mean, 6),
            "minimum": round(self.minimum, 6),
            "images": len(self.dice),
            "gate_mean": self.gate.mean,
            "gate_min": self.gate.minimum,
            "gate_coverage": self.gate.coverage,
            "gate_floor": None if self.gate.coverage is None else self.gate.floor,
            "promise": self.promise,
            "passed": self.passed,
        }


def usual_minimum(coverage: float | None) -> float:
    """The lowest Dice that any gate image must keep unless told otherwise: none where a promise takes its place."""
    return GATE_MIN if coverage is None else 0.0


def gate_from_options(mean: float, minimum: float | None, coverage: float | None, floor: float | None) -> Gate:
    """The gate of a command's options. A promise takes the place of the minimum, unless that is asked for too."""
    if coverage is None and floor is not None:
        raise UsageError("needs --gate-coverage", where="--gate-floor", fix="say for which share of images it holds")
    lowest = usual_minimum(coverage) if minimum is None else minimum
    return Gate(mean, lowest, coverage, GATE_FLOOR if floor is None else floor)


def promise_text(promise: dict[str, float] | None) -> str:
    """A verdict's promise as a sentence.

    >>> promise_text({"coverage": 0.97, "dice": 0.9512, "confidence": 0.95})
    'with 95 % confidence at least 97.0 % of images like these keep Dice 0.9512'
    """
    if promise is None:
        return "the precision may have been chosen by these images, so they promise nothing about others"
    # Shares and Dice are cut, not rounded: a promise is never stated higher than it is.
    share = math.floor(promise["coverage"] * 1000 + 1e-6) / 10
    dice = math.floor(promise["dice"] * 1e4 + 1e-6) / 1e4
    return (
        f"with {promise['confidence'] * 100:.0f} % confidence at least {share:.1f} % of images like these "
        f"keep Dice {dice:.4f}"
    )


def judge(probabilities: U8, reference: U8, gate: Gate, *, unseen: bool = True, looks: int = 1) -> GateVerdict:
    """Compare masks image by image."""
    pairs = zip(probabilities, reference, strict=True)
    dice = np.array([metrics.dice(mask_from_levels(a), mask_from_levels(b)) for a, b in pairs])
    return GateVerdict(dice, gate, unseen, looks)


def _shared_confidence(looks: int) -> float:
    """What each of several verdicts must hold with so that all hold together with `CONFIDENCE` (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / looks
