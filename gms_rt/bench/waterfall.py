"""Where the time goes from an image file to a written mask; the engine is often the smaller part."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import write_bytes
from gms_rt.bench.results import Waterfall, WaterfallStep
from gms_rt.engine.loaded import Engine
from gms_rt.scan.encode import encode_picture
from gms_rt.scan.mask import mask_from_probability
from gms_rt.scan.reader import fetch

REPEATS = 15
_SECONDS = 15.0  # a slow engine is repeated less often, three times at least
_UPSCALE = 3  # a golden picture has network size; scans are larger, and that is what restoring a mask costs


def waterfall(engine: Engine, label: str, image: Path | None, golden: U8, *, repeats: int = REPEATS) -> Waterfall:
    """Median milliseconds of each step for one file; without `image`, an enlarged golden picture written as PNG."""
    with tempfile.TemporaryDirectory(prefix="gms-rt-waterfall-") as name:
        folder = Path(name)
        path = image if image is not None else _written(golden, folder / "scan.png")
        times: dict[str, list[float]] = {}
        shape: tuple[int, ...] = ()
        # The first turn warms files and caches and is thrown away.
        for turn in range(repeats + 1):
            if turn > 3 and sum(map(sum, times.values())) > _SECONDS * 1e3:
                break
            spent, shape = _once(engine, path, folder / "mask.png")
            for step, milliseconds in spent.items():
                if turn:
                    times.setdefault(step, []).append(milliseconds)
    stages = tuple(WaterfallStep(step, float(np.median(values)), step == _ENGINE) for step, values in times.items())
    shown = image.name if image is not None else f"a sample enlarged {_UPSCALE}×"
    return Waterfall(label, shown, shape[:2], stages, max(map(len, times.values())))


_ENGINE = "engine"


def _once(engine: Engine, path: Path, out: Path) -> tuple[dict[str, float], tuple[int, ...]]:
    spent: dict[str, float] = {}

    def timed(step: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        value = call()
        spent[step] = (time.perf_counter() - start) * 1e3
        return value

    data = timed("read file", lambda: fetch(path))
    image = timed("decode", lambda: next(data.open().frames).image)
    ready = timed("resize to network", lambda: engine.prepare(image))
    raw = timed(_ENGINE, lambda: engine.infer(ready[None])[0])
    probability = timed("resize to source", lambda: engine.restore(raw, image.shape))
    mask = timed("threshold", lambda: mask_from_probability(probability))
    png = timed("encode PNG", lambda: encode_picture(".png", mask))
    timed("write file, synced", lambda: write_bytes(out, png))
    return spent, image.shape


def _written(image: U8, path: Path) -> Path:
    large = cv2.resize(image, None, fx=_UPSCALE, fy=_UPSCALE, interpolation=cv2.INTER_CUBIC)
    path.write_bytes(encode_picture(".png", np.asarray(large, np.uint8)))
    return path
