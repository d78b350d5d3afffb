"""Whether a small engine is faster on fewer threads than it was timed with: a hint for the report.

One image gets all cores unless a number is asked for. A network of a millisecond may lose more by waiting for many
threads than they bring, and peers are timed with the number that suits them; so fast engines are tried with one thread
and with half of the cores, in turn with what they were timed with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.bench.latency import Opener, TimingOptions
from gms_rt.bench.results import Measured
from gms_rt.bench.subjects import fit_images
from gms_rt.engine.select import load
from gms_rt.engine.turns import latencies_in_turns
from gms_rt.runtime.device import probe

_FAST_MS = 10.0  # slower ones have work for all cores
_ROUNDS, _SECONDS = 3, 0.15  # of each number, in turn
_CLEARLY = 0.9  # of the time with all


def with_thread_hints(
    measured: Sequence[Measured], images: U8, options: TimingOptions, *, opener: Opener = load
) -> tuple[Measured, ...]:
    """The same results; an engine that is clearly faster on fewer threads says so, unless a number was asked for."""
    if options.threads or options.lanes != 1:
        return tuple(measured)
    hints = [
        _hint(each, images, options, opener)
        if each.kind == "engine" and each.backend == "cpu" and each.total.median <= _FAST_MS
        else ""
        for each in measured
    ]
    return tuple(
        replace(each, warnings=(*each.warnings, hint)) if hint else each
        for each, hint in zip(measured, hints, strict=True)
    )


def _hint(engine: Measured, images: U8, options: TimingOptions, opener: Opener) -> str:
    counts = sorted({1, probe().cpu.cores // 2} - {0, engine.threads})
    if not counts:
        return ""
    fitted = fit_images(images, *engine.size)
    with contextlib.ExitStack() as stack:
        runners = {
            count: stack.enter_context(
                opener(
                    Path(engine.source),
                    device=options.device,
                    threads=count,
                    trust_plans=options.trust_plans,
                    trust_device=True,  # `measure` has loaded it before, and looked at its masks
                )
            ).runner
            for count in (0, *counts)
        }
        pairs = {count: (runner, fitted) for count, runner in runners.items()}
        times = latencies_in_turns(pairs, rounds=_ROUNDS, seconds=_SECONDS)
    medians = {count: float(np.median(found)) for count, found in times.items()}
    best = min(counts, key=lambda count: medians[count])
    if medians[best] > _CLEARLY * medians[0]:
        return ""
    said = "1 thread" if best == 1 else f"{best} threads"
    times_told = f"{medians[best]:.2f} ms with {said}, {medians[0]:.2f} ms as timed here"
    return f"faster on fewer threads: {times_told}; for one image at a time give --threads {best}"
