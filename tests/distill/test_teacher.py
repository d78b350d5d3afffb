"""The teacher: what it says is the same whoever computes it, for every kind of tokenizer; how its words are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.phantom_folders import write_pair, write_tokenizer
from support.small_gms import KL

from gms_rt.demo.phantoms import phantom
from gms_rt.distill import teacher as teachers
from gms_rt.distill.teacher import Teacher, TeacherFacts, open_teacher, teacher_facts, with_flips
from gms_rt.distill.teacher_cache import cached_lessons
from gms_rt.errors import GmsError, UsageError
from gms_rt.model.gms import Gms
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.run import load_run, save_run

PICTURES = np.stack([phantom(number, 32, 32).rgb for number in range(3)])
COUNTS = {"horizontal": 2, "both": 4, "quarter-turns": 8}  # of ways
# Ways to look at pictures, each with its way back.
WAYS = [
    (lambda x: x, lambda y: y),
    (lambda x: x[:, :, ::-1], lambda y: y[:, :, ::-1]),
    (lambda x: x[:, ::-1], lambda y: y[:, ::-1]),
    (lambda x: x[:, ::-1, ::-1], lambda y: y[:, ::-1, ::-1]),
    (lambda x: np.rot90(x, 1, (1, 2)), lambda y: np.rot90(y, -1, (1, 2))),
    (lambda x: np.rot90(x, -1, (1, 2)), lambda y: np.rot90(y, 1, (1, 2))),
    (lambda x: x.swapaxes(1, 2), lambda y: y.swapaxes(1, 2)),
    (lambda x: np.rot90(x.swapaxes(1, 2), 2, (1, 2)), lambda y: np.rot90(y, 2, (1, 2)).swapaxes(1, 2)),
]


def write_run(folder: Path, kind: str) -> Path:
    """A run with random weights and a tokenizer of this kind."""
    torch.manual_seed(5)
    if kind == "onnx":
        name = write_pair(folder / "tokenizer")
    elif kind == "taesd":
        name = write_tokenizer(folder / "tokenizer")
    else:
        import diffusers

        autoencoder = (
            diffusers.AutoencoderKL(**KL, latent_channels=4, scaling_factor=0.18215)
            if kind == "sd-vae"
            else diffusers.VQModel(**KL, latent_channels=3, num_vq_embeddings=32, scaling_factor=0.5)
        )
        autoencoder.save_pretrained(folder / "tokenizer")
        name = f"{kind}:{folder / 'tokenizer'}"
    tokenizer = load_tokenizer(name)
    mapper = LatentMapper(LmmConfig(tokenizer.spec.channels, 16, (1, 2), 8))
    save_run(folder / "run", Gms(tokenizer, mapper), {"training": {"size": 32}})
    return folder / "run"


@pytest.mark.parametrize("kind", ["onnx", "taesd", "sd-vae", "vq"])
def test_any_run_is_a_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(teachers, "_has_openvino", lambda: False)  # as on a machine without OpenVINO
    facts = teacher_facts(write_run(tmp_path, kind))
    teacher = open_teacher(facts, "cpu")
    masks, latents = teacher.answer(PICTURES)
    assert teacher.made_by == "torch float32 on cpu"
    assert (masks.shape, masks.dtype) == ((3, 32, 32), np.uint8)
    assert latents.shape[:2] == (3, facts.latent_channels)
    assert latents.dtype == np.float16 and float(latents.astype(np.float32).std()) > 0


def test_openvino_says_what_torch_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = teacher_facts(write_run(tmp_path, "onnx"))
    fast = open_teacher(facts, "cpu")
    assert fast.made_by.startswith("OpenVINO")
    masks, latents = fast.answer(PICTURES)
    with monkeypatch.context() as patch:
        patch.setattr(teachers, "_has_openvino", lambda: False)
        expected = open_teacher(facts, "cpu").answer(PICTURES)
    assert np.abs(masks.astype(int) - expected[0]).mean() < 8  # BF16 where the CPU has it, through random weights
    assert np.corrcoef(latents.ravel(), expected[1].ravel())[0, 1] > 0.99


def test_several_teachers_say_their_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "_has_openvino", lambda: False)
    first = write_run(tmp_path, "onnx")
    gms = load_run(first)
    torch.manual_seed(6)
    other = LatentMapper(LmmConfig(gms.tokenizer.spec.channels, 16, (1, 2), 8))
    save_run(tmp_path / "other", Gms(gms.tokenizer, other), {"training": {"size": 32}})

    both = teacher_facts(first, (tmp_path / "other",))
    assert both.sha256 not in (teacher_facts(first).sha256, teacher_facts(tmp_path / "other").sha256)
    teacher = open_teacher(both, "cpu")
    assert teacher.made_by == "average of 2, torch float32 on cpu"
    masks, latents = teacher.answer(PICTURES)
    apart = [open_teacher(teacher_facts(run), "cpu").answer(PICTURES) for run in (first, tmp_path / "other")]
    assert np.abs(apart[0][0].astype(int) - apart[1][0]).max() > 1
    assert np.abs(masks - (apart[0][0].astype(float) + apart[1][0]) / 2).max() <= 0.5
    middle = (apart[0][1].astype(np.float32) + apart[1][1].astype(np.float32)) / 2
    np.testing.assert_allclose(latents.astype(np.float32), middle, rtol=1e-3, atol=1e-3)

    with pytest.raises(UsageError, match="named twice"):
        teacher_facts(first, (first,))
    elsewhere = write_run(tmp_path / "elsewhere", "taesd")
    with pytest.raises(UsageError, match="another tokenizer, or pictures of another size"):
        teacher_facts(first, (elsewhere,))


@pytest.mark.parametrize("flips", ["horizontal", "both", "quarter-turns"])
def test_a_teacher_says_its_mean_over_flips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flips: str) -> None:
    monkeypatch.setattr(teachers, "_has_openvino", lambda: False)
    facts = teacher_facts(write_run(tmp_path, "onnx"))
    averaged = with_flips(facts, flips)
    assert averaged.sha256 != facts.sha256
    assert averaged.each == (facts.sha256,)  # by which a build finds the students of a run
    plain, teacher = open_teacher(facts, "cpu"), open_teacher(averaged, "cpu")
    assert teacher.made_by == f"torch float32 on cpu, mean over flips: {flips}"
    masks, latents = teacher.answer(PICTURES)
    np.testing.assert_array_equal(latents, plain.answer(PICTURES)[1])
    seen = [plain.answer(np.ascontiguousarray(look(PICTURES)))[0] for look, _ in WAYS[: COUNTS[flips]]]
    back = [turn(mask).astype(float) for (_, turn), mask in zip(WAYS, seen, strict=False)]
    assert np.abs(masks - np.mean(back, axis=0)).max() <= 0.5
    assert np.abs(masks.astype(int) - seen[0]).max() > 1


def test_a_batch_that_the_gpu_cannot_hold_is_halved() -> None:
    asked: list[int] = []

    def told(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(images))
        if len(images) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return images[..., 0], images[..., 0].astype(np.float16)

    images = pictures(7)
    answer = teachers._in_batches(told, 8)
    masks, latents = answer(images)
    np.testing.assert_array_equal(masks, images[..., 0])
    np.testing.assert_array_equal(latents, images[..., 0])
    assert asked == [7, 4, 2, 2, 2, 1]
    asked.clear()
    answer(images)
    assert asked == [2, 2, 2, 1]  # what fits is remembered

    def full(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        teachers._in_batches(full, 4)(images)


def test_without_flips_a_teacher_is_what_it_was(tmp_path: Path) -> None:
    facts = TeacherFacts(tmp_path, 32, 3, "one")
    assert with_flips(facts, "none") is facts


class Told:
    """A teacher that counts, and answers from the pictures alone."""

    def __init__(self, spoiled: bool = False) -> None:
        self.pictures, self.spoiled = 0, spoiled

    def open(self) -> Teacher:
        def answer(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.pictures += len(images)
            latents = images[:, ::8, ::8].transpose(0, 3, 1, 2).astype(np.float16)
            return images[..., 0].copy(), latents * np.float16("nan") if self.spoiled else latents

        return Teacher(answer, "a test")


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_more_pictures_find_what_is_there(tmp_path: Path) -> None:
    facts, told = TeacherFacts(tmp_path, 32, 3, "one"), Told()
    images = pictures(130)
    first = cached_lessons(facts, images[:128], tmp_path / "kept", told.open)
    assert told.pictures == 128
    more = cached_lessons(facts, images, tmp_path / "kept", told.open)
    assert told.pictures == 130
    assert np.array_equal(more.masks[:128], first.masks) and np.array_equal(more.masks, images[..., 0])
    assert np.allclose(more.latents.mean((0, 2, 3), np.float64), 0, atol=1e-3)
    assert np.allclose(more.latents.std((0, 2, 3), np.float64), 1, atol=1e-2)
    cached_lessons(TeacherFacts(tmp_path, 32, 3, "another"), images, tmp_path / "kept", told.open)
    assert told.pictures == 260
    index = json.loads((tmp_path / "kept" / "index.json").read_text())
    assert {shard["made_by"] for shard in index["shards"].values()} == {"a test"}


def test_latents_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    facts = TeacherFacts(tmp_path / "run", 32, 3, "one")
    with pytest.raises(GmsError, match="mask latents are not finite"):
        cached_lessons(facts, pictures(2), tmp_path / "kept", Told(spoiled=True).open)
    assert not (tmp_path / "kept" / "index.json").exists()


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        teacher_facts(tmp_path / "nothing")
