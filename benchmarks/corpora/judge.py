"""What an independent reader says: `judge.py pixels FILE…` and `judge.py seg FILE…` print one JSON object per file.

Pixels: the frames that gms-rt reads against those of Pillow, tifffile, pydicom or nibabel. Eight bits without a window
must be equal (lossy formats nearly so). Deeper values become eight bits through a window, which neither reorders nor
merges and splits: wherever the stored value is higher, the grey level must not be lower. A file is read twice; both
readings must be the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

FRAMES = 4  # of each file
LOSSY = ("JPEG", "WEBP", "MPO")


def ours(path: Path) -> tuple[list[np.ndarray], bool]:
    """The first frames as gms-rt reads them, and whether a window made them eight bits."""
    from gms_rt.scan.reader import fetch

    frames = list(itertools.islice(fetch(path).open().frames, FRAMES))
    return [frame.image for frame in frames], any(not frame.window.startswith("8 bit") for frame in frames)


def theirs(path: Path) -> tuple[str, Iterator[tuple[np.ndarray, str]]] | None:
    """Who else reads it, and its frames, each with how it compares: "equal", "near" or "ordered"."""
    name = path.name.lower()
    with path.open("rb") as stream:
        dicom = stream.read(132)[128:] == b"DICM"
    if dicom or name.endswith((".dcm", ".ima", ".dicom")):
        return "pydicom", _pydicom(path)
    if name.endswith((".nii", ".nii.gz")):
        return "nibabel", _nibabel(path)
    if name.endswith((".tif", ".tiff")) and (frames := _tifffile(path)) is not None:
        return "tifffile", iter(frames)
    if name.endswith((".avi", ".mp4")):
        return None
    return "Pillow", _pillow(path)


def _pydicom(path: Path) -> Iterator[tuple[np.ndarray, str]]:
    import pydicom
    from pydicom.pixels import apply_color_lut, iter_pixels

    header = pydicom.dcmread(path)
    padding = header.get("PixelPaddingValue")
    colour = header.PhotometricInterpretation
    for frame in iter_pixels(path):
        if colour == "PALETTE COLOR":
            lut = apply_color_lut(frame, header)
            yield lut, "ordered"
        elif frame.ndim == 3:
            yield frame, "near" if frame.dtype == np.uint8 else "ordered"
        else:
            values = frame.astype(np.float64)
            if padding is not None and isinstance(padding, int):
                values[frame == padding] = np.nan
            yield values, "ordered"


def _nibabel(path: Path) -> Iterator[tuple[np.ndarray, str]]:
    import nibabel

    volume = np.asanyarray(nibabel.load(path).dataobj)
    if volume.dtype.fields is not None:
        return
    volume = volume.reshape(volume.shape + (1,) * (4 - volume.ndim)).astype(np.float64)
    for time in range(volume.shape[3]):
        for index in range(volume.shape[2]):
            yield volume[:, :, index, time].T, "ordered"


def _tifffile(path: Path) -> list[tuple[np.ndarray, str]] | None:
    """Frames of a deep TIFF; None for one of eight bits, which Pillow reads."""
    try:
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            values = page.asarray()
            if values.dtype.itemsize < 2 or page.photometric.name not in ("MINISBLACK", "MINISWHITE", "RGB"):
                return None
            if page.planarconfig.name == "SEPARATE" and values.ndim == 3:
                values = np.moveaxis(values, 0, 2)
    except Exception:  # not installed, or a file that it cannot read
        return None
    return [(values[..., :3] if values.ndim == 3 else values, "ordered")]


def _pillow(path: Path) -> Iterator[tuple[np.ndarray, str]]:
    from PIL import Image, ImageOps

    with Image.open(path) as picture:
        how = "near" if picture.format in LOSSY else "equal"
        for number in range(getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1):
            picture.seek(number)
            shown = ImageOps.exif_transpose(picture)
            mode = shown.mode
            if mode in ("I", "F") or mode.startswith("I;16"):
                yield np.asarray(shown, np.float64), "ordered"
            elif mode in ("1", "L", "RGB", "P", "RGBA", "LA", "PA"):
                over = Image.new("RGBA", shown.size, (0, 0, 0, 255))
                over.alpha_composite(shown.convert("RGBA"))
                yield np.asarray(over.convert("RGB")), how
            else:  # CMYK, LAB, YCbCr: each library has its own idea of these colours
                return


def difference(mine: np.ndarray, other: np.ndarray, how: str) -> str:
    """What is wrong with our frame, or nothing."""
    if mine.shape[:2] != other.shape[:2]:
        return f"is {mine.shape[1]}x{mine.shape[0]}, not {other.shape[1]}x{other.shape[0]}"
    if how == "ordered":
        pairs = [(mine, other)]
        if other.ndim == 3:
            colour = mine if mine.ndim == 3 else np.repeat(mine[..., None], 3, axis=2)
            pairs = [(colour[..., channel], other[..., channel]) for channel in range(3)]
        return "" if all(in_order(a, b) for a, b in pairs) else "grey levels do not follow the stored values"
    colours = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in (mine, other)]
    apart = np.abs(colours[0].astype(int) - colours[1].astype(int))
    if how == "equal":
        return "" if apart.max() <= 1 else f"pixels differ by up to {apart.max()}"
    return "" if apart.mean() <= 3 else f"pixels differ by {apart.mean():.1f} on average"


def in_order(levels: np.ndarray, stored: np.ndarray) -> bool:
    """Whether a higher stored value never has a lower level (or, inverted, never a higher one), but for rounding."""
    stored, levels = stored.ravel(), levels.ravel().astype(int)
    known = np.isfinite(stored)
    order = np.argsort(stored[known], kind="stable")
    stored, levels = stored[known][order], levels[known][order]
    if not len(stored):
        return True
    starts = np.concatenate([[0], np.flatnonzero(np.diff(stored)) + 1])
    lowest, highest = np.minimum.reduceat(levels, starts), np.maximum.reduceat(levels, starts)
    rising = np.maximum.accumulate(highest)[:-1] - lowest[1:]
    falling = highest[1:] - np.minimum.accumulate(lowest)[:-1]
    return bool((highest - lowest).max() <= 1 and (len(starts) == 1 or min(rising.max(), falling.max()) <= 1))


def judge_pixels(path: Path) -> dict[str, Any]:
    """Our reading against another's."""
    try:
        mine, windowed = ours(path)
    except Exception as error:
        return {"unread": f"{type(error).__name__}: {error}"}
    again, _ = ours(path)
    digest = [hashlib.sha256(image.tobytes()).hexdigest() for image in mine]
    value: dict[str, Any] = {"steady": digest == [hashlib.sha256(image.tobytes()).hexdigest() for image in again]}
    try:
        reader = theirs(path)
        if reader is None:
            return value
        frames = list(itertools.islice(reader[1], FRAMES))
    except Exception as error:
        return value | {"other": f"{type(error).__name__}: {error}"}
    if windowed and any(how != "ordered" for _, how in frames):
        return value  # Pillow drops the lower bits of deep colour, so there is nothing to compare a window with
    pairs = list(zip(mine, frames, strict=False))
    if pairs:
        value |= {"by": reader[0], "wrong": next(filter(None, (difference(m, *f) for m, f in pairs)), "")}
    return value


def judge_seg(path: Path) -> dict[str, Any]:
    """Whether highdicom reads a segmentation, with how many frames."""
    import highdicom

    try:
        return {"frames": int(highdicom.seg.segread(path).get("NumberOfFrames", 1))}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Judge the files that are named on standard input, one a line."""
    warnings.simplefilter("ignore")
    judge = {"pixels": judge_pixels, "seg": judge_seg}[sys.argv[1]]
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        print(json.dumps({"file": str(path)} | judge(path)), flush=True)


if __name__ == "__main__":
    main()
