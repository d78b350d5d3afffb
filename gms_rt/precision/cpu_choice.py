"""In which arithmetic this CPU shall run a typed graph.

An FP16 graph runs in f16 where OpenVINO has it, really uses it for this graph, and is faster with it; else in f32,
whose masks are closer to the FP32 reference. In the same way what an INT8 graph leaves to floating point runs in bf16.
Everything else follows from the precision alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from gms_rt.arrays import U8
from gms_rt.errors import GmsError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import computing_layers, layers_in
from gms_rt.graph.run import Session
from gms_rt.runtime.arithmetic import cpu_arithmetic, cpu_execution

# Arithmetic that is not faster by this much is not worth its rounding.
NEEDED_GAIN = 1.05
_ROUNDS, _SECONDS = 5, 10.0  # of three timed runs of each; fewer where they take longer than that altogether


@dataclass(frozen=True)
class CpuChoice:
    """An arithmetic, and what a user should know about it."""

    execution: str = "f32"  # "f32", "bf16" or "f16"
    note: str = ""  # why an FP16 graph does not run in f16, or in what an INT8 graph runs
    fallback: str = ""  # "f32" where the gate holds in that too, for a CPU without this arithmetic
    milliseconds: dict[str, float] = field(default_factory=dict)  # one inference, by arithmetic, where it was measured


def choose_execution(typed: Graph, precision: str) -> CpuChoice:
    """The arithmetic for a typed graph on this CPU."""
    asked = cpu_execution(precision)
    if precision == "int8":
        return _int8_remainder(typed)
    if precision != "fp16":
        return CpuChoice(asked)
    if asked != "f16":
        return _stored(typed, "only its weights are stored as FP16")
    try:
        half = Session(typed, execution="f16")
    except GmsError as error:
        return CpuChoice(note=in_f32("fp16", f"OpenVINO reports FP16 on this CPU, but: {error.what}"))
    if not computing_layers(half.executed_layers()).get("f16"):
        return CpuChoice(
            note=in_f32("fp16", "OpenVINO reports FP16 on this CPU, but computes no layer of this graph in it")
        )
    full_ms, half_ms = latencies(Session(typed), half, _noise(typed))
    milliseconds = {"f32": round(full_ms, 3), "f16": round(half_ms, 3)}
    if half_ms * NEEDED_GAIN > full_ms:
        why = f"f16 is not faster on this CPU ({half_ms:.1f} ms against {full_ms:.1f} ms)"
        return _stored(typed, f"{why}; only its weights are stored as FP16", milliseconds)
    return CpuChoice("f16", milliseconds=milliseconds)


def _stored(typed: Graph, why: str, milliseconds: dict[str, float] | None = None) -> CpuChoice:
    """An FP16 graph that runs in f32; where this CPU is faster in BF16, that is said."""
    known, note = milliseconds or {}, in_f32("fp16", why)
    if not cpu_arithmetic().bf16:
        return CpuChoice(note=note, milliseconds=known)
    try:
        full_ms, short_ms = latencies(Session(typed), Session(typed, execution="bf16"), _noise(typed))
    except GmsError:
        return CpuChoice(note=note, milliseconds=known)
    if short_ms * NEEDED_GAIN <= full_ms:
        note += f"; --precision bf16 would be faster here: {short_ms:.1f} ms against {full_ms:.1f} ms"
    return CpuChoice(note=note, milliseconds=known)


def _int8_remainder(typed: Graph) -> CpuChoice:
    if not cpu_arithmetic().bf16:
        return CpuChoice()
    try:
        short = Session(typed, execution="bf16")
    except GmsError as error:
        return CpuChoice(note=in_f32("int8", f"OpenVINO reports BF16 on this CPU, but: {error.what}"))
    if not layers_in(short.executed_layers(), "bf16"):
        return CpuChoice(
            note=in_f32("int8", "OpenVINO reports BF16 on this CPU, but runs no layer of this graph in it")
        )
    full_ms, short_ms = latencies(Session(typed), short, _noise(typed))
    milliseconds = {"f32": round(full_ms, 3), "bf16": round(short_ms, 3)}
    if short_ms * NEEDED_GAIN > full_ms:
        return CpuChoice(milliseconds=milliseconds)
    note = f"what is not int8 runs in bf16: {short_ms:.1f} ms, in f32 it was {full_ms:.1f} ms"
    return CpuChoice("bf16", note, milliseconds=milliseconds)


def _noise(typed: Graph) -> U8:
    batch, height, width = typed.size
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)


def in_f32(precision: str, why: str) -> str:
    """The note about an FP16 graph that is not computed in f16, or an INT8 graph whose rest is not in bf16."""
    what = "the CPU runs the FP16 graph in f32" if precision == "fp16" else "what is not int8 runs in f32"
    return f"{what}; {why}"


def latencies(first: Session, second: Session, image: U8) -> tuple[float, float]:
    """Median milliseconds of two sessions for one batch, run in turn so that a busy machine disturbs both alike."""
    sessions = (first, second)
    samples: list[list[float]] = []
    began = time.perf_counter()
    while len(samples) < _ROUNDS and (not samples or time.perf_counter() - began < _SECONDS):
        samples.append([session.milliseconds(image, runs=3, warmup=1 if samples else 3) for session in sessions])
    a, b = np.median(np.array(samples), axis=0)
    return float(a), float(b)
