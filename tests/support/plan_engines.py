"""Engine folders with a plan, a machine that the plan fits, and runners that only remember what they were given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes
from gms_rt.engine import fits
from gms_rt.engine.manifest import Plan, write_manifest
from gms_rt.runtime.base import Runner, RunnerInfo, Timings
from gms_rt.runtime.device import Cpu, Gpu, Machine
from support.trees import plain_manifest

SIDE = 16
PLAN = "tensorrt-rtx-1.7-sm89.plan"
CPU = Cpu("a processor", "x86_64", 4, ("avx2",))
# What a build found out about a plan's graph.
JUDGED = {
    "mean": 0.9987,
    "minimum": 0.9871,
    "images": 99,
    "passed": True,
    "promise": None,
    "arithmetic": "f16",
    "how": "emulated on a CPU: every node's result rounded to f16, sums in f32",
    "data": {"source": "scans"},
}
L4 = Machine(CPU, (Gpu(0, "L4", 89, 2**34),), "13.0", "", {})


class FakeRunner(Runner):
    """Remembers the bytes it was given; a pixel's probability is its brightness, times `gain`."""

    opened: list[FakeRunner]
    gain = 1.0
    runtime = "runtime 1"
    execution = "f32"

    def __init__(self, graph: Path, *rest: Any, content: bytes | None = None, **options: Any) -> None:
        backend = "cpu" if content is None else "tensorrt-rtx"
        details: dict[str, str | int | float] = {"runtime": self.runtime}
        super().__init__(RunnerInfo(backend, 1, SIDE, SIDE, f"a {backend} device", self.execution, details=details))
        self.content, self.inferred = content, 0
        FakeRunner.opened.append(self)

    def _infer(self, images: U8, probabilities: U8) -> None:
        self.inferred += len(images)
        probabilities[...] = np.clip(images.mean(axis=3) * self.gain, 0, 255).astype(np.uint8)

    def _bench(self, images: U8, seconds: float, iterations: int, warmup: float) -> Timings:
        raise NotImplementedError

    def _close(self) -> None:
        pass


def use_fakes(monkeypatch: pytest.MonkeyPatch, machine: Machine = L4) -> None:
    """Let `load` see a machine and open fake runners."""
    FakeRunner.opened = []
    monkeypatch.setattr(FakeRunner, "gain", 1.0)
    monkeypatch.setattr(FakeRunner, "runtime", "runtime 1")
    monkeypatch.setattr(FakeRunner, "execution", "f32")
    monkeypatch.setattr(fits, "probe", lambda: machine)
    monkeypatch.setattr(fits, "tensorrt_version", lambda flavour: "1.7")
    monkeypatch.setattr("gms_rt.runtime.cpu.CpuRunner", FakeRunner)
    monkeypatch.setattr("gms_rt.runtime.tensorrt.TensorRtRunner", FakeRunner)


def plan_engine(folder: Path, *, content: bytes = b"native code", **changes: Any) -> Path:
    """An engine with a graph and one plan, from somewhere else."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"a graph")
    (folder / PLAN).write_bytes(content)
    plan = Plan("tensorrt-rtx", PLAN, sha256_bytes(content), len(content), 89, "1.7", 0.1)
    fields = {"files": {"model.onnx": sha256_bytes(b"a graph")}, "plans": [plan], "targets": ["cpu", "tensorrt-rtx"]}
    write_manifest(folder, plain_manifest(folder.name, SIDE, **{**fields, **changes}))
    return folder
