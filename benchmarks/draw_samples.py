"""Draw the bundled samples: `python benchmarks/draw_samples.py --out gms_rt/demo`.

Phantoms as they come from real archives: several formats, bit depths, sizes and orientations. Images go to `samples/`,
their true masks to `samples-truth/`, so that segmenting the first folder never meets a mask.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from gms_rt.demo.bundled import SAMPLE_SCANS, SAMPLE_TRUTHS
from gms_rt.demo.phantoms import Phantom, phantom
from gms_rt.demo.seeds import SAMPLE_SEEDS

UID_ROOT = "1.2.826.0.1.3680043.10.1338."


@dataclass(frozen=True)
class Drawing:
    """One file to write."""

    name: str
    width: int
    height: int
    kind: str = "as drawn"  # or "grey", "16 bit"


DRAWINGS = [
    Drawing("01-landscape.png", 400, 300, "grey"),
    Drawing("02-portrait.png", 240, 320),
    Drawing("03-square.png", 200, 200, "grey"),
    Drawing("04-sixteen-bit.png", 320, 240, "16 bit"),
    Drawing("05-landscape.jpg", 1024, 768, "grey"),
    Drawing("06-portrait.jpg", 480, 640),
    Drawing("07-large.jpg", 2000, 1200, "grey"),
    Drawing("08-wide.jpg", 640, 420, "grey"),
    Drawing("09-landscape.tif", 384, 288, "grey"),
    Drawing("10-portrait.tiff", 224, 288),
    Drawing("11-small.bmp", 256, 208, "grey"),
    Drawing("12-grey.dcm", 400, 300, "grey"),
    Drawing("13-colour.dcm", 240, 300),
    Drawing("14-narrow.png", 220, 360, "grey"),
]
_OPTIONS = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 75], ".png": [cv2.IMWRITE_PNG_COMPRESSION, 9]}


def main() -> None:
    """Write all samples and their masks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder for samples/ and samples-truth/")
    draw_samples(parser.parse_args().out)


def draw_samples(out: Path) -> int:
    """Write all samples and their masks below `out`; the bytes written."""
    folders = out / SAMPLE_SCANS.name, out / SAMPLE_TRUTHS.name
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for number, sample in enumerate(DRAWINGS):
        drawn = _with_lesion(SAMPLE_SEEDS[100 * number : 100 * (number + 1)], sample)
        _write(folders[0] / sample.name, drawn, sample)
        cv2.imwrite(str(folders[1] / f"{Path(sample.name).stem}.png"), drawn.mask)
    return sum(file.stat().st_size for folder in folders for file in folder.iterdir())


def _with_lesion(seeds: Iterable[int], sample: Drawing) -> Phantom:
    """The first of these phantoms that has a lesion and, where the file is to be in colour, a tint."""
    drawn = (phantom(seed, sample.height, sample.width) for seed in seeds)
    return next(p for p in drawn if p.lesions and (p.image.ndim == 3) == (sample.kind == "as drawn"))


def _write(path: Path, drawn: Phantom, sample: Drawing) -> None:
    if path.suffix == ".dcm":
        _write_dicom(path, drawn)
        return
    pixels = drawn.image if drawn.image.ndim == 2 else drawn.image[..., ::-1]
    if sample.kind == "16 bit":
        pixels = pixels.astype(np.uint16) * 257
    cv2.imwrite(str(path), pixels, _OPTIONS.get(path.suffix, []))


def _write_dicom(path: Path, drawn: Phantom) -> None:
    """An ultrasound frame of an invented patient, with the size of its pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

    def uid(what: str) -> str:
        return str(generate_uid(prefix=UID_ROOT, entropy_srcs=[path.name, what]))

    colour = drawn.image.ndim == 3
    height, width = drawn.image.shape[:2]
    spacing_mm = 40.0 / height  # a field 40 mm deep
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    meta.MediaStorageSOPInstanceUID = uid("instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = UltrasoundImageStorage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = uid("study"), uid("series")
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "PHANTOM", "PHANTOM", "", "O"
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
    data.StudyDate = data.ContentDate = "20250101"
    data.StudyTime = data.ContentTime = "120000"
    data.Modality, data.Manufacturer = "US", "gms-rt phantom"
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.Rows, data.Columns = height, width
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelSpacing = [spacing_mm, spacing_mm]
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = width - 1, height - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # centimetres
    region.PhysicalDeltaX = region.PhysicalDeltaY = spacing_mm / 10
    data.SequenceOfUltrasoundRegions = Sequence([region])
    pixels = np.ascontiguousarray(drawn.image).tobytes()
    data.PixelData = pixels + b"\0" * (len(pixels) % 2)
    data.save_as(path, enforce_file_format=True)


if __name__ == "__main__":
    main()
