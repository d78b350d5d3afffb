"""How much of an engine's speed is left from files to written masks.

    python benchmarks/infer_pipeline.py --engine engines/demo-fp16 --count 500

Makes mixed images (JPEG, PNG, BMP, 16-bit TIFF, DICOM, 200 to 1000 pixels), measures the engine alone, the whole run,
and the engine alone again, and checks some masks against the engine's own. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from gms_rt.engine.loaded import Engine
from gms_rt.engine.select import load
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.runtime.device import probe

KINDS = ("jpg", "jpg", "jpg", "jpg", "png", "png", "bmp", "tif", "dcm", "dcm")


def scan(rng: np.random.Generator, colour: bool) -> Any:
    """A smooth picture with a bright region and speckle."""
    height, width = (int(n) for n in rng.integers(200, 1000, 2))
    coarse = rng.integers(0, 160, (8, 8, 3 if colour else 1), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1)
    centre, axes = (width // 2, height // 3), (width // 6, height // 8)
    image = cv2.ellipse(np.ascontiguousarray(image), centre, axes, 30, 0, 360, (250,) * image.shape[2], -1)
    image = image.reshape(height, width, -1)
    noisy = image + rng.normal(0, 6, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def write_scans(folder: Path, count: int) -> None:
    """Mixed files, always the same ones."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        image = scan(rng, colour=index % 3 == 0 and kind != "tif")
        flat = image[..., 0] if image.shape[2] == 1 else image
        path = folder / f"{index:05}.{kind}"
        if kind == "dcm":
            write_dicom(path, flat)
        elif kind == "tif":
            Image.fromarray(flat.astype(np.uint16) * 11).save(path)
        else:
            Image.fromarray(flat).save(path)


def write_dicom(path: Path, image: Any) -> None:
    """A secondary capture."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = generate_uid(), generate_uid(), "OT"
    made.Rows, made.Columns = image.shape[:2]
    made.SamplesPerPixel = 1 if image.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if image.ndim == 2 else "RGB"
    if image.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    data = image.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OB"
    made.save_as(path, enforce_file_format=True)


def engine_rate(engine: Engine, seconds: float) -> float:
    """Images per second of the engine alone."""
    info = engine.runner.info
    images = np.random.default_rng(1).integers(0, 256, (8, info.height, info.width, 3), np.uint8)
    return engine.runner.bench(images, seconds=seconds).images_per_second


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--no-dicom-seg", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, load(arguments.engine, mode="throughput") as engine:
        root = Path(temporary)
        write_scans(root / "scans", arguments.count)
        found = find_sources([str(root / "scans")])
        before = engine_rate(engine, arguments.seconds)
        options = InferOptions(dicom_seg=not arguments.no_dicom_seg)
        with OutFolder(root / "out") as out:
            start = time.perf_counter()
            summary = run_cases(found, InferJob(engine, out, options))
            seconds = time.perf_counter() - start
        after = engine_rate(engine, arguments.seconds)
        if summary.failed:
            raise SystemExit(f"{summary.failed} cases failed")
        for path in sorted((root / "scans").glob("*.jpg"))[:20]:
            mask = cv2.imread(str(root / "out/masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
            if not np.array_equal(mask, engine(np.asarray(Image.open(path)))):
                raise SystemExit(f"{path.name}: the mask differs from the engine's own")
        alone = (before + after) / 2
        report = {
            "machine": probe().name,
            "cores": probe().cpu.cores,
            "engine": engine.manifest.name,
            "execution": engine.runner.info.execution,
            "lanes": engine.runner.info.lanes,
            "images": arguments.count,
            "engine_images_per_second": [round(before, 2), round(after, 2)],
            "pipeline_images_per_second": round(arguments.count / seconds, 2),
            "share_of_engine": round(arguments.count / seconds / alone, 4),
            "stages": summary.stages,
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
