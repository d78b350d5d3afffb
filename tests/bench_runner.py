"""A small real engine for the tests of measurement: a brightness threshold whose speed can be chosen."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from gms_rt.artifacts import EngineManifest, read_manifest, sha256_file, write_manifest
from gms_rt.runtime.base import U8, Runner, RunnerInfo, Timings
from gms_rt.runtime.engine import Engine

SIDE = 32


class ThresholdRunner(Runner):
    """Mean brightness as probability; each inference takes `delay` seconds, every `hiccup`-th ten times as long."""

    def __init__(
        self, *, delay: float = 0.0, gain: float = 1.0, shift: int = 0, hiccup: int = 0, side: int = SIDE
    ) -> None:
        super().__init__(RunnerInfo("cpu", 1, side, side, "test processor", "f32", threads=1))
        self.delay, self.gain, self.shift, self.hiccup, self.calls = delay, gain, shift, hiccup, 0

    def _infer(self, images: U8, probabilities: U8) -> None:
        values = images.mean(axis=3) * self.gain
        probabilities[...] = np.roll(np.clip(values, 0, 255).astype(np.uint8), self.shift, axis=2)

    def _bench(self, images: U8, seconds: float, iterations: int, warmup: float) -> Timings:
        total: list[float] = []
        start = time.perf_counter()
        while time.perf_counter() - start < seconds or len(total) < iterations:
            began = time.perf_counter()
            out = np.empty(images[:1].shape[:3], np.uint8)
            self._infer(images[:1], out)
            self.calls += 1
            wait = self.delay * (10 if self.hiccup and self.calls % self.hiccup == 0 else 1)
            while time.perf_counter() - began < wait:
                pass
            total.append((time.perf_counter() - began) * 1e3)
        wall = time.perf_counter() - start
        samples, zero = np.array(total), np.zeros(len(total))
        return Timings(samples, samples, zero, zero, zero, wall, warmup)

    def _close(self) -> None:
        pass


def golden_images(count: int = 6, side: int = SIDE) -> tuple[U8, U8]:
    """Discs of growing size on a dark ground, and the truth."""
    rows, columns = np.mgrid[:side, :side]
    truths = [np.hypot(rows - side / 2, columns - side / 2) < 4 + side * 0.3 * i / count for i in range(count)]
    truth = (np.stack(truths) * 255).astype(np.uint8)
    images = np.repeat(np.where(truth > 0, 200, 40).astype(np.uint8)[..., None], 3, axis=3)
    return images, truth


def engine_folder(folder: Path, *, side: int = SIDE, precision: str = "fp32", truth: bool = True) -> Path:
    """An engine folder whose golden file is what ThresholdRunner computes."""
    folder.mkdir(parents=True)
    images, masks = golden_images(side=side)
    arrays = {"images": images, "probabilities": images.mean(axis=3).astype(np.uint8)}
    arrays |= {"truth": masks} if truth else {}
    arrays["names"] = np.array([f"disc-{i}" for i in range(len(images))])
    np.savez(folder / "golden.npz", **arrays)
    (folder / "model.onnx").write_bytes(b"not used")
    manifest = EngineManifest(
        name=folder.name,
        precision=precision,
        created="2026-01-01T00:00:00+00:00",
        gms_rt="0.1.0",
        height=side,
        width=side,
        batch=1,
        model="model.onnx",
        files={name: sha256_file(folder / name) for name in ("model.onnx", "golden.npz")},
        source={"kind": "test", "name": "threshold"},
        tokenizer={},
        targets=["cpu"],
        plans=[],
        census={},
        gate=None,
        execution="f32",
        rebuild="gms-rt build",
    )
    write_manifest(folder, manifest)
    return folder


def opener(**runners: ThresholdRunner):
    """A loader that opens each folder with the runner of its name (others: a plain one)."""

    def open_engine(path: Path, **_: object) -> Engine:
        return Engine(Path(path), read_manifest(Path(path)), runners.get(Path(path).name) or ThresholdRunner())

    return open_engine


def replaced(folder: Path, **changes: object) -> None:
    """Change the manifest of an engine folder."""
    write_manifest(folder, dataclasses.replace(read_manifest(folder), **changes))
