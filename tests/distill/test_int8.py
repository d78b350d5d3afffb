"""The phase in the arithmetic of INT8: what it writes, and that it can be stopped and resumed."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.phantom_folders import write_phantoms

from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from gms_rt.distill.loop import distill
from gms_rt.distill.recipe import load_distill_recipe
from gms_rt.distill.request import DistillRequest
from gms_rt.errors import ConfigError, UsageError
from gms_rt.model.student import StudentShape
from gms_rt.model.student_quantisation import fake_quantised
from gms_rt.model.student_run import load_student, ranges_from_run

SHAPE = StudentShape(size=32, width=16, blocks=(1, 0, 0), merge_blocks=0)
SMALL = (
    "size=32", "batch=4", "epochs=3", "warmup=0", "save_seconds=0", "threads=1", "validation=0.2",
    "int8_epochs=2", "teacher_weight=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data") / "data")


def request(data: Path, out: Path, *settings: str, resume: bool = False) -> DistillRequest:
    dataset = recognise(data)
    how = load_distill_recipe("edge", [*SMALL, *settings])
    split = split_dataset(dataset, validation=0.2)
    return DistillRequest(out / "no teacher", dataset, split, SHAPE, how, out, resume=resume)


def test_the_run_holds_weights_and_ranges_for_int8(phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = distill(request(phantoms, out))
    assert found.int8_dice is not None and 0 <= found.int8_dice <= 1
    ranges = ranges_from_run(out)
    assert ranges and all(high > 0 for high in ranges.values())
    assert (out / "student.safetensors").read_bytes() != (out / "int8" / "first-student.safetensors").read_bytes()
    rows = (out / "int8" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3 and f"{found.int8_dice}" in "".join(rows)
    # What was judged is what the run holds.
    student = load_student(out)
    image = torch.rand(1, 3, 32, 32)
    rounded = fake_quantised(student, ranges)(image)
    assert not torch.equal(rounded, student(image))
    assert torch.allclose(rounded, student(image), atol=1.0)


def test_without_that_phase_there_are_no_ranges(phantoms: Path, tmp_path: Path) -> None:
    found = distill(request(phantoms, tmp_path / "run", "int8_epochs=0"))
    assert found.int8_dice is None
    assert not (tmp_path / "run" / "int8").exists() and ranges_from_run(tmp_path / "run") == {}


def test_a_finished_student_goes_on_in_int8_and_resumes_bit_for_bit(phantoms: Path, tmp_path: Path) -> None:
    whole, halt = tmp_path / "whole", tmp_path / "halt"
    distill(request(phantoms, whole))
    distill(request(phantoms, halt, "int8_epochs=0"))

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if stage == "int8: train" and done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        distill(request(phantoms, halt, resume=True), stop)
    with pytest.raises(UsageError, match="another INT8 recipe"):
        distill(request(phantoms, halt, "int8_lr=1e-3", resume=True))
    distill(request(phantoms, halt, resume=True))
    for name in ("student.safetensors", "ranges.json", "int8/last.safetensors"):
        assert (halt / name).read_bytes() == (whole / name).read_bytes(), name
    # The same command on a finished run changes nothing.
    before = json.loads((whole / "ranges.json").read_text())
    distill(request(phantoms, whole, resume=True))
    assert json.loads((whole / "ranges.json").read_text()) == before


def test_the_recipe_of_the_phase() -> None:
    how = load_distill_recipe("edge", ["int8_epochs=10", "teacher_finish=0.3"])
    phase = how.int8_phase()
    assert (phase.epochs, phase.lr, phase.warmup, phase.teaching(0)) == (10, how.int8_lr, 1.0, 0.3)
    assert replace(how, int8_epochs=0).steps().epochs == 100
    with pytest.raises(ConfigError, match="int8_epochs is negative"):
        load_distill_recipe("edge", ["int8_epochs=-1"])
