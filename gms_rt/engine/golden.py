"""The reference of an engine: pictures with the probabilities that the FP32 original gave for them.

`golden.npz` is written when a graph is exported and copied into every engine that is built from it, without the
pictures that gave the build its ranges or its gate.
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path, sha256_file
from gms_rt.errors import ArtifactError

PYTORCH = "PyTorch FP32, stored at export"  # what a file is of that does not say it


@dataclass(frozen=True)
class Golden:
    """Pictures with their reference: N×H×W×3 images, N×H×W probabilities, and truth masks where known."""

    images: U8
    probabilities: U8
    truth: U8 | None
    names: tuple[str, ...]
    origin: str  # what the reference is, for the certificate
    sha256: str
    synthetic: bool = False  # drawn because nothing else was known: no verdict rests on them
    source: str = ""  # which pictures these are, in words; empty in files of earlier versions

    def part(self, places: Collection[int]) -> Golden:
        """Some of the pictures, as they will be in a file of their own."""
        take = sorted(places)
        return dataclasses.replace(
            self,
            images=self.images[take],
            probabilities=self.probabilities[take],
            truth=None if self.truth is None else self.truth[take],
            names=tuple(self.names[place] for place in take),
            sha256="",
        )


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
    source, synthetic, origin = (arrays.get(key) for key in ("source", "synthetic", "origin"))
    return Golden(
        images,
        probabilities,
        truth,
        names,
        PYTORCH if origin is None else str(origin),
        sha256_file(path),
        # Files of earlier versions do not say it: what their exporter drew had these names.
        all(re.fullmatch(r"phantom-\d+", name) for name in names) if synthetic is None else bool(synthetic),
        "" if source is None else str(source),
    )


def write_golden_file(path: Path, golden: Golden) -> None:
    """Write a `golden.npz`; what its masks are of is written where it is not PyTorch in FP32."""
    arrays: dict[str, Any] = {
        "images": golden.images,
        "probabilities": golden.probabilities,
        "names": np.array(golden.names),
        "synthetic": np.array(golden.synthetic),
        "source": np.array(golden.source),
    }
    if golden.truth is not None:
        arrays["truth"] = golden.truth
    if golden.origin != PYTORCH:
        arrays["origin"] = np.array(golden.origin)
    with atomic_path(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
