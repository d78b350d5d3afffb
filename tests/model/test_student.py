"""The student: its shape from a budget, what it says in training, and its run folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gms_rt.config import config_from_values, read_toml
from gms_rt.errors import ArtifactError, ConfigError, GmsError, UsageError
from gms_rt.model.run import check_run, load_run
from gms_rt.model.size import trained_size
from gms_rt.model.student import Student, StudentShape, student_flop, student_shape
from gms_rt.model.student_run import load_student, save_student

SMALL = StudentShape(size=64, width=16, blocks=(1, 1, 1))


def test_a_budget_gives_the_same_shape_each_time_and_a_larger_one_never_less_work() -> None:
    budgets = (0.07, 0.1, 0.25, 0.39, 0.5, 0.66, 1.0, 2.0)
    shapes = [student_shape(gflop, 224) for gflop in budgets]
    assert shapes == [student_shape(gflop, 224) for gflop in budgets]
    work = [student_flop(shape) for shape in shapes]
    assert work == sorted(work) and all(flop <= gflop * 1e9 for flop, gflop in zip(work, budgets, strict=True))
    assert work[0] < work[-1] and work[-1] > 1.8e9


def test_a_budget_that_is_too_small_says_what_is_needed() -> None:
    with pytest.raises(GmsError, match=r"no student for 224x224 .*at least 0\.067 GFLOP"):
        student_shape(0.01, 224)
    assert student_flop(student_shape(0.067, 224)) <= 0.067e9


def test_other_options_are_kept_when_a_shape_is_searched() -> None:
    like = StudentShape(context=True, latent_channels=4, latent_stride=4)
    found = student_shape(0.1, 64, like)
    assert (found.size, found.context, found.latent_channels, found.latent_stride) == (64, True, 4, 4)


@pytest.mark.parametrize(
    "wrong", [{"width": 24}, {"blocks": (1, 1)}, {"unshuffle": 2}, {"latent_stride": 3}, {"merge_blocks": -1}]
)
def test_a_shape_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="a student cannot have the shape"):
        StudentShape(**wrong)  # type: ignore[arg-type]


def test_a_size_that_the_levels_do_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 32"):
        StudentShape(size=200)


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_in_training_a_second_head_predicts_the_latent_on_its_own_grid(stride: int) -> None:
    torch.manual_seed(3)
    student = Student(StudentShape(64, 16, (1, 1, 1), context=True, latent_channels=4, latent_stride=stride)).eval()
    pixels = torch.rand(2, 3, 64, 96)
    taught = student.taught(pixels)
    assert taught.latent is not None and taught.latent.shape == (2, 4, 64 // stride, 96 // stride)
    assert [tuple(f.shape) for f in taught.features] == [(2, 16, 8, 12), (2, 32, 4, 6), (2, 64, 2, 3)]
    assert all(float(feature.detach().min()) >= 0 for feature in taught.features)
    assert torch.equal(taught.logits, student(pixels)) and taught.logits.shape == (2, 1, 64, 96)
    assert Student(SMALL).taught(torch.rand(2, 3, 64, 64)).latent is None


def test_every_weight_takes_a_gradient() -> None:
    torch.manual_seed(3)
    student = Student(StudentShape(64, 16, (1, 1, 1), latent_channels=4))
    taught = student.taught(torch.rand(2, 3, 64, 64))
    assert taught.latent is not None
    (taught.logits.mean() + taught.latent.mean()).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in student.mask.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(3)
    student = Student(StudentShape(64, 16, (1, 2, 1), latent_channels=4))
    student.taught(torch.rand(4, 3, 64, 64))  # statistics of the normalisations
    student.eval()
    save_student(tmp_path / "run", student, {"training": {"epochs": 3}})
    back = load_student(tmp_path / "run")
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert back.shape == student.shape and torch.equal(back.segment(images), student.segment(images))
    assert trained_size(tmp_path / "run") == 64
    assert read_toml(tmp_path / "run" / "config.toml")["training"] == {"epochs": 3}


def test_a_shape_survives_plain_values() -> None:
    shape = StudentShape(96, 48, (2, 3, 3), 2, context=True, latent_channels=4, latent_stride=16)
    assert config_from_values(StudentShape, shape.to_values()) == shape


def test_the_two_kinds_of_runs_are_not_taken_for_each_other(tmp_path: Path) -> None:
    save_student(tmp_path / "run", Student(SMALL))
    with pytest.raises(UsageError, match="is the run of a student"):
        check_run(tmp_path / "run")
    with pytest.raises(UsageError, match="is the run of a student"):
        load_run(tmp_path / "run")
    with pytest.raises(UsageError, match="is not a student's run folder"):
        load_student(tmp_path)


def test_a_run_of_a_later_version_is_refused_in_words(tmp_path: Path) -> None:
    save_student(tmp_path / "run", Student(SMALL))
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("version = 1", "version = 2"))
    with pytest.raises(ArtifactError, match=r"is gms-rt-student version 2, this program reads up to version 1"):
        load_student(tmp_path / "run")


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_student(tmp_path / "run", Student(SMALL))
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("width = 16", "width = 32"))
    with pytest.raises(ArtifactError, match=r"student.safetensors.*of another shape"):
        load_student(tmp_path / "run")
