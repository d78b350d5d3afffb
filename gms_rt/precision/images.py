"""Calibration and gate images: read from a folder or a list as `gms-rt infer` reads them, at the graph's size.

Of a file of many frames (pages, a DICOM loop, slices, a video) the first frame is taken. Only the number of images and
a hash that names the set are ever recorded, never an image. Two sets that share an image are noticed by content.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes
from gms_rt.errors import UsageError
from gms_rt.scan.choose import evenly, image_from_scan, scans_from_place
from gms_rt.scan.reader import PICTURE_SUFFIXES


@dataclass(frozen=True)
class ImageSet:
    """Images at network size, and where they come from."""

    images: U8  # K×H×W×3, RGB
    source: str
    synthetic: bool = False  # drawn, not taken of what the model is for: no certificate rests on them

    @property
    def sha256(self) -> str:
        """One hash for the set, whatever its order."""
        return sha256_bytes("".join(sorted(self.each_sha256())).encode())

    def each_sha256(self) -> list[str]:
        """One hash per image."""
        return [_sha256(image) for image in self.images]

    def distinct(self) -> ImageSet:
        """This set, or each of its images once: one that is there again tells nothing new."""
        first = sorted(dict(reversed([(digest, i) for i, digest in enumerate(self.each_sha256())])).values())
        return self if len(first) == len(self.images) else dataclasses.replace(self, images=self.images[first])

    def at_most(self, count: int | None) -> ImageSet:
        """This set, or so many of its images, evenly chosen; None: all."""
        given = len(self.images)
        if count is None or count >= given:
            return self
        chosen = self.images[[i * given // count for i in range(count)]]
        return dataclasses.replace(self, images=chosen, source=f"{self.source}, {count} of {given}")

    def record(self) -> dict[str, object]:
        """What may be written down about the set."""
        return {"source": self.source, "count": len(self.images), "sha256": self.sha256}


def read_images(path: Path, height: int, width: int, *, limit: int = 0, skip: frozenset[str] = frozenset()) -> ImageSet:
    """The scans of a folder, or of a text file with one path per line, at most `limit`, evenly chosen.

    Images whose content hash is in `skip` are left out, so that a gate set never shares an image with calibration.
    """
    files = scans_from_place(path)
    if limit:
        files = evenly(files, limit + len(skip))
    images: list[U8] = []
    for file in files:
        image = image_from_scan(file, height, width)
        if not skip or _sha256(image) not in skip:
            images.append(image)
        if limit and len(images) == limit:
            break
    if not images:
        why = "has no images" if not files else "has only images that are already used for calibration"
        kinds = ", ".join(PICTURE_SUFFIXES)
        raise UsageError(why, where=path, fix=f"give a folder with images ({kinds}), DICOM, NIfTI or video files")
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
        raise UsageError("has the same image again and again", where=both.source, fix="give different images")
    return first, ImageSet(np.stack(rest), f"{both.source} (the others)")


def sixths(everything: ImageSet) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Three disjoint sets from one: a sixth for calibration, a third for the search, half for the gate."""
    place = np.arange(len(everything.images)) % 6
    digests = np.array(everything.each_sha256())
    parts: list[ImageSet] = []
    seen: set[str] = set()
    for chosen, name in (((0,), "a sixth"), ((1, 4), "a third"), ((2, 3, 5), "half")):
        take = np.isin(place, chosen) & ~np.isin(digests, list(seen))
        if not take.any():
            raise UsageError("has the same image again and again", where=everything.source, fix="give different images")
        seen |= set(digests[take])
        parts.append(ImageSet(everything.images[take], f"{everything.source} ({name})"))
    return parts[0], parts[1], parts[2]


def check_disjoint(others: ImageSet, gate: ImageSet, use: str = "calibration") -> None:
    """Refuse a gate that would judge on images that give the ranges, or that the search chooses by."""
    shared = set(others.each_sha256()) & set(gate.each_sha256())
    if shared:
        raise UsageError(
            f"{len(shared)} gate images are also {use} images",
            where=gate.source,
            fix="give other images with --gate-data",
        )


def _sha256(image: U8) -> str:
    return sha256_bytes(np.ascontiguousarray(image).tobytes())
