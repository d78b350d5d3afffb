"""HD95, surface Dice, PSNR and SSIM agree with MONAI's, which stands for what the field calls so."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
import torch

from gms_rt import metrics
from gms_rt.demo.phantoms import phantom

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    monai = pytest.importorskip("monai.metrics", reason="MONAI is not installed")
    hausdorff, surface_dice = monai.compute_hausdorff_distance, monai.compute_surface_dice


def theirs(a: np.ndarray, b: np.ndarray, spacing: tuple[float, float]) -> float:
    pair = [torch.from_numpy(mask > 0)[None, None].float() for mask in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(hausdorff(*pair, include_background=True, percentile=95, spacing=list(spacing)))


def masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    while True:
        a, b = (phantom(int(rng.integers(1 << 30)), 60, 80).mask for _ in range(2))
        if a.any() and b.any():
            return a, b


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.5), (0.4, 1.3)])
def test_on_phantoms(spacing: tuple[float, float]) -> None:
    for seed in range(12):
        a, b = masks(seed)
        assert metrics.hd95(a, b, spacing) == pytest.approx(theirs(a, b, spacing), abs=1e-3), seed


def test_on_masks_that_touch_the_border_or_are_one_pixel() -> None:
    full, dot, frame = np.ones((20, 30), np.uint8), np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8)
    dot[3, 4] = 1
    frame[4:-4, 4:-4] = 0
    for a, b in ((full, dot), (full, frame), (dot, frame), (frame, np.roll(frame, 2, 1))):
        assert metrics.hd95(a, b) == pytest.approx(theirs(a, b, (1.0, 1.0)), abs=1e-3)


def test_on_noise() -> None:
    rng = np.random.default_rng(7)
    for share in (0.02, 0.3, 0.7):
        a, b = (rng.random((24, 31)) < share for _ in range(2))
        assert metrics.hd95(a, b) == pytest.approx(theirs(a, b, (1.0, 1.0)), abs=1e-3)


@pytest.mark.parametrize("tolerance", [0.5, 2.0, 5.0])
def test_surface_dice(tolerance: float) -> None:
    rng = np.random.default_rng(11)
    pairs = [masks(seed) for seed in range(8)]
    pairs += [(rng.random((24, 31)) < 0.3, rng.random((24, 31)) < 0.3) for _ in range(4)]
    for number, (a, b) in enumerate(pairs):
        both = [torch.from_numpy(np.asarray(mask) > 0)[None, None].float() for mask in (a, b)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = float(surface_dice(*both, class_thresholds=[tolerance], include_background=True))
        assert metrics.surface_dice(a, b, tolerance) == pytest.approx(theirs, abs=1e-6), number


def test_psnr_and_ssim() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {"psnr": monai.PSNRMetric(1.0), "ssim": monai.SSIMMetric(spatial_dims=2, data_range=1.0)}
        for seed in range(4):
            sharp = phantom(seed, 48, 64).rgb.astype(np.float32) / 255
            pair = sharp, cv2.GaussianBlur(sharp, (5, 5), 1.2)
            tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] for image in pair]
            assert metrics.psnr(*pair) == pytest.approx(float(theirs["psnr"](*tensors)), abs=1e-3)
            assert metrics.ssim(*pair) == pytest.approx(float(theirs["ssim"](*tensors)), abs=1e-3)
