"""What `gms-rt infer --reduced-jpeg` brings on large JPEG files, and what it changes.

    python benchmarks/reduced_jpeg.py --images $GMS_RT_DATA/ham10000/images --engine engines/edge

Pictures are enlarged five, ten and twenty times, with grain and with sharp lines drawn over them, stored as JPEG and
taken whole and reduced, in turn: milliseconds until the network's picture is there, how far the two pictures are apart
in levels of 255, and the Dice of their masks. Then `infer` over the largest, whole and reduced, in turn. Prints one
JSON object; the pictures lie in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt.artifacts import write_json
from gms_rt.engine.loaded import Engine
from gms_rt.engine.select import load
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer.case_settings import REDUCED_SIDE
from gms_rt.metrics import dice
from gms_rt.runtime.device import package_version, probe
from gms_rt.scan.mask import mask_from_probability
from gms_rt.scan.pictures import read_picture

_SCALES = (5, 10, 20)


def enlarged(path: Path, scale: int, rng: np.random.Generator) -> bytes:
    """A picture enlarged, with grain and sharp lines, as JPEG."""
    image = cv2.imread(str(path))
    large = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    large += rng.normal(0, 6, large.shape)
    drawn = np.clip(large, 0, 255).astype(np.uint8)
    height, width = drawn.shape[:2]
    for _ in range(12):
        ends = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
        cv2.line(drawn, *ends, (0, 0, 0) if rng.random() < 0.5 else (255, 255, 255), int(rng.integers(1, 4)))
    done, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return bytes(data.tobytes())


def taken(engine: Engine, data: bytes, least_side: int) -> tuple[float, Any, Any]:
    """Milliseconds of this thread until the network's picture is there; that picture; the mask."""
    start = time.thread_time()
    frame = next(iter(read_picture(data, least_side=least_side).frames))
    picture = engine.prepare(frame.image)
    spent = 1e3 * (time.thread_time() - start)
    return spent, picture, mask_from_probability(engine.restore(engine.predict([picture])[0], frame.size))


def compared(engine: Engine, pictures: Sequence[bytes]) -> dict[str, Any]:
    """Whole and reduced, in turn, over the same pictures."""
    times: dict[str, list[float]] = {"whole": [], "reduced": []}
    worst, means, overlaps = 0, [], []
    for data in pictures:
        whole, first, mask = taken(engine, data, 0)
        reduced, second, other = taken(engine, data, REDUCED_SIDE * max(engine.height, engine.width))
        apart = np.abs(first.astype(int) - second)
        worst = max(worst, int(apart.max()))
        means.append(float(apart.mean()))
        overlaps.append(dice(mask, other))
        for name, spent in (("whole", whole), ("reduced", reduced)):
            times[name].append(spent)
    return {
        "pictures": len(pictures),
        "pixels": list(mask.shape[::-1]),
        "ms": {name: round(statistics.median(values), 2) for name, values in times.items()},
        "levels_apart": {"most": worst, "mean": round(statistics.fmean(means), 3)},
        "dice": {"mean": round(statistics.fmean(overlaps), 5), "least": round(min(overlaps), 5)},
    }


def rates(engine: Engine, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Files a second of whole runs, in turn."""
    found: dict[str, list[float]] = {"whole": [], "reduced": []}
    for turn in range(rounds):
        for name in found:
            sources = find_sources([str(folder)])
            with OutFolder(folder.parent / f"{name}-{turn}") as out:
                start = time.perf_counter()
                run_cases(sources, InferJob(engine, out, InferOptions(overlays=False, reduced_jpeg=name == "reduced")))
                found[name].append(round(len(sources.sources) / (time.perf_counter() - start), 2))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of pictures to enlarge")
    parser.add_argument("--engine", required=True, help="engine folder")
    parser.add_argument("--count", type=int, default=40, help="pictures of each size")
    parser.add_argument("--rounds", type=int, default=3, help="runs of infer")
    parser.add_argument("--out", type=Path, help="also write the result here")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    paths = sorted(options.images.iterdir())
    paths = paths[:: max(1, len(paths) // options.count)][: options.count]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary, load(options.engine, mode="throughput") as engine:
        folder = Path(temporary) / "large"
        folder.mkdir()
        sizes = []
        for scale in _SCALES:
            pictures = [enlarged(path, scale, rng) for path in paths]
            sizes.append(compared(engine, pictures))
        for path, data in zip(paths, pictures, strict=True):  # the largest
            (folder / f"{path.stem}.jpg").write_bytes(data)
        report = {
            "device": probe().processor,
            "cores": len(os.sched_getaffinity(0)),
            "versions": {name: package_version(name) for name in ("openvino", "opencv-python-headless", "numpy")},
            "command": "python benchmarks/reduced_jpeg.py --images $GMS_RT_DATA/ham10000/images --engine ENGINE",
            "engine": engine.manifest.name,
            "sizes": sizes,
            "files_per_second": rates(engine, folder, options.rounds),
        }
    print(json.dumps(report, indent=2))
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()
