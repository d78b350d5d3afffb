"""What decides a precision recipe, and what was found out about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from gms_rt import __version__
from gms_rt.artifacts import sha256_json
from gms_rt.errors import UsageError
from gms_rt.graph.graph import Graph
from gms_rt.precision.cpu_choice import CpuChoice
from gms_rt.precision.gate import Gate, GateVerdict
from gms_rt.precision.images import ImageSet
from gms_rt.precision.ranges import Extremes, extremes
from gms_rt.precision.recipe import RECIPE_VERSION, WEIGHT_LEVELS, PrecisionRecipe
from gms_rt.progress import OnProgress
from gms_rt.runtime.device import package_version


@dataclass(frozen=True)
class RecipeRequest:
    """Everything that decides a recipe."""

    precision: str  # one of PRECISIONS
    targets: tuple[str, ...]  # some of TARGETS
    calibration: ImageSet | None  # gives the ranges; FP16 and INT8 need it
    gate_images: ImageSet | None  # those that masks are compared on; INT8 needs them
    gate: Gate
    calibrator: str  # by name, or "auto" to try several
    graph_sha256: str  # of the graph's file
    batch: int  # images at once
    search_images: ImageSet | None = None  # INT8 is chosen by these; None: by the gate's
    recorded: PrecisionRecipe | None = None  # of an earlier build: applied and judged instead of searched for
    recorded_apart: bool = False  # it is certain that other images than the gate's chose the recorded recipe

    @property
    def key(self) -> str:
        """A hash of it all but the targets: one recipe serves them all, so that a folder can grow."""
        value = [
            __version__, self.precision,
            self.calibration and self.calibration.sha256, self.gate_images and self.gate_images.sha256,
            self.gate.mean, self.gate.minimum, self.calibrator, self.graph_sha256, self.batch,
            package_version("openvino"), WEIGHT_LEVELS, RECIPE_VERSION,
            self.recorded and dataclasses.asdict(self.recorded),
        ]  # fmt: skip
        if self.search_images is not None:
            value.append(self.search_images.sha256)
        if self.gate.coverage is not None:
            value += [self.gate.coverage, self.gate.floor]
        return sha256_json(value)


@dataclass(frozen=True)
class JudgedRecipe:
    """A recipe, and what was found out about it here."""

    recipe: PrecisionRecipe
    gate: dict[str, Any] | None = None  # what the gate said; None where there is nothing to compare
    cpu: CpuChoice = field(default_factory=CpuChoice)  # in which the CPU met the gate, if it is a target
    plans: dict[str, Any] | None = None  # what the gate said about the graph of GPU plans, emulated


def gate_record(verdict: GateVerdict, images: ImageSet, execution: str) -> dict[str, Any]:
    """A verdict as `engine.json` has it."""
    return {
        **verdict.record(),
        "data": images.record(),
        "reference": "FP32 graph on this CPU",
        "arithmetic": execution,  # in which the CPU computed the masks that were compared
    }


def watched_extremes(
    graph: Graph, names: list[str], request: RecipeRequest, progress: OnProgress, means: Collection[str] = ()
) -> dict[str, Extremes]:
    """The ranges of tensors on the calibration images; of those in `means` also how much they add up to."""
    if request.calibration is None:
        raise UsageError(
            f"{request.precision} needs calibration images to find out which layers must stay FP32",
            fix="give --calib FOLDER",
        )
    return extremes(graph, names, request.calibration.images, progress, means=means)
