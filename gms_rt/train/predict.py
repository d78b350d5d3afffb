"""A run as a plain function for evaluation: uint8 images in, uint8 probabilities out, as in the exported graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gms_rt.arrays import U8
from gms_rt.model.run import load_run
from gms_rt.model.size import trained_size


def predictor(run: Path, *, device: str = "cpu") -> tuple[Callable[[U8], U8], int]:
    """A run's function from N×H×W×3 to N×H×W, and the side of the images that it takes."""
    gms = load_run(run).to(device)
    size = trained_size(run)

    def predict(images: U8) -> U8:
        return np.asarray(gms.segment(torch.from_numpy(images).to(device)).cpu().numpy(), np.uint8)

    return predict, size
