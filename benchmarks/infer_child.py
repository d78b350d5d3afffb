"""One process of `benchmarks/infer_pipeline.py --images`: it prints one JSON object.

It calls only what this version of gms-rt and the one it is compared with both have, so that both run the same lines.
"""

from __future__ import annotations

import argparse
import inspect
import json
import resource
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gms_rt.engine.loaded import Engine
from gms_rt.engine.select import load
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, outputs, run_cases
from gms_rt.infer.confidence import confidence
from gms_rt.infer.measure import measure_mask
from gms_rt.scan.mask import mask_from_probability
from gms_rt.scan.reader import fetch

try:
    from gms_rt.runtime.masks import png_of_mask
except ImportError:  # before the C library wrote masks
    png_of_mask = outputs.mask_png  # type: ignore[attr-defined,unused-ignore]


def cpu_seconds() -> tuple[float, float]:
    """User and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def peak_mib() -> int:
    """The most memory this process has had; what getrusage tells begins with that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM:"))


def engine_alone(engine: Engine, seconds: float) -> dict[str, float]:
    """The engine's own rate with all its lanes, and what an image costs in processor time."""
    info = engine.runner.info
    images = np.random.default_rng(1).integers(0, 256, (8, info.height, info.width, 3), np.uint8)
    engine.runner.bench(images, seconds=0.2)
    start = sum(cpu_seconds())
    timings = engine.runner.bench(images, seconds=seconds, warmup=0.0)
    spent = sum(cpu_seconds()) - start
    return {
        "images_per_second": round(timings.images_per_second, 1),
        "cpu_ms_per_image": round(1e3 * spent / (len(timings.total) * timings.batch), 4),
    }


def whole_run(engine: Engine, paths: Sequence[str], out: Path, options: InferOptions) -> dict[str, Any]:
    """From files to masks and tables, as `gms-rt infer` does it, without its start."""
    found = find_sources(list(paths))
    with OutFolder(out) as folder:
        user, system = cpu_seconds()
        start = time.perf_counter()
        summary = run_cases(found, InferJob(engine, folder, options))
        seconds = time.perf_counter() - start
        user, system = (now - before for now, before in zip(cpu_seconds(), (user, system), strict=True))
    if summary.failed or summary.cases != len(paths):
        raise SystemExit(f"{summary.failed} of {summary.cases} cases failed")
    return {
        "files": len(paths),
        "files_per_second": round(len(paths) / seconds, 1),
        "cpu_ms_per_file": {
            "user": round(1e3 * user / len(paths), 4),
            "system": round(1e3 * system / len(paths), 4),
            "sum": round(1e3 * (user + system) / len(paths), 4),
        },
        "peak_rss_mib": peak_mib(),
        "stages": summary.stages,
    }


def timed(call: Callable[[Any], Any], values: Sequence[Any], rounds: int = 5) -> tuple[float, list[Any]]:
    """Milliseconds per value, for each the least of some rounds, and what came out."""
    least, results = [float("inf")] * len(values), [None] * len(values)
    for _ in range(rounds):
        for index, value in enumerate(values):
            start = time.perf_counter()
            results[index] = call(value)
            least[index] = min(least[index], time.perf_counter() - start)
    return round(1e3 * statistics.fmean(least), 4), results


def waterfall(engine: Engine, paths: Sequence[str], out: Path) -> dict[str, float]:
    """Milliseconds for each step of one file after the other, in one thread; what overlaps in a run is a sum here."""
    cv2.setNumThreads(1)
    steps: dict[str, float] = {}
    steps["read and hash"], fetched = timed(fetch, [Path(path) for path in paths])
    steps["decode"], frames = timed(lambda one: next(iter(one.open().frames)), fetched)
    steps["resize to the network"], prepared = timed(lambda frame: engine.prepare(frame.image), frames)
    steps["engine"], levels = timed(lambda image: engine.predict([image])[0], prepared)
    pairs = list(zip(levels, frames, strict=True))
    steps["resize to the image"], restored = timed(lambda pair: engine.restore(pair[0], pair[1].image.shape), pairs)
    steps["threshold"], masks = timed(mask_from_probability, restored)
    steps["measure"], _ = timed(lambda mask: measure_mask(mask, None), masks)
    steps["confidence"], _ = timed(confidence, levels)
    steps["PNG"], files = timed(png_of_mask, masks)
    steps["write and sync"] = written(files, out)
    return steps


def written(files: Sequence[bytes], out: Path) -> float:
    """Milliseconds per file until the disk has it: one by one, or in groups of 16 where this version has groups."""
    out.mkdir(parents=True)
    group = 16 if hasattr(outputs, "part_of_result") else 1
    rounds = []
    for turn in range(3):
        start = time.perf_counter()
        for first in range(0, len(files), group):
            named = [(out / f"{turn}-{first + i}.png", data) for i, data in enumerate(files[first : first + group])]
            if group == 1:
                outputs.write_result(*named[0])
            else:
                from gms_rt.infer.file_group import commit_parts

                commit_parts([outputs.part_of_result(path, data) for path, data in named])
        rounds.append(1e3 * (time.perf_counter() - start) / len(files))
    return round(min(rounds), 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--list", type=Path, required=True, help="text file of paths")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--root", type=Path, required=True, help="folder that is not there yet; what is written stays")
    parser.add_argument("--keep", type=Path, help="copy the masks here")
    parser.add_argument("--all-results", action="store_true", help="overlays and contours, too")
    parser.add_argument("--waterfall", action="store_true")
    arguments = parser.parse_args()
    paths = arguments.list.read_text().splitlines()[: arguments.count]
    more = arguments.all_results
    root: Path = arguments.root
    root.mkdir(parents=True)
    with load(arguments.engine, mode="throughput") as engine:
        if arguments.waterfall:
            print(json.dumps({"code": inspect.getfile(Engine), "steps": waterfall(engine, paths, root / "w")}))
            return
        cv2.setNumThreads(1)
        before = engine_alone(engine, arguments.seconds)
        run = whole_run(engine, paths, root / "out", InferOptions(overlays=more, contours=more))
        after = engine_alone(engine, arguments.seconds)
        if arguments.keep:
            shutil.copytree(root / "out" / "masks", arguments.keep)
        print(json.dumps({"code": inspect.getfile(Engine), "engine_alone": [before, after], **run}))


if __name__ == "__main__":
    main()
