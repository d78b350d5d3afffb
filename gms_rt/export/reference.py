"""The reference that is stored with a graph: pictures, and what PyTorch in FP32 makes of them.

`gms_rt.data.reference_pictures` says which pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gms_rt.artifacts import atomic_path
from gms_rt.data.reference_pictures import ReferencePictures


class Segmenting(Protocol):
    """A model of whatever kind."""

    def segment(self, images: Tensor) -> Tensor:
        """uint8 N×H×W×3 images to uint8 N×H×W probabilities."""


def write_golden(model: Segmenting, path: Path, pictures: ReferencePictures) -> None:
    """Write pictures and what PyTorch in FP32 makes of them, the reference for every later engine."""
    images = pictures.images
    probabilities = np.concatenate([model.segment(torch.from_numpy(image[None])).numpy() for image in images])
    arrays = {"images": images, "probabilities": probabilities, "names": np.array(pictures.names)}
    arrays |= {"synthetic": np.array(pictures.synthetic), "source": np.array(pictures.source)}
    if pictures.truth is not None:
        arrays["truth"] = pictures.truth
    with atomic_path(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
