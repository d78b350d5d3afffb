"""Calibration and gate images: read from a folder or a list, at the graph's size, with a hash that names the set.

Only the hash and the counts are ever recorded, never an image. Two sets that share a picture are noticed by content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt import scan
from gms_rt.arrays import U8
from gms_rt.errors import UsageError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageSet:
    """Images at network size, uint8 [K,H,W,3], and where they come from in words."""

    images: U8
    source: str

    @property
    def sha256(self) -> str:
        """One hash for the set, whatever its order."""
        return hashlib.sha256("".join(sorted(self.each_sha256())).encode()).hexdigest()

    def each_sha256(self) -> list[str]:
        """One hash an image."""
        return [hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in self.images]

    def record(self) -> dict[str, object]:
        """What may be written down about the set."""
        return {"source": self.source, "count": len(self.images), "sha256": self.sha256}


def read_images(path: Path, height: int, width: int, *, limit: int = 0, skip: frozenset[str] = frozenset()) -> ImageSet:
    """The pictures of a folder, or of a text file with one path a line, at most `limit`, evenly chosen.

    Pictures whose content hash is in `skip` are left out, so that a gate set never holds a calibration image.
    """
    files = _listed(path)
    if limit and len(files) > limit + len(skip):
        files = [files[i * len(files) // (limit + len(skip))] for i in range(limit + len(skip))]
    images: list[U8] = []
    for file in files:
        image = _read(file, height, width)
        if not skip or hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() not in skip:
            images.append(image)
        if limit and len(images) == limit:
            break
    if not images:
        why = "holds no image" if not files else "holds only images that are already used for calibration"
        raise UsageError(why, where=path, fix=f"give a folder with {', '.join(ENDINGS)}")
    return ImageSet(np.stack(images), path.name)


def halves(both: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Two disjoint sets from one: every third image for calibration, the rest for the gate."""
    if len(both.images) < 2:
        raise UsageError("one image cannot serve calibration and the gate", where=both.source, fix="give more images")
    take = np.arange(len(both.images)) % 3 == 0
    first = ImageSet(both.images[take], f"{both.source} (every third)")
    seen = set(first.each_sha256())
    rest = [image for image, digest in zip(both.images, both.each_sha256(), strict=True) if digest not in seen]
    if not rest:
        raise UsageError("holds the same image only", where=both.source, fix="give different images")
    return first, ImageSet(np.stack(rest), f"{both.source} (the others)")


def check_disjoint(calibration: ImageSet, gate: ImageSet) -> None:
    """Refuse a gate that would judge on the images the ranges were taken from."""
    shared = set(calibration.each_sha256()) & set(gate.each_sha256())
    if shared:
        raise UsageError(
            f"{len(shared)} gate images are also calibration images",
            where=gate.source,
            fix="give other images with --gate-data",
        )


def _listed(path: Path) -> Sequence[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    if not path.is_file():
        raise UsageError("does not exist", where=path, fix="give a folder of images or a text file that lists them")
    if path.suffix.lower() in ENDINGS:
        return [path]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("is neither a folder nor a list of images", where=path) from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [Path(name) if Path(name).is_absolute() else path.parent / name for name in names]


def _read(file: Path, height: int, width: int) -> U8:
    import cv2

    try:
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=file) from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise UsageError("is not an image", where=file, fix="remove it from the list or folder")
    return scan.resize_image(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), height, width)
