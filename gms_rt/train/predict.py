"""A run as a plain function for evaluation: uint8 images in, uint8 probabilities out, as the exported graph does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gms_rt.config import read_toml
from gms_rt.model.run import CONFIG, load_run

U8 = NDArray[np.uint8]


def predictor(run: Path, *, device: str = "cpu") -> tuple[Callable[[U8], U8], int]:
    """The function from N×H×W×3 to N×H×W of a run, and the size it wants."""
    gms = load_run(run).to(device)
    size = int(read_toml(run / CONFIG).get("training", {}).get("size", 224))

    def predict(images: U8) -> U8:
        return np.asarray(gms.segment(torch.from_numpy(images).to(device)).cpu().numpy(), np.uint8)

    return predict, size
