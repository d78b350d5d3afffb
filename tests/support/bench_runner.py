"""A small real engine for the tests of measurement: a brightness threshold that says how long it took."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_file
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import read_manifest, write_manifest
from gms_rt.runtime.base import Runner, RunnerInfo, Timings
from support.clock import Clock
from support.trees import plain_manifest

SIDE = 32


class ThresholdRunner(Runner):
    """Mean brightness as probability. On its clock each inference of a bench takes `delay` seconds, every `hiccup`-th
    ten times as long."""

    def __init__(
        self,
        *,
        delay: float = 0.001,
        gain: float = 1.0,
        shift: int = 0,
        hiccup: int = 0,
        side: int = SIDE,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(RunnerInfo("cpu", 1, side, side, "test processor", "f32", threads=1))
        self.delay, self.gain, self.shift, self.hiccup, self.calls = delay, gain, shift, hiccup, 0
        self.clock = clock or Clock()

    def _infer(self, images: U8, probabilities: U8) -> None:
        values = images.mean(axis=3) * self.gain
        probabilities[...] = np.roll(np.clip(values, 0, 255).astype(np.uint8), self.shift, axis=2)

    def _bench(self, images: U8, seconds: float, iterations: int, warmup: float) -> Timings:
        self.clock.sleep(warmup)
        total: list[float] = []
        while sum(total) < seconds or len(total) < iterations:
            self.calls += 1
            total.append(self.delay * (10 if self.hiccup and self.calls % self.hiccup == 0 else 1))
            self.clock.sleep(total[-1])
        samples, zero = np.array(total) * 1e3, np.zeros(len(total))
        return Timings(samples, samples, zero, zero, zero, sum(total), warmup)

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
    manifest = plain_manifest(
        folder.name,
        side,
        precision=precision,
        files={name: sha256_file(folder / name) for name in ("model.onnx", "golden.npz")},
        source={"kind": "test", "name": "threshold"},
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


def fused_graph(path: Path, *, side: int = SIDE, weight: float = 1.0, seed: int = 0) -> Path:
    """A small fused graph with convolutions: bright is foreground."""
    import onnx
    from onnx import helper

    from support.graphs import FLOAT, UINT8, model_of

    generator = np.random.default_rng(seed)
    first = generator.uniform(0.5, 1.5, (8, 3, 3, 3)).astype(np.float32) * weight / 27
    last = np.full((1, 8, 1, 1), 2.0 / 255, np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], "input/cast", to=FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], "input/transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "first"], ["c"], "encoder/conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "encoder/relu"),
        helper.make_node("Conv", ["r", "last", "bias"], ["l"], "decoder/conv"),
        helper.make_node("Sigmoid", ["l"], ["p"], "output/sigmoid"),
        helper.make_node("Mul", ["p", "scale"], ["s"], "output/scale"),
        helper.make_node("Round", ["s"], ["o"], "output/round"),
        helper.make_node("Transpose", ["o"], ["n"], "output/transpose", perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["n"], ["mask"], "output/cast", to=UINT8),
    ]
    constants = {"first": first, "last": last, "bias": np.array([-8.0], np.float32), "scale": np.float32(255)}
    image, mask = ("image", UINT8, [1, side, side, 3]), ("mask", UINT8, [1, side, side, 1])
    model = model_of(nodes, [image], [mask], constants, name="threshold", ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def native_engine(folder: Path, *, side: int = SIDE, weight: float = 1.0) -> Path:
    """An engine folder with a real graph; the reference is ONNX's own evaluator of the graph with weight one."""
    from onnx.reference import ReferenceEvaluator

    engine_folder(folder, side=side)
    evaluator = ReferenceEvaluator(str(fused_graph(folder / "reference.onnx", side=side)))
    fused_graph(folder / "model.onnx", side=side, weight=weight)
    (folder / "reference.onnx").unlink()
    images, truth = golden_images(side=side)
    maps = np.concatenate([evaluator.run(None, {"image": image[None]})[0][..., 0] for image in images])
    names = np.array([f"disc-{i}" for i in range(len(images))])
    np.savez(folder / "golden.npz", images=images, probabilities=maps, truth=truth, names=names)
    replaced(folder, files={name: sha256_file(folder / name) for name in ("model.onnx", "golden.npz")})
    return folder


def native_missing() -> str:
    """Why the C library cannot run here, or ""."""
    from gms_rt.errors import GmsError
    from gms_rt.runtime.library import load_library

    try:
        load_library()
    except (GmsError, OSError) as error:
        return f"the C library is not built: {error}"
    return ""
