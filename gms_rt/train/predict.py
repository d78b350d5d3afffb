"""A run as a segmenter: uint8 images in, uint8 probabilities out, with the arithmetic of the exported graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from gms_rt.arrays import U8
from gms_rt.model.any_run import load_any_run
from gms_rt.model.size import trained_size
from gms_rt.scan.segmenter import Segmenter


def segmenter_from_run(run: Path, *, device: str = "cpu") -> Segmenter:
    """A run, ready to segment at the size that it was trained on."""
    gms, size = load_any_run(run).to(device), trained_size(run)

    def infer(images: U8) -> U8:
        return np.asarray(gms.segment(torch.from_numpy(images).to(device)).cpu().numpy(), np.uint8)

    return Segmenter(infer, size, size)
