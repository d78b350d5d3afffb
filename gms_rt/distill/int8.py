"""The last phase where INT8 is the target: the student goes on in the arithmetic that its INT8 engine will have.

It starts from the best FP32 weights and the ranges that its layers show on training pictures, learns both, and its best
weights on validation, as they are with roundings, take the place of the others in the run, with their ranges beside
them. It has its own checkpoint and table in the folder `int8` of the run.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gms_rt.artifacts import atomic_path, sha256_file, sha256_json
from gms_rt.distill.batches import StudentBatch
from gms_rt.distill.recipe import DistillRecipe
from gms_rt.distill.training import Material, StudentTraining
from gms_rt.model.kind import STUDENT_WEIGHTS
from gms_rt.model.run import fill
from gms_rt.model.student import Student
from gms_rt.model.student_quantisation import fake_quantised, observed_ranges, plain_student
from gms_rt.model.student_run import save_student, shape_from_run
from gms_rt.train.interrupt import StopRequest
from gms_rt.train.request import Progress
from gms_rt.train.steps import Ground, Steps

FOLDER = "int8"
_OBSERVED, _BATCH = 256, 32  # training pictures that show the first ranges


class Int8Training(StudentTraining):
    """A fake-quantised student as what is trained."""

    def __init__(
        self,
        run: Path,
        tables: dict[str, dict[str, Any]],
        recipe: DistillRecipe,
        material: Material,
        device: torch.device,
    ) -> None:
        self.run_folder, self.tables, self.own = run, tables, run / FOLDER
        first = self._first_weights()
        student = Student(shape_from_run(run))
        fill(student, first)
        quantised = fake_quantised(student.eval(), observed_ranges(student.eval(), _plain_batches(material)))
        super().__init__(quantised, recipe, material, device)
        values = replace(recipe, save_seconds=0.0, threads=0).to_values()
        self.fingerprint = {"INT8 recipe": sha256_json(values), "FP32 weights": sha256_file(first)}

    def run(self, stop: StopRequest, progress: Progress) -> float:
        """Train, and give the best Dice on validation; -1 without validation cases."""
        ground = Ground(self.recipe.steps(), self.schedule, self.own, self.device, self.fingerprint)
        steps: Steps[StudentBatch] = Steps(
            self, ground, stop, lambda stage, done, total, note: progress(f"int8: {stage}", done, total, note)
        )
        if not steps.restore():
            steps.start_average()
        steps.run(self.batches())
        return steps.state.best

    def keep(self, weights: dict[str, Tensor]) -> None:
        """Write the run with these weights and their ranges."""
        best = copy.deepcopy(self.network)
        best.load_state_dict(weights)
        student, ranges = plain_student(best.cpu())
        save_student(self.run_folder, student, self.tables, ranges=ranges)

    def _first_weights(self) -> Path:
        """The best FP32 weights, kept where this phase cannot replace them."""
        path = self.own / f"first-{STUDENT_WEIGHTS}"
        if not path.is_file():
            self.own.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as part:
                shutil.copyfile(self.run_folder / STUDENT_WEIGHTS, part)
        return path


def _plain_batches(material: Material) -> Iterator[Tensor]:
    """Training pictures, evenly chosen, as pixels."""
    count = len(material.train)
    numbers = sorted({i * count // _OBSERVED for i in range(_OBSERVED)})
    for start in range(0, len(numbers), _BATCH):
        images = material.train.images[numbers[start : start + _BATCH]]
        yield torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32) / 255
