"""How near the machine's limits an engine runs; the limits are measured in the same run, not read from a sheet.

The arithmetic ceiling is a large product on the engine's own runtime in the engine's own arithmetic, the memory
ceiling a large copy by all cores; both are the best of many, because a ceiling is what can be reached.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.bench.results import Ceiling, Measured, Roofline, RooflineRow
from gms_rt.engine.manifest import read_manifest
from gms_rt.errors import GmsError
from gms_rt.graph.count import work_from_file
from gms_rt.runtime.signal_stack import keep_signal_stack
from gms_rt.telemetry import quiet_module

_SIDE, _CHANNELS, _MAP = 1536, 256, 96
_COPY_BYTES = 256 << 20


def roofline(measured: Sequence[Measured], *, seconds: float = 0.5) -> Roofline:
    """The engines of a bench against the machine's ceilings; peers are left out."""
    engines = [m for m in measured if m.kind == "engine" and m.backend == "cpu"]
    if not engines:
        return Roofline(why="ceilings are measured on the processor only, and nothing was timed on it")
    kinds = dict.fromkeys(kind for m in engines for kind in m.execution.split("+"))
    threads = engines[0].threads
    try:
        products = {kind: matrix_ceiling(kind, threads, seconds) for kind in kinds}
        copy = copy_ceiling(threads, seconds)
        rows = tuple(_row(m, products, copy) for m in engines)
    except GmsError as error:
        return Roofline(why=error.line())
    return Roofline((*products.values(), copy), rows)


def _row(m: Measured, products: dict[str, Ceiling], copy: Ceiling) -> RooflineRow:
    folder = Path(m.source)
    manifest = read_manifest(folder)
    base = next((kind for kind in ("bf16", "f16") if kind in products and kind in m.execution.split("+")), "f32")
    work = work_from_file(folder / manifest.graph, float_bytes=4 if base == "f32" else 2, batch=m.batch)
    # Each kind of operation at its own ceiling, one after the other.
    arithmetic = work.flop * (1 - work.int8_share) / products[base].value
    name = products[base].name
    if work.int8_share and "i8" in products:
        arithmetic += work.flop * work.int8_share / products["i8"].value
        name = f"{work.int8_share * 100:.0f} % int8"
    arithmetic_ms, memory_ms = arithmetic / 1e6, work.bytes / copy.value / 1e6
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
    openvino = quiet_module("openvino")
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
        with keep_signal_stack():
            request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
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
    source, target = np.ones(_COPY_BYTES, np.uint8), np.zeros(_COPY_BYTES, np.uint8)
    pieces = list(zip(np.array_split(source, workers), np.array_split(target, workers), strict=True))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        best = _best(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pieces)), seconds)
    how = f"{_COPY_BYTES >> 20} MiB by {workers} threads, read and write counted, best of {seconds:g} s"
    return Ceiling("copy", 2 * _COPY_BYTES / best / 1e9, "GB/s", how)


def _best(call: Callable[[], object], seconds: float) -> float:
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
