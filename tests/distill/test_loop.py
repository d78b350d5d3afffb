"""Distilling: run folders, the teacher's part, determinism, resume after a stop, and what is refused."""

from __future__ import annotations

import csv
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.clock import LookedAtClock
from support.phantom_folders import write_pair, write_phantoms, write_picture

from gms_rt.config import read_toml
from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from gms_rt.demo.phantoms import phantom
from gms_rt.distill import loop, pictures, training
from gms_rt.distill import teacher as teachers
from gms_rt.distill.loop import distill
from gms_rt.distill.recipe import DistillRecipe, load_distill_recipe
from gms_rt.distill.request import DistillRequest
from gms_rt.errors import GmsError, UsageError
from gms_rt.model.gms import Gms
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.run import save_run
from gms_rt.model.student import StudentShape
from gms_rt.model.student_run import load_student
from gms_rt.train import steps

SHAPE = StudentShape(size=32, width=16, blocks=(1, 0, 0), merge_blocks=0)
SMALL = ("size=32", "batch=8", "epochs=2", "warmup=0", "save_seconds=0", "threads=1", "validation=0.2")


def recipe(*settings: str) -> DistillRecipe:
    return load_distill_recipe("edge", [*SMALL, *settings])


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with random weights for pictures of 32x32."""
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = load_tokenizer(write_pair(folder / "pair"))
    torch.manual_seed(3)
    save_run(folder / "run", Gms(tokenizer, LatentMapper(LmmConfig(4, 16, (1, 2), 8))), {"training": {"size": 32}})
    return folder / "run"


@pytest.fixture(autouse=True)
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few pictures are not worth the export that OpenVINO needs; that both say the same is tested elsewhere."""
    monkeypatch.setattr(teachers, "_has_openvino", lambda: False)


def request(teacher: Path, data: Path, out: Path, how: DistillRecipe, **more: object) -> DistillRequest:
    dataset = recognise(data)
    split = split_dataset(dataset, validation=0.2)
    plain = DistillRequest(teacher, dataset, split, SHAPE, how, out, cache=out.parent / "taught")
    return replace(plain, **more)  # type: ignore[arg-type]


def weights(folder: Path, name: str = "last.safetensors") -> bytes:
    return (folder / name).read_bytes()


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def test_the_clock_ends_a_training_with_the_teacher_silent(
    phantoms: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "time", LookedAtClock(0.5))
    heard: list[float] = []
    losses = training.student_losses
    monkeypatch.setattr(
        training, "student_losses", lambda how, weight, *more: heard.append(weight) or losses(how, weight, *more)
    )
    how = recipe("epochs=1000", "minutes=0.2", "validate_every=1000")
    outcome = distill(request(teacher, phantoms, tmp_path / "run", how)).outcome
    rows = table(tmp_path / "run")
    assert 12 <= outcome.seconds < 20 and len(rows) < 1000
    assert heard[0] == 1.0 and heard == sorted(heard, reverse=True) and heard[-1] < 0.15
    assert float(rows[-1]["lr"]) < 0.05 * how.lr < float(rows[0]["lr"])
    assert rows[-1]["validation_dice"]  # wherever the clock ends it, the last weights are judged
    assert (tmp_path / "run" / "student.safetensors").is_file()
    # What knew no minutes goes on: its recipe reads as before.
    assert "minutes" not in recipe().to_values() and how.to_values()["minutes"] == 0.2
    assert "teacher_flips" not in recipe().to_values()


def test_mixed_pictures_are_taught_by_the_teacher_alone(
    phantoms: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_AT_ONCE", 5)  # as of many: read and mixed in several groups
    asked: list[int] = []
    opened = teachers.open_teacher

    def counting(*given: object) -> teachers.Teacher:
        found = opened(*given)  # type: ignore[arg-type]
        return replace(found, answer=lambda images: asked.append(len(images)) or found.answer(images))

    monkeypatch.setattr(loop, "open_teacher", counting)
    how = recipe("mixed=2", "teacher_finish=1")
    found = distill(request(teacher, phantoms, tmp_path / "run", how))
    assert (found.pictures, found.mixed, found.without_mask) == (13 + 26, 26, 0)
    assert sum(asked) == 13 + 26
    config = read_toml(tmp_path / "run" / "config.toml")
    assert config["training"]["mixed"] == 2 and "unlabelled" not in config["data"]
    distill(request(teacher, phantoms, tmp_path / "again", how))
    assert sum(asked) == 13 + 26  # what was said is found again
    assert weights(tmp_path / "again") == weights(tmp_path / "run")
    material = loop.gather(request(teacher, phantoms, tmp_path / "third", how), lambda *_: None)
    train = material.train
    assert train.names[train.labelled :] == tuple(f"mixed-{number:06}" for number in range(26))
    assert not train.masks[train.labelled :].any() and train.images[train.labelled :].any(axis=(1, 2, 3)).all()
    # Without a teacher nobody could say what they show.
    alone = distill(request(teacher, phantoms, tmp_path / "alone", how.untaught()))
    assert (alone.pictures, alone.mixed) == (13, 0)
    assert "mixed" not in recipe().to_values()


def test_a_taught_student_is_a_whole_run(phantoms: Path, teacher: Path, tmp_path: Path) -> None:
    found = distill(
        request(teacher, phantoms, tmp_path / "run", recipe("epochs=25", "batch=4", "average=0.9", "lr=5e-3"))
    )
    rows = table(tmp_path / "run")
    assert len(rows) == 25
    for name in ("loss", "latent_loss", "truth_loss"):
        assert float(rows[-1][name]) < 0.9 * float(rows[0][name]), name
    assert found.outcome.best_dice == max(float(row["validation_dice"]) for row in rows) > 0
    assert found.taught and found.pictures == 13 and found.without_mask == 0
    config = read_toml(tmp_path / "run" / "config.toml")
    assert config["teacher"]["run"] == "run"
    assert config["student"]["latent_channels"] == 4  # the head that learned the teacher's latents
    student = load_student(tmp_path / "run")
    assert student.segment(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).shape == (1, 32, 32)


def test_a_teacher_that_is_heard_is_followed(phantoms: Path, teacher: Path, tmp_path: Path) -> None:
    """This teacher's weights are random: what it says is far from the truth."""
    apart = {}
    for weight in (0.01, 5):
        how = recipe("epochs=12", "lr=5e-3", f"teacher_weight={weight}", f"teacher_finish={weight}")
        distill(request(teacher, phantoms, tmp_path / f"{weight}", how))
        apart[weight] = float(table(tmp_path / f"{weight}")[-1]["teacher_loss"])
    assert apart[5] < apart[0.01] - 0.1


def test_without_a_teacher_its_run_is_not_read(phantoms: Path, tmp_path: Path) -> None:
    found = distill(request(tmp_path / "nothing", phantoms, tmp_path / "run", recipe().untaught()))
    assert not found.taught
    assert {row["teacher_loss"] for row in table(tmp_path / "run")} == {"0.0"}
    config = read_toml(tmp_path / "run" / "config.toml")
    assert "teacher" not in config
    assert config["student"]["latent_channels"] == 0
    assert not (tmp_path / "taught").exists()


def test_the_teacher_is_asked_once(
    phantoms: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    distill(request(teacher, phantoms, first, recipe()))
    opened: list[str] = []
    real = loop.open_teacher
    monkeypatch.setattr(loop, "open_teacher", lambda facts, device: opened.append(device) or real(facts, device))
    distill(request(teacher, phantoms, again, recipe()))
    assert opened == []
    assert weights(again) == weights(first)
    damaged = next((tmp_path / "taught").glob("*.masks.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    distill(request(teacher, phantoms, tmp_path / "third", recipe()))
    assert opened == ["cpu"]
    assert weights(tmp_path / "third") == weights(first)


def test_a_teacher_over_flips_is_another_teacher(phantoms: Path, teacher: Path, tmp_path: Path) -> None:
    distill(request(teacher, phantoms, tmp_path / "plain", recipe()))
    distill(request(teacher, phantoms, tmp_path / "flipped", recipe("teacher_flips=both")))
    plain, flipped = (read_toml(tmp_path / name / "config.toml") for name in ("plain", "flipped"))
    assert flipped["training"]["teacher_flips"] == "both" and "teacher_flips" not in plain["training"]
    assert flipped["teacher"]["each"] == [plain["teacher"]["sha256"]] != [flipped["teacher"]["sha256"]]
    assert weights(tmp_path / "plain") != weights(tmp_path / "flipped")
    with pytest.raises(UsageError, match="teacher_flips"):
        recipe("teacher_flips=sideways")


@pytest.mark.parametrize("kill_at", [1, 3])
def test_a_stopped_student_goes_on_bit_for_bit(phantoms: Path, teacher: Path, tmp_path: Path, kill_at: int) -> None:
    how = recipe("epochs=3", "last_batch=keep")
    distill(request(teacher, phantoms, tmp_path / "whole", how))
    halt = tmp_path / "halt"

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if stage == "train" and done == kill_at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        distill(request(teacher, phantoms, halt, how), stop)
    assert weights(halt) != weights(tmp_path / "whole")
    with pytest.raises(UsageError, match=r"already contains a run.*--resume"):
        distill(request(teacher, phantoms, halt, how))
    with pytest.raises(UsageError, match="another recipe"):
        distill(request(teacher, phantoms, halt, recipe("epochs=4"), resume=True))
    distill(request(teacher, phantoms, halt, how, resume=True))
    for name in ("last.safetensors", "student.safetensors"):
        assert weights(halt, name) == weights(tmp_path / "whole", name)
    without_time = [[v for k, v in row.items() if "second" not in k] for row in table(halt)]
    assert without_time == [[v for k, v in row.items() if "second" not in k] for row in table(tmp_path / "whole")]


def test_pictures_without_masks_are_taught_by_the_teacher_alone(phantoms: Path, teacher: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    for number in range(40, 44):
        write_picture(loose / f"{number}.png", phantom(number, 40, 40).rgb)
    out = tmp_path / "run"
    found = distill(request(teacher, phantoms, out, recipe(), unlabelled=(loose,)))
    assert (found.pictures, found.without_mask) == (17, 4)
    assert read_toml(out / "config.toml")["data"]["unlabelled"] == 4
    with pytest.raises(UsageError, match=r"teach nothing without a teacher.*--unlabelled"):
        distill(request(teacher, phantoms, tmp_path / "other", recipe().untaught(), unlabelled=(loose,)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no picture"):
        distill(request(teacher, phantoms, tmp_path / "other", recipe(), unlabelled=(tmp_path / "empty",)))


def test_a_student_starts_from_another_student(phantoms: Path, teacher: Path, tmp_path: Path) -> None:
    first, tuned = tmp_path / "first", tmp_path / "tuned"
    distill(request(teacher, phantoms, first, recipe().untaught()))
    still = recipe("lr=1e-30", "weight_decay=0.0", "average=0.0", "epochs=1")
    distill(request(teacher, phantoms, tuned, still, init=first))
    before, after = load_student(first).state_dict(), load_student(tuned).state_dict()
    trained = [name for name, value in before.items() if "running" not in name and value.is_floating_point()]
    assert trained and all(torch.equal(before[name], after[name]) for name in trained)
    assert read_toml(tuned / "config.toml")["origin"]["run"] == "first"
    wide = request(teacher, phantoms, tmp_path / "wide", still, init=first, shape=replace(SHAPE, width=32))
    with pytest.raises(UsageError, match=r"width 16, .* makes one with width 32, .*--budget-gflop"):
        distill(wide)
    assert not wide.out.exists()  # refused before the teacher is asked


def test_a_lost_training_stops_and_names_its_pictures(
    phantoms: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.student_losses
    monkeypatch.setattr(
        training, "student_losses", lambda *given: replace(real(*given), total=real(*given).total * float("nan"))
    )
    with pytest.raises(GmsError, match=r"the loss is nan in epoch 1, batch 1, with cases case_\d\d, "):
        distill(request(teacher, phantoms, tmp_path / "run", recipe()))
    assert not (tmp_path / "run" / "student.safetensors").exists()


def test_another_size_than_the_teachers_is_refused(phantoms: Path, teacher: Path, tmp_path: Path) -> None:
    how, shape = recipe("size=64"), replace(SHAPE, size=64)
    with pytest.raises(UsageError, match=r"size is 64, but the teacher's pictures are 32x32.*size=32"):
        distill(request(teacher, phantoms, tmp_path / "run", how, shape=shape))


def test_pictures_that_do_not_fit_into_memory_lie_in_a_file(
    phantoms: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distill(request(teacher, phantoms, tmp_path / "in", recipe()))
    before = sorted(tmp_path.glob("taught/**/*"))
    monkeypatch.setattr(pictures, "machine_memory", lambda: 4000)
    assert isinstance(pictures.room_for((2, 32, 32), tmp_path / "taught"), np.memmap)
    distill(request(teacher, phantoms, tmp_path / "out", recipe()))
    assert weights(tmp_path / "out") == weights(tmp_path / "in")
    assert sorted(tmp_path.glob("taught/**/*")) == before  # the file has no name
