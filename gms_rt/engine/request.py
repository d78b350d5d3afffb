"""`BuildRequest`: everything that decides an engine folder, and the command line that asks for the same again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from gms_rt.engine.select import ENGINES
from gms_rt.errors import UsageError
from gms_rt.model.hub_graph import is_hub_graph
from gms_rt.precision import PRECISIONS, TARGETS
from gms_rt.precision.gate import GATE_FLOOR, GATE_MEAN, Gate, usual_minimum
from gms_rt.precision.images import ImageSet
from gms_rt.precision.recipe import PrecisionRecipe

AUTO_CALIBRATOR = "auto"


@dataclass(frozen=True)
class BuildRequest:
    """What to build, for what, and how it is judged."""

    source: Path | None = None  # a run folder (exported first) or a fused graph (.onnx); None: the bundled model
    out: Path | None = None  # the engine folder; None: engines/NAME-PRECISION
    precision: str = "fp16"  # fp32, fp16, bf16 or int8
    targets: tuple[str, ...] = ()  # of cpu, tensorrt, tensorrt-rtx; none: what this machine has
    sms: tuple[int, ...] = ()  # compute capabilities of the plans, 89 for 8.9; none: this machine's GPUs, else one
    # Images that INT8 and FP16 take their ranges from: a folder, a text file of paths, or images in memory. None: the
    # graph's own reference pictures, else phantoms; INT8 of a model that is not the bundled one refuses to do without.
    calibration: Path | ImageSet | None = None
    gate_images: Path | ImageSet | None = None  # images to compare masks on; None: those that calibration leaves over
    gate: Gate = field(default_factory=Gate)  # lowest Dice to the FP32 masks that passes
    calibrator: str = AUTO_CALIBRATOR  # minmax, percentile[:99.99], entropy or mse; auto tries several
    recipe: Path | PrecisionRecipe | None = (
        None  # an earlier build's precision by node, applied and judged instead of searched
    )
    size: str | None = None  # of a run's graph, "224" or "256x320"; None: as the run was trained
    batch: int | None = None  # images at once; None: as the graph was exported, 1 where it leaves that open
    classes: Path | None = None  # file that names the mask's classes; None: as the run or graph says
    force: bool = False  # build even if the same engine is already there
    calibration_limit: int | None = None  # at most so many images give ranges; None: 64 of a folder, 24 phantoms
    gate_limit: int | None = None  # masks of at most so many are compared; None: 200 of a folder, 64 phantoms

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"unknown precision '{self.precision}'", where="--precision", fix=f"use {', '.join(PRECISIONS)}"
            )
        for where, limit in (("--calib-images", self.calibration_limit), ("--gate-images", self.gate_limit)):
            if limit is not None and limit < 1:
                raise UsageError(f"{limit} images are too few", where=where, fix="give 1 or more")
        for target in self.targets:
            if target not in TARGETS:
                raise UsageError(f"unknown target '{target}'", where="--target", fix=f"use {', '.join(TARGETS)}")

    @property
    def folder(self) -> Path:
        """Where the engine goes."""
        return self.out or ENGINES / f"{self.name}-{self.precision}"

    @property
    def name(self) -> str:
        """What is built, by name."""
        if self.source is not None and is_hub_graph(self.source):
            return str(self.source).partition("@")[0].rpartition("/")[2]
        return "demo" if self.source is None else self.source.resolve().stem

    @property
    def command(self) -> str:
        """The command that builds the same again; images and recipes in memory have no name to appear under."""
        words = ["gms-rt", "build", *([] if self.source is None else [str(self.source)]), "--precision", self.precision]
        for option, value in (
            ("--target", ",".join(self.targets)),
            ("--sm", ",".join(map(str, self.sms))),
            ("--calib", self.calibration),
            ("--calib-images", self.calibration_limit),
            ("--gate-data", self.gate_images),
            ("--gate-images", self.gate_limit),
            ("--gate-mean", self.gate.mean if self.gate.mean != GATE_MEAN else None),
            ("--gate-min", self.gate.minimum if self.gate.minimum != usual_minimum(self.gate.coverage) else None),
            ("--gate-coverage", self.gate.coverage),
            ("--gate-floor", self.gate.floor if self.gate.floor != GATE_FLOOR else None),
            ("--calibrator", self.calibrator if self.calibrator != AUTO_CALIBRATOR else None),
            ("--recipe", self.recipe),
            ("--size", self.size),
            ("--batch", self.batch),
            ("--classes", self.classes),
            ("--out", self.out),
        ):
            if isinstance(value, (int, float, Path)) or (isinstance(value, str) and value):
                words += [option, str(value)]
        return shlex.join(words)
