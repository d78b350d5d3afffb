"""Distilling: `distill` writes a student's run folder and can be stopped and resumed anywhere without changing its
result.

The steps are those of `gms_rt.train.steps`. The best weights on validation become `student.safetensors`; validation is
carved from train, test is never looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gms_rt.artifacts import sha256_file, sha256_json, write_json
from gms_rt.class_lists import CLASSES, classes_from_run, classes_value
from gms_rt.data.splits import write_split
from gms_rt.distill.batches import StudentBatch
from gms_rt.distill.int8 import Int8Training
from gms_rt.distill.mixed import Mixing
from gms_rt.distill.pictures import read_pictures, unlabelled_scans
from gms_rt.distill.request import Distilled, DistillRequest
from gms_rt.distill.teacher import open_teacher, teacher_facts, with_flips
from gms_rt.distill.teacher_cache import cached_lessons
from gms_rt.distill.training import Material, StudentTraining
from gms_rt.errors import UsageError
from gms_rt.model.kind import CONFIG, STUDENT_WEIGHTS
from gms_rt.model.run import write_weights
from gms_rt.model.student import STRIDES, Student, StudentShape, student_flop
from gms_rt.model.student_run import load_student, save_student, shape_from_run
from gms_rt.train.checkpoint import STATE
from gms_rt.train.device import tuned_torch
from gms_rt.train.interrupt import StopRequest, stop_requests
from gms_rt.train.request import Progress
from gms_rt.train.steps import Ground, Steps

_SHAPE = ("width", "blocks", "merge_blocks", "unshuffle", "context")  # what first weights must share
_LATENT_STRIDES = (STRIDES[0] // 2, *STRIDES)


def distill(request: DistillRequest, progress: Progress | None = None, material: Material | None = None) -> Distilled:
    """Train a student into a run folder, from scratch or from another student's weights.

    `material` is that of an earlier call with the same teacher, data and size.
    """
    out, recipe = request.out, request.recipe
    if not request.resume and any((out / name).exists() for name in (STATE, STUDENT_WEIGHTS)):
        raise UsageError("already contains a run", where=out, fix="go on with --resume, or choose another --out")
    check_first_student(request)
    tell = progress or (lambda stage, done, total, note: None)
    with tuned_torch(recipe.threads), stop_requests() as stop:
        material = material or gather(request, tell, stop)
        return _Distilling(request, material, stop, tell).run()


def check_first_student(request: DistillRequest) -> None:
    """Refuse first weights of another shape. The head for the teacher's latent and the pictures' size may differ."""
    if request.init is None:
        return
    theirs, needed = (
        {key: getattr(shape, key) for key in _SHAPE} for shape in (shape_from_run(request.init), request.shape)
    )
    if theirs != needed:
        raise UsageError(
            f"is a student with {_as_text(theirs)}, and this training makes one with {_as_text(needed)}",
            where=request.init,
            fix="start from a student of the same size, or leave --budget-gflop, --budget or --sweep away",
        )


def _as_text(shape: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in shape.items())


def gather(request: DistillRequest, progress: Progress, stop: StopRequest | None = None) -> Material:
    """Decode the pictures of a request and ask its teacher about them."""
    recipe, dataset, split = request.recipe, request.dataset, request.split
    if request.unlabelled and not recipe.taught:
        raise UsageError(
            "pictures without masks teach nothing without a teacher",
            where="--unlabelled",
            fix="leave --unlabelled or --no-teacher away",
        )
    teacher = with_flips(teacher_facts(request.teacher, request.also), recipe.teacher_flips) if recipe.taught else None
    if teacher is not None and teacher.size != recipe.size:
        raise UsageError(
            f"size is {recipe.size}, but the teacher's pictures are {teacher.size}x{teacher.size}",
            where="--set size",
            fix=f"leave it away, or set size={teacher.size}",
        )

    def told(stage: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            progress(stage, done, total, "")
            if stop is not None and stop.made:
                raise KeyboardInterrupt

        return tell

    cache = request.cache or request.out / "teacher"
    scans = unlabelled_scans(request.unlabelled)
    mixing = Mixing(recipe.mixed, recipe.seed, recipe.flip != "none") if teacher is not None else None
    train = read_pictures(dataset.named(split.train), scans, recipe.size, cache, told("read"), mixing)
    held_out = read_pictures(dataset.named(split.validation), [], recipe.size, cache)
    lessons = None
    if teacher is not None:
        known = teacher
        lessons = cached_lessons(
            teacher, train.images, cache, lambda: open_teacher(known, request.device), told("teacher")
        )
    return Material(train, held_out, lessons, teacher)


class _Distilling(StudentTraining):
    """A student, and the order of the parts of its training."""

    def __init__(self, request: DistillRequest, material: Material, stop: StopRequest, progress: Progress) -> None:
        shape = _with_latent_head(request, material)
        student, origin = _first_student(request, shape)
        self.tables = _tables(request, material, origin)
        super().__init__(student, request.recipe, material, torch.device(request.device))
        self.request, self.out, self.stop, self.progress = request, request.out, stop, progress
        fingerprint = distill_fingerprint(request, material, shape, origin)
        ground = Ground(self.recipe.steps(), self.schedule, self.out, self.device, fingerprint)
        self.steps: Steps[StudentBatch] = Steps(self, ground, stop, progress)

    def run(self) -> Distilled:
        if not self.steps.restore():
            self.steps.start_average()
        write_split(self.out / "split.json", self.request.split)
        classes = self.request.classes or (classes_from_run(self.request.teacher) if self.material.teacher else ())
        if classes:  # named anew at a resume: they change no weight
            write_json(self.out / CLASSES, classes_value(classes))
        self.steps.run(self.batches())
        material = self.material
        int8_dice = None
        if self.recipe.int8_epochs:
            phase = Int8Training(self.out, self.tables, self.recipe.int8_phase(), material, self.device)
            int8_dice = phase.run(self.stop, self.progress)
        outcome = self.steps.outcome(sum(parameter.numel() for parameter in self.network.parameters()))
        return Distilled(
            outcome,
            student_flop(self.network.shape) / 1e9,
            material.lessons is not None and self.recipe.taught,
            len(material.train),
            material.train.unlabelled,
            material.train.mixed,
            int8_dice,
        )

    def keep(self, weights: dict[str, Tensor]) -> None:
        """Write the run with these weights."""
        if (self.out / CONFIG).is_file():  # only the weights have changed
            write_weights(self.out / STUDENT_WEIGHTS, weights)
        else:
            save_student(self.out, self.network, self.tables, weights=weights)


def distill_fingerprint(
    request: DistillRequest, material: Material, shape: StudentShape, origin: dict[str, str]
) -> dict[str, str]:
    """What must be equal for a resume to be the same training."""
    # How often it is saved and on how many threads it runs are the user's business at any time.
    # What comes behind the last step has a checkpoint of its own.
    recipe = replace(request.recipe, save_seconds=0.0, threads=0, int8_epochs=0, int8_lr=0.0).to_values()
    parts: dict[str, Any] = {
        "recipe": recipe,
        "shape": shape.to_values(),
        "split": [request.split.train, request.split.validation],
        "unlabelled pictures": list(material.train.names[material.train.labelled :]),
        "teacher": material.teacher.sha256 if material.teacher else "",
    }
    return {**{name: sha256_json(value) for name, value in parts.items()}, "start": origin.get("sha256", "")}


def _with_latent_head(request: DistillRequest, material: Material) -> StudentShape:
    """The shape with the head that the teacher's latents need, where they have a say and a grid that it can have."""
    shape, lessons = replace(request.shape, latent_channels=0), material.lessons
    if lessons is None or not request.recipe.latent_weight or not request.recipe.plain_share:
        return shape
    _, channels, height, _ = lessons.latents.shape
    stride = request.recipe.size // height
    if stride not in _LATENT_STRIDES or height * stride != request.recipe.size:
        return shape
    return replace(shape, latent_channels=channels, latent_stride=stride)


def _first_student(request: DistillRequest, shape: StudentShape) -> tuple[Student, dict[str, str]]:
    """The student before its first step, and the table of `config.toml` that says where its weights come from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.recipe.seed)
        student = Student(shape)
    if request.init is None:
        return student, {}
    own = student.state_dict()
    given = {name: value for name, value in load_student(request.init).state_dict().items() if name in own}
    same = {name: value for name, value in given.items() if value.shape == own[name].shape}  # heads may differ
    student.load_state_dict({**own, **same})
    origin = {"run": request.init.resolve().name, "sha256": sha256_file(request.init / STUDENT_WEIGHTS)}
    return student, origin


def _tables(request: DistillRequest, material: Material, origin: dict[str, str]) -> dict[str, dict[str, Any]]:
    dataset, split = request.dataset, request.split
    data = {"name": dataset.name, "folder": str(dataset.root.resolve()), "split": split.source}
    without = material.train.unlabelled
    tables: dict[str, dict[str, Any]] = {
        "training": request.recipe.to_values(),
        "data": {**data, "unlabelled": without} if without else data,
    }
    if material.teacher is not None:
        names = [one.run.resolve().name for one in (material.teacher, *material.teacher.also)]
        tables["teacher"] = {"run": " + ".join(names), "sha256": material.teacher.sha256}
        if material.teacher.each:
            tables["teacher"]["each"] = list(material.teacher.each)
    if origin:
        tables["origin"] = origin
    return tables
