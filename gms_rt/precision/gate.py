"""The Dice gate: how far masks may differ from the FP32 masks, and how far they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.errors import UsageError
from gms_rt.scan.mask import mask_from_levels

GATE_MEAN, GATE_MIN = 0.99, 0.95  # what an engine must keep unless told otherwise


@dataclass(frozen=True)
class Gate:
    """What passes."""

    mean: float = GATE_MEAN  # the lowest mean Dice
    minimum: float = GATE_MIN  # the lowest Dice of any image

    def __post_init__(self) -> None:
        for name, value in (("--gate-mean", self.mean), ("--gate-min", self.minimum)):
            if not 0 <= value <= 1:
                raise UsageError(f"{value} is not between 0 and 1", where=name)


@dataclass(frozen=True)
class GateVerdict:
    """Dice of each gate image against its FP32 mask, and whether that passes."""

    dice: NDArray[np.float64]
    gate: Gate

    @property
    def mean(self) -> float:
        """Mean Dice."""
        return float(self.dice.mean())

    @property
    def minimum(self) -> float:
        """The lowest Dice of any image."""
        return float(self.dice.min())

    @property
    def passed(self) -> bool:
        """Whether mean and minimum are high enough."""
        return self.mean >= self.gate.mean and self.minimum >= self.gate.minimum

    def failure(self) -> str:
        """What to say where it did not pass."""
        return (
            f"the accuracy gate is not met: Dice to FP32 mean {self.mean:.4f} (gate {self.gate.mean}), "
            f"minimum {self.minimum:.4f} (gate {self.gate.minimum})"
        )

    def record(self) -> dict[str, Any]:
        """For `engine.json`."""
        return {
            "mean": round(self.mean, 6),
            "minimum": round(self.minimum, 6),
            "images": len(self.dice),
            "gate_mean": self.gate.mean,
            "gate_min": self.gate.minimum,
            "passed": self.passed,
        }


def judge(probabilities: U8, reference: U8, gate: Gate) -> GateVerdict:
    """Compare masks image by image."""
    pairs = zip(probabilities, reference, strict=True)
    return GateVerdict(np.array([metrics.dice(mask_from_levels(a), mask_from_levels(b)) for a, b in pairs]), gate)
