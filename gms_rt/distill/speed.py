"""How fast students are on this machine's CPU, opened by the C library in BF16 where the CPU has it; and the largest
student that keeps to a time.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gms_rt.errors import UsageError
from gms_rt.export.options import ExportOptions
from gms_rt.export.student import graph_from_student
from gms_rt.model.student import Student, StudentShape, student_flop, student_shape
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.cpu import CpuRunner
from gms_rt.runtime.options import CpuSettings, Execution

_ROUNDS, _SECONDS = 5, 0.3  # each graph's, in turn, so that a busy machine disturbs all alike
_LARGEST = 64.0  # GFLOP; nothing larger is tried
_STEP = 1.15  # between the budgets that are tried
OnTimed = Callable[["TimedShape"], None]


@dataclass(frozen=True)
class TimedShape:
    """A student with random weights, timed."""

    shape: StudentShape
    gflop: float
    milliseconds: float  # median of one picture


def fast_execution() -> Execution:
    """The fastest floating-point arithmetic that this CPU has."""
    return "bf16" if cpu_arithmetic().bf16 else "f32"


def graph_milliseconds(graphs: Mapping[str, Path], execution: Execution | None = None) -> dict[str, float]:
    """Median latency of one picture for each graph, in rounds that take turns."""
    samples: dict[str, list[float]] = {name: [] for name in graphs}
    settings = CpuSettings(execution=execution or fast_execution())
    with contextlib.ExitStack() as stack:
        runners = {name: stack.enter_context(CpuRunner(path, settings)) for name, path in graphs.items()}
        for _ in range(_ROUNDS):
            for name, runner in runners.items():
                info = runner.info
                images = np.random.default_rng(0).integers(0, 256, (info.batch, info.height, info.width, 3), np.uint8)
                samples[name] += runner.bench(images, seconds=_SECONDS, iterations=3).total.tolist()
    return {name: float(np.median(each)) for name, each in samples.items()}


def shape_within(milliseconds: float, size: int, told: OnTimed | None = None) -> TimedShape:
    """The largest student for pictures of this size that takes at most so long here."""
    shapes = _ladder(size)
    fits: TimedShape | None = None
    low, high = 0, len(shapes)  # those below `low` fit, those from `high` do not
    while low < high:
        middle = (low + high) // 2
        timed = timed_shape(shapes[middle])
        if told is not None:
            told(timed)
        if timed.milliseconds <= milliseconds:
            fits, low = timed, middle + 1
        elif middle == 0:
            raise UsageError(
                f"the smallest student takes {timed.milliseconds:.2f} ms here, more than {milliseconds:g} ms",
                where="--budget",
                fix="give more time, or pictures of a smaller size",
            )
        else:
            high = middle
    assert fits is not None
    return fits


def timed_shape(shape: StudentShape) -> TimedShape:
    """Time a student with random weights."""
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory(prefix="gms-rt-") as folder:
        torch.manual_seed(0)
        options = ExportOptions(shape.size, shape.size)
        graph = graph_from_student(Student(shape), Path(folder) / "student.onnx", source={}, options=options)
        found = graph_milliseconds({"student": graph})["student"]
    return TimedShape(shape, student_flop(shape) / 1e9, found)


def _ladder(size: int) -> list[StudentShape]:
    """The students of growing budgets, each once."""
    found: dict[StudentShape, None] = {}
    gflop = student_flop(_smallest(size)) / 1e9
    while gflop <= _LARGEST:
        found[student_shape(gflop, size)] = None
        gflop *= _STEP
    return list(found)


def _smallest(size: int) -> StudentShape:
    return StudentShape(size=size, width=16, blocks=(1, 1, 1))
