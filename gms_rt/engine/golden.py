"""The reference of an engine: pictures with the probabilities that the FP32 original gave for them.

`golden.npz` is written when a graph is exported and copied into every engine that is built from it.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_file
from gms_rt.errors import ArtifactError


@dataclass(frozen=True)
class Golden:
    """Pictures with their reference: N×H×W×3 images, N×H×W probabilities, and truth masks where known."""

    images: U8
    probabilities: U8
    truth: U8 | None
    names: tuple[str, ...]
    origin: str  # what the reference is, for the certificate
    sha256: str


def read_golden(path: Path) -> Golden:
    """Read and check a `golden.npz`."""
    try:
        # Opened here, because numpy leaves a file open that is not an archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise ArtifactError("has no reference masks", where=path, fix="build the engine again") from error
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ArtifactError(f"cannot be read ({error})", where=path, fix="build the engine again") from error
    images, probabilities = arrays.get("images"), arrays.get("probabilities")
    truth = arrays.get("truth")
    if images is None or probabilities is None:
        raise ArtifactError("lacks 'images' or 'probabilities'", where=path, fix="build the engine again")
    maps = [probabilities] if truth is None else [probabilities, truth]
    if (
        images.ndim != 4
        or not len(images)
        or images.shape[3] != 3
        or any(m.shape != images.shape[:3] for m in maps)
        or any(a.dtype != np.uint8 for a in [images, *maps])
    ):
        raise ArtifactError("contains arrays of other shapes or types than expected", where=path)
    stored = arrays.get("names")
    names = tuple(str(n) for n in stored) if stored is not None else tuple(f"case {i + 1}" for i in range(len(images)))
    if len(names) != len(images):
        raise ArtifactError(f"contains {len(names)} names for {len(images)} images", where=path)
    return Golden(images, probabilities, truth, names, "PyTorch FP32, stored at export", sha256_file(path))
