"""Timing several engines and peers fairly: in short rounds that take turns, so that drift hits all alike.

`measure` is the whole run. The timing loop itself is the runner's (the C library's); this file opens, takes turns,
adds up, and says what makes the figures doubtful.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gms_rt.arrays import U8
from gms_rt.bench import device_state
from gms_rt.bench.cold_start import cold_start
from gms_rt.bench.energy import IDLE_SECONDS, EnergyAccount
from gms_rt.bench.meters import open_meter
from gms_rt.bench.percentiles import curve_from_samples, latency_from_samples
from gms_rt.bench.results import BenchResult, ColdStart, Latency, Measured
from gms_rt.bench.subjects import (
    Subject,
    default_images,
    fit_images,
    labels,
    subject_from_engine,
    subject_from_peer,
)
from gms_rt.engine.loaded import Engine
from gms_rt.engine.select import LoadOptions, load
from gms_rt.errors import GmsError, UsageError
from gms_rt.peers.client import Peer
from gms_rt.runtime.base import RunnerInfo, Timings
from gms_rt.runtime.device import probe
from gms_rt.runtime.options import GraphUse
from gms_rt.statistics import bootstrap, median

SECONDS, WARMUP, ROUNDS = 3.0, 0.2, 7
COV_LIMIT = 2.5  # percent, trtexec's
_MIN_SAMPLES, _P99_SAMPLES = 10, 100
_SETTINGS = {"batch_lanes": "images side by side in a long batch"}
_UNTOLD = ("open_ms", "notice")  # elsewhere in the report: cold start, warnings

Opener = Callable[..., Engine]
Say = Callable[[str], None]


@dataclass(frozen=True)
class TimingOptions:
    """How engines and peers are timed."""

    seconds: float = SECONDS  # the timed total of each
    warmup: float = WARMUP  # seconds that run untimed before each round
    rounds: int = ROUNDS  # the number of rounds that take turns and make up the total
    device: str | None = None  # "cpu" or "cuda[:N]"; by default where each engine fits
    threads: int = 0  # CPU threads (0: the runtime's choice)
    lanes: int = 1  # images in flight
    cold: bool = True  # whether each engine is also opened in a fresh process
    trust_plans: bool = False  # whether plans are loaded whoever built them
    trust_device: bool = False  # whether an engine certified on another device is timed without looking at its masks
    cuda_graph: GraphUse = "auto"  # whether plans are replayed as CUDA graphs

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0 and self.rounds >= 1 and self.warmup >= 0):
            raise UsageError(
                "a bench needs positive seconds, at least one round and no negative warm-up", where="bench"
            )

    @property
    def share(self) -> float:
        """Timed seconds of one round."""
        return self.seconds / self.rounds


@dataclass
class _Tally:
    """What the rounds of an engine or peer delivered so far."""

    account: EnergyAccount
    rounds: list[Timings] = field(default_factory=list)


def measure(
    engines: Sequence[Path],
    options: TimingOptions | None = None,
    *,
    images: U8 | None = None,
    peers: Sequence[Peer] = (),
    opener: Opener = load,
    progress: Say | None = None,
) -> BenchResult:
    """Time engines and peers in rounds that take turns.

    `images` are uint8 N×H×W×3 of any size; by default the first engine's reference pictures, else noise. Peers are
    already open and are closed by whoever opened them.
    """
    if not engines and not peers:
        raise UsageError("nothing to measure", where="bench", fix="name an engine folder")
    how = options or TimingOptions()
    say = progress or (lambda _: None)
    with contextlib.ExitStack() as stack:
        subjects: list[Subject] = []
        notices: list[str] = []  # a plan that was not taken is told of in the report, not on the screen alone
        for folder, label in zip(engines, labels([str(e) for e in engines]), strict=True):
            say(f"opening {label}")
            cold = ColdStart(None, None, None, None, why="not asked for")
            if how.cold:
                cold = cold_start(folder, device=how.device, threads=how.threads, trust_plans=how.trust_plans)
            opened = LoadOptions(
                how.device,
                how.threads,
                how.lanes,
                trust_plans=how.trust_plans,
                trust_device=how.trust_device,
                cuda_graph=how.cuda_graph,
            )
            engine = stack.enter_context(opener(folder, **opened.keywords()))
            notices += [engine.notice] if engine.notice else []
            subjects.append(subject_from_engine(engine, label, cold))
        subjects += map(subject_from_peer, peers)
        result = _timed(subjects, images if images is not None else default_images(engines), how, say)
        return replace(result, warnings=(*notices, *result.warnings))


def _timed(subjects: list[Subject], pictures: U8, options: TimingOptions, say: Say) -> BenchResult:
    fitted = {s.label: fit_images(pictures, s.info.height, s.info.width) for s in subjects}
    gpu = gpu_of_runners([subject.info for subject in subjects])
    power, why = open_meter(gpu=gpu)
    tallies = {s.label: _Tally(EnergyAccount(power, why)) for s in subjects}
    idle = EnergyAccount(power, why)
    lost: dict[str, str] = {}
    try:
        if power is not None:
            say("idle draw")
            with idle.span():
                time.sleep(IDLE_SECONDS)
        before = device_state.snapshot(gpu=gpu)
        for turn in range(options.rounds):
            # Each round begins with another one, so that none always follows the same neighbour.
            start = turn % len(subjects)
            for subject in [s for s in subjects[start:] + subjects[:start] if s.label not in lost]:
                say(f"round {turn + 1} of {options.rounds}: {subject.label}")
                tally = tallies[subject.label]
                try:
                    tally.rounds.append(_round(subject, tally, fitted[subject.label], options))
                except GmsError as error:
                    if subject.kind != "peer":
                        raise
                    # The engines' own figures must not be lost with somebody else's program.
                    lost[subject.label] = f"{subject.label} was left out in round {turn + 1}: {error.what}"
        after = device_state.snapshot(gpu=gpu)
    finally:
        if power is not None:
            power.close()
    load_ = device_state.load_between(before, after)
    return BenchResult(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        device=probe().name,
        state=device_state.readings(before, after),
        load=load_,
        measured=tuple(_measured(s, tallies[s.label], idle) for s in subjects if s.label not in lost),
        round_count=options.rounds,
        round_seconds=options.share,
        images=len(pictures),
        warnings=(*lost.values(), *device_state.warnings(before, after, load_)),
    )


def _round(subject: Subject, tally: _Tally, images: U8, options: TimingOptions) -> Timings:
    seconds, iterations = options.share, math.ceil(_MIN_SAMPLES / options.rounds)
    if tally.account.meter is None:
        return subject.bench(images, seconds=seconds, iterations=iterations, warmup=options.warmup)
    # The meter must not count the warm-up, so that comes first and by itself.
    if options.warmup > 0:
        subject.bench(images, seconds=options.warmup, iterations=1, warmup=0.0)
    with tally.account.span():
        return subject.bench(images, seconds=seconds, iterations=iterations, warmup=0.0)


def _measured(subject: Subject, tally: _Tally, idle: EnergyAccount) -> Measured:
    parts = {
        part: np.concatenate([getattr(t, part) for t in tally.rounds])
        for part in ("total", "compute", "h2d", "d2h", "enqueue")
    }
    info = subject.info
    total = latency_from_samples(parts["total"])
    medians = [float(np.median(t.total)) for t in tally.rounds]
    interval = bootstrap(medians, median)
    timed = sum(t.wall_seconds for t in tally.rounds)
    count = sum(len(t.total) * t.batch for t in tally.rounds)
    return Measured(
        name=subject.label,
        kind=subject.kind,
        source=subject.source,
        precision=subject.precision,
        execution=info.execution,
        backend=info.backend,
        device=info.device,
        batch=info.batch,
        lanes=info.lanes,
        threads=info.threads,
        size=(info.height, info.width),
        identity=subject.identity,
        total=total,
        compute=latency_from_samples(parts["compute"]),
        h2d=latency_from_samples(parts["h2d"]),
        d2h=latency_from_samples(parts["d2h"]),
        enqueue=latency_from_samples(parts["enqueue"]),
        throughput=count / timed if timed > 0 else 0.0,
        seconds=timed,
        warmup_seconds=sum(t.warmup_seconds for t in tally.rounds),
        rounds=tuple(medians),
        low=interval.low,
        high=interval.high,
        curve=curve_from_samples(parts["total"]),
        cold=subject.cold,
        energy=tally.account.energy(count, idle),
        settings=tuple(
            f"{_SETTINGS.get(key, key)}: {value}" for key, value in info.details.items() if key not in _UNTOLD
        ),
        warnings=tuple(_doubts(total, timed)),
    )


def _doubts(total: Latency, timed: float) -> list[str]:
    lines = []
    if total.cov > COV_LIMIT:
        lines.append(f"unsteady: CoV {total.cov:.1f} % (limit {COV_LIMIT} %)")
    # A round ends after the inference that crosses the limit, so only a clear shortfall means a short run.
    if timed < SECONDS * 0.95 or total.count < _MIN_SAMPLES:
        lines.append(
            f"too short: {timed:.1f} s, {total.count} samples (at least {SECONDS:.0f} s, {_MIN_SAMPLES} samples)"
        )
    elif total.count < _P99_SAMPLES:
        lines.append(f"p99 is close to the maximum: {total.count} samples are fewer than {_P99_SAMPLES}")
    return lines


def gpu_of_runners(runners: Sequence[RunnerInfo]) -> int | None:
    """The number of the GPU that the first TensorRT runner is on; None where all run on the processor."""
    found = (info.details.get("gpu", 0) for info in runners if info.backend.startswith("tensorrt"))
    return next(map(int, found), None)
