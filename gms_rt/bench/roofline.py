"""How near the machine's limits an engine runs; the limits are measured in the same run, not read from a sheet.

The arithmetic ceiling is a large product on the engine's own runtime, for each arithmetic in which that runs some of
the engine; the memory ceiling a copy by all cores within their caches, because what a layer takes may still lie there
from the layer before. Both are the best of many: a ceiling is what can be reached, and a limit must not be exceeded.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.arrays import U8
from gms_rt.bench.executed import UNKNOWN, executed_flop, shortest_milliseconds
from gms_rt.bench.results import Ceiling, Measured, Roofline, RooflineRow
from gms_rt.engine.layers import session_from_engine
from gms_rt.engine.manifest import read_manifest
from gms_rt.errors import GmsError
from gms_rt.graph.count import Work, counted_graph, work_from_graph
from gms_rt.runtime.signal_stack import cpu_core
from gms_rt.telemetry import quiet_module

_SIDE, _CHANNELS, _MAP = 1536, 256, 96
_COPY_BYTES = 256 << 10  # of each thread: it stays in a core's own cache
_COPIES = 200
_KINDS = ("f32", "bf16", "f16", "i8")
_WORDS = {"i8": "int8", UNKNOWN: "in layers that do not say"}


def roofline(measured: Sequence[Measured], *, seconds: float = 0.5) -> Roofline:
    """The engines of a bench against the machine's ceilings; peers are left out."""
    engines = [m for m in measured if m.kind == "engine" and m.backend == "cpu"]
    if not engines:
        return Roofline(why="ceilings are measured on the processor only, and nothing was timed on it")
    threads = engines[0].threads
    try:
        subjects = [_subject(m) for m in engines]
        kinds = {kind for each in subjects for kind in each.executed if kind != UNKNOWN}
        kinds |= {kind for m in engines for kind in m.execution.split("+")}
        products = {kind: matrix_ceiling(kind, threads, seconds) for kind in _KINDS if kind in kinds}
        copy = copy_ceiling(threads, seconds)
        rows = tuple(_row(each, products, copy) for each in subjects)
    except GmsError as error:
        return Roofline(why=error.line())
    return Roofline((*products.values(), copy), rows)


@dataclass(frozen=True)
class _Subject:
    """An engine and the work of one inference."""

    measured: Measured
    base: str  # the arithmetic of its floating point
    work: Work
    executed: dict[str, float]  # the operations by the arithmetic in which the runtime reports that it runs them


def _subject(m: Measured) -> _Subject:
    folder = Path(m.source)
    manifest = read_manifest(folder)
    base = m.execution.rpartition("+")[2]
    report = session_from_engine(folder, manifest, execution=base).layer_report()
    graph = counted_graph(folder / manifest.graph, batch=m.batch)
    return _Subject(m, base, work_from_graph(graph, 4 if base == "f32" else 2), executed_flop(graph, report))


def _row(subject: _Subject, products: dict[str, Ceiling], copy: Ceiling) -> RooflineRow:
    m, work, executed = subject.measured, subject.work, subject.executed
    # Each kind of operation at its own ceiling, one after the other.
    arithmetic_ms = shortest_milliseconds(executed, {kind: each.value for kind, each in products.items()})
    memory_ms = work.bytes / copy.value / 1e6
    shares = {kind: 100 * part / work.flop for kind, part in executed.items() if work.flop}
    name = ", ".join(
        f"{share:.0f} % {_WORDS.get(kind, kind)}" for kind, share in sorted(shares.items()) if share >= 0.5
    )
    if len(shares) == 1 and subject.base in products:
        name = products[subject.base].name
    bound = max(arithmetic_ms, memory_ms)
    return RooflineRow(
        engine=m.name,
        gflop=work.flop / 1e9,
        megabytes=work.bytes / 1e6,
        gflops=work.flop / m.compute.median / 1e6 * m.lanes,
        ceiling_gflops=work.flop / arithmetic_ms / 1e6 if arithmetic_ms else 0.0,
        ceiling=name,
        bound_ms=bound,
        share=bound / m.compute.median * m.lanes,
        limited_by="arithmetic" if arithmetic_ms >= memory_ms else "memory",
    )


def matrix_ceiling(kind: str, threads: int = 0, seconds: float = 0.5) -> Ceiling:
    """GFLOP/s in OpenVINO of the faster of two plain products: square matrices, and a wide 3×3 convolution.

    `kind` is "f32", "bf16", "f16" or "i8" (float in and out of int8).
    """
    options = {"INFERENCE_PRECISION_HINT": "f32" if kind == "i8" else kind, "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        options["INFERENCE_NUM_THREADS"] = str(threads)
    rates = {}
    for name, shape, weight, flop in (
        (f"a {_SIDE}×{_SIDE} matrix product", (_SIDE, _SIDE), (_SIDE, _SIDE), 2 * _SIDE**3),
        (
            f"a 3×3 convolution of {_CHANNELS} channels",
            (1, _CHANNELS, _MAP, _MAP),
            (_CHANNELS, _CHANNELS, 3, 3),
            2 * 9 * _CHANNELS**2 * _MAP**2,
        ),
    ):
        model = _product(shape, weight, quantised=kind == "i8")
        request = cpu_core().compile_model(model, "CPU", options).create_infer_request()
        rates[name] = flop / _best(request.infer, seconds / 2) / 1e9
    best = max(rates, key=rates.__getitem__)
    return Ceiling(f"product, {kind}", rates[best], "GFLOP/s", f"{best} in OpenVINO, best of {seconds / 2:g} s")


def _product(shape: tuple[int, ...], weight: tuple[int, ...], *, quantised: bool) -> Any:
    openvino = quiet_module("openvino")
    ops = openvino.opset13
    values = np.random.default_rng(0).uniform(-1, 1, weight).astype(np.float32)
    entry = ops.parameter(list(shape), np.float32)
    left, right = entry, ops.constant(values)
    if quantised:
        # Signed and symmetric with 256 and 255 levels: what a quantised engine's own layers have.
        one, top = np.float32(1), np.float32(127 / 128)
        left = ops.fake_quantize(left, -one, top, -one, top, 256)
        right = ops.fake_quantize(right, -one, one, -one, one, 255)
    if len(shape) == 2:
        out = ops.matmul(left, right, False, True)
    else:
        out = ops.convolution(left, right, [1, 1], [1, 1], [1, 1], [1, 1])
    return openvino.Model([out], [entry])


def copy_ceiling(threads: int = 0, seconds: float = 0.5) -> Ceiling:
    """GB/s of a copy by all threads, bytes read and bytes written both counted."""
    workers = threads or 1
    size = _COPY_BYTES * workers
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    pieces = list(zip(np.array_split(source, workers), np.array_split(target, workers), strict=True))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        best = _best(lambda: list(pool.map(_copy_often, pieces)), seconds) / _COPIES
    how = f"{_COPY_BYTES >> 10} KiB by each of {workers} threads, read and write counted, best of {seconds:g} s"
    return Ceiling("copy", 2 * size / best / 1e9, "GB/s", how)


def _copy_often(pair: tuple[U8, U8]) -> None:
    """So often that handing the work to a thread is no part of it."""
    for _ in range(_COPIES):
        np.copyto(pair[1], pair[0])


def _best(call: Callable[[], object], seconds: float) -> float:
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
