"""Runs of `infer` in tests: folders of pictures, and what a run leaves."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image


def pipeline_threads() -> list[str]:
    """Names of the pipeline's threads that are still alive; other libraries may have threads of their own."""
    return [t.name for t in threading.enumerate() if t.name.startswith(("_decode", "_infer", "_write", "_sync"))]


def blob(height: int, width: int, shade: int = 230) -> Any:
    image = np.full((height, width), 20, np.uint8)
    cv2.circle(image, (width // 3, height // 2), min(height, width) // 4, shade, -1)
    return image


def pictures(folder: Path, count: int = 6) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(blob(60 + 7 * (index % 12), 90)).save(folder / f"{index:03}.png")
    return folder


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "cases.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
