"""`gms-rt eval --reconstruct`: what a tokenizer alone loses, against hand counts. PSNR and SSIM: see test_monai.py."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from support.phantom_folders import write_pair, write_phantoms, write_picture

from gms_rt import metrics
from gms_rt.cli.eval import command
from gms_rt.data.layouts import recognise
from gms_rt.demo.phantoms import phantom
from gms_rt.errors import CasesFailedError, UsageError
from gms_rt.evaluate.reconstruction import Reconstructor, evaluate_reconstruction

SIZE = 32


def pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and a blurred copy, values from 0 to 1."""
    sharp = phantom(seed, 48, 64).rgb.astype(np.float32) / 255
    return sharp, cv2.GaussianBlur(sharp, (5, 5), 1.2)


def test_equal_pictures_and_pictures_that_cannot_be_compared() -> None:
    sharp, blurred = pictures(5)
    assert math.isinf(metrics.psnr(sharp, sharp))
    assert metrics.ssim(sharp, sharp) == pytest.approx(1)
    assert metrics.ssim(sharp, blurred) < 1
    with pytest.raises(UsageError, match="cannot be compared"):
        metrics.psnr(sharp, sharp[:, :9])
    with pytest.raises(UsageError, match="smaller than the window"):
        metrics.ssim(sharp[:10], sharp[:10])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("phantoms") / "data", 10)


def test_a_perfect_tokenizer_loses_nothing_and_a_blind_one_every_mask(data: Path, tmp_path: Path) -> None:
    cases = recognise(data).cases
    perfect = Reconstructor(lambda images: images.astype(np.float32) / 255, SIZE, {})
    blind = Reconstructor(lambda images: np.zeros(images.shape, np.float32), SIZE, {})
    found = evaluate_reconstruction(cases, perfect, tmp_path / "perfect")
    assert (found["mask"]["dice"]["mean"], found["exact_images"], found["image"]["psnr"]) == (1, 10, None)
    assert found["image"]["ssim"]["mean"] == pytest.approx(1)
    found = evaluate_reconstruction(cases, blind, tmp_path / "blind")
    rows = list(csv.DictReader((tmp_path / "blind" / "reconstruction.csv").read_text().splitlines()))
    hits = [row for row in rows if int(row["truth_pixels"])]
    assert hits
    assert {float(row["mask_dice"]) for row in hits} == {0.0}
    assert found["mask"]["dice"]["mean"] == pytest.approx(1 - len(hits) / len(rows))
    assert json.loads((tmp_path / "blind" / "reconstruction.json").read_text()) == found


def invoke(*arguments: object) -> dict:
    done = CliRunner().invoke(command, [*map(str, arguments), "--json"], catch_exceptions=False)
    return json.loads(done.stdout)


def test_the_verb_measures_a_tokenizer_as_the_hand_does(data: Path, tmp_path: Path) -> None:
    tokenizer = write_pair(tmp_path / "pair")  # keeps the grey mean of each 2x2 pixels
    given = ("--reconstruct", "--tokenizer", tokenizer, "--size", SIZE, "--split", "all", "--out", tmp_path / "out")
    found = invoke(data, *given)
    assert (found["cases"], found["size"], found["split"]) == ({"all": 10, "failed": 0}, SIZE, "all")
    assert len(found["tokenizer_sha256"]) == 64
    rows = list(csv.DictReader((tmp_path / "out" / "reconstruction.csv").read_text().splitlines()))
    for number, row in enumerate(rows):
        case = phantom(number, 48, 64)
        mask = (cv2.resize(case.mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA) >= 128).astype(np.float64)
        kept = mask.reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3)).repeat(2, 0).repeat(2, 1)
        # A mean of just one half may be rounded to either side.
        low, high = sorted(metrics.dice(kept > border, mask > 0) for border in (0.499, 0.501))
        assert low - 1e-6 <= float(row["mask_dice"]) <= high + 1e-6
    assert 0 < found["image"]["ssim"]["mean"] < 1
    assert 5 < found["image"]["psnr"]["mean"] < 40


def test_a_case_that_cannot_be_read_is_told_and_the_rest_is_measured(tmp_path: Path) -> None:
    broken = write_phantoms(tmp_path / "data", 3)
    (broken / "images" / "case_01.png").write_bytes(b"nothing")
    tokenizer = write_pair(tmp_path / "pair")
    with pytest.raises(CasesFailedError, match="1 cases failed"):
        invoke(broken, "--reconstruct", "--tokenizer", tokenizer, "--size", SIZE, "--split", "all",
               "--out", tmp_path / "out")  # fmt: skip
    found = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert found["cases"] == {"all": 3, "failed": 1}
    assert found["mask"]["dice"] is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--reconstruct"], "needs one DATA and --tokenizer"),
        (["--tokenizer", "sd-vae", "--run", "runs/x"], "needs one DATA and --tokenizer"),
        (["--reconstruct", "--tokenizer", "taesd", "--tta"], "nothing is predicted"),
    ],
)
def test_options_that_do_not_go_together(data: Path, tmp_path: Path, given: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        invoke(data, *given, "--out", tmp_path / "out")


def test_a_size_that_the_tokenizer_cannot_divide(data: Path, tmp_path: Path) -> None:
    tokenizer = write_pair(tmp_path / "pair")
    with pytest.raises(UsageError, match="not a multiple of the tokenizer's stride 4"):
        invoke(data, "--reconstruct", "--tokenizer", tokenizer, "--size", 30, "--out", tmp_path / "out")


def test_pictures_are_those_that_a_model_sees(tmp_path: Path) -> None:
    """RGB, resized as `gms-rt infer` does it."""
    root = tmp_path / "data"
    write_picture(root / "images" / "a.png", np.full((40, 60), 90, np.uint8))
    write_picture(root / "masks" / "a.png", np.full((40, 60), 255, np.uint8))
    seen = []

    def reconstruct(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return images.astype(np.float32) / 255

    evaluate_reconstruction(recognise(root).cases, Reconstructor(reconstruct, SIZE, {}), tmp_path / "out")
    assert [images.shape for images in seen] == [(1, SIZE, SIZE, 3)] * 2
    assert [int(images.max()) for images in seen] == [90, 255]
