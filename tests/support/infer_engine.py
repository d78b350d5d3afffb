"""A real engine for tests of `infer`: a pixel's probability is its brightness. Also a command line that uses it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.arrays import U8
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import write_manifest
from gms_rt.runtime.base import Runner, RunnerInfo, Timings
from support.trees import ROOT, plain_manifest

SIZE = 64


class BrightnessRunner(Runner):
    """Thresholds nothing: the mean of red, green and blue is the probability."""

    def __init__(self, *, batch: int = 1, lanes: int = 1, seconds: float = 0.0) -> None:
        super().__init__(RunnerInfo("cpu", batch, SIZE, SIZE, "brightness", "f32", lanes))
        self.seconds = seconds
        self.images = 0

    def _infer(self, images: U8, probabilities: U8) -> None:
        self.images += len(images)
        time.sleep(self.seconds * len(images))
        probabilities[:] = (images.astype(np.uint16).sum(-1) // 3).astype(np.uint8)

    def _bench(self, images: U8, seconds: float, iterations: int, warmup: float) -> Timings:
        start = time.perf_counter()
        self.infer(images)
        wall = time.perf_counter() - start
        each = np.full(len(images), 1000 * wall / len(images))
        return Timings(each, each, each * 0, each * 0, each * 0, wall, 0.0)

    def _close(self) -> None:
        pass


def brightness_engine(folder: Path, **options: Any) -> Engine:
    """An engine folder with a manifest, and the engine opened from it."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = plain_manifest("brightness", SIZE)
    write_manifest(folder, manifest)
    return Engine(folder, manifest, BrightnessRunner(**options))


def program(folder: Path, seconds: float, *arguments: object) -> subprocess.Popen[bytes]:
    """The command line with this engine as its own process."""
    command = [sys.executable, __file__, str(folder), str(seconds), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def main() -> None:
    """`python infer_engine.py ENGINE_FOLDER SECONDS infer …`: the command line with this engine."""
    import gms_rt.cli.infer
    from gms_rt.cli.main import main as gms_rt_main

    # Whoever starts the tests in the background of a shell, or with nohup, hands down that these are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    gms_rt.cli.infer.load = lambda path, **_: brightness_engine(folder, seconds=seconds)  # type: ignore[attr-defined]
    gms_rt.cli.infer.newest_engines = lambda root: [folder]  # type: ignore[attr-defined]
    gms_rt_main(sys.argv[3:])


if __name__ == "__main__":
    main()
