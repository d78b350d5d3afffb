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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from gms_rt import scan
from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_file
from gms_rt.bench import device_state
from gms_rt.bench.cold_start import cold_start
from gms_rt.bench.energy import IDLE_SECONDS, Account, meter
from gms_rt.bench.percentiles import curve_of, latency_of
from gms_rt.bench.results import BenchResult, ColdStart, Latency, Measured
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import MANIFEST
from gms_rt.engine.select import load
from gms_rt.errors import GmsError, UsageError
from gms_rt.runtime.base import RunnerInfo, Timings
from gms_rt.runtime.device import probe
from gms_rt.statistics import bootstrap, median

SECONDS, WARMUP, ROUNDS = 3.0, 0.2, 7
COV_LIMIT = 2.5  # percent, trtexec's
_MIN_SAMPLES, _P99_SAMPLES = 10, 100
_GOLDEN = "golden.npz"
_SETTINGS = {"batch_lanes": "images side by side in a long batch"}

Opener = Callable[..., Engine]


class Subject(Protocol):
    """Anything that takes turns: an engine, or a peer in its own process."""

    label: str
    kind: str
    source: str
    precision: str
    identity: str
    info: RunnerInfo
    cold: ColdStart

    def bench(self, images: U8, *, seconds: float, iterations: int, warmup: float) -> Timings:
        """One round."""

    def close(self) -> None:
        """Let it go."""


class EngineSubject:
    """An engine folder as a subject."""

    kind = "engine"

    def __init__(self, folder: Path, engine: Engine, label: str, cold: ColdStart) -> None:
        self.engine, self.label, self.cold = engine, label, cold
        self.source = str(folder)
        self.precision = engine.manifest.precision
        self.identity = sha256_file(folder / MANIFEST)
        self.info = engine.runner.info

    def bench(self, images: U8, *, seconds: float, iterations: int, warmup: float) -> Timings:
        """One round in the runner's own timing loop."""
        return self.engine.runner.bench(images, seconds=seconds, iterations=iterations, warmup=warmup)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


@dataclass
class _Tally:
    """What a subject's rounds delivered so far."""

    account: Account
    rounds: list[Timings] = field(default_factory=list)


def measure(
    engines: Sequence[Path],
    *,
    seconds: float = SECONDS,
    warmup: float = WARMUP,
    device: str | None = None,
    rounds: int = ROUNDS,
    threads: int = 0,
    lanes: int = 1,
    images: U8 | None = None,
    peers: Sequence[Subject] = (),
    cold: bool = True,
    opener: Opener = load,
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """Time engines and peers in interleaved rounds; `seconds` is the timed total of each.

    `images` are uint8 N×H×W×3 of any size; by default the first engine's golden pictures, else noise. Peers are
    already open and are closed by whoever opened them.
    """
    if not engines and not peers:
        raise UsageError("nothing to measure", where="bench", fix="name an engine folder")
    if not (math.isfinite(seconds) and seconds > 0 and rounds >= 1 and warmup >= 0):
        raise UsageError("a bench needs positive seconds, at least one round and no negative warm-up", where="bench")
    say = progress or (lambda _: None)
    with contextlib.ExitStack() as stack:
        subjects: list[Subject] = []
        for folder, label in zip(engines, labels([str(e) for e in engines]), strict=True):
            say(f"opening {label}")
            start = cold_start(folder, device=device, threads=threads) if cold else ColdStart(
                None, None, None, None, why="not asked for"
            )  # fmt: skip
            subject = EngineSubject(folder, opener(folder, device=device, threads=threads, lanes=lanes), label, start)
            stack.callback(subject.close)
            subjects.append(subject)
        subjects += peers
        pictures = images if images is not None else default_images(engines)
        return _timed(subjects, pictures, seconds, warmup, rounds, _gpu_of(subjects), say)


def _timed(
    subjects: list[Subject],
    pictures: U8,
    seconds: float,
    warmup: float,
    rounds: int,
    gpu: int | None,
    say: Callable[[str], None],
) -> BenchResult:
    fitted = {s.label: fit_images(pictures, s.info.height, s.info.width) for s in subjects}
    power, why = meter(gpu=gpu)
    tallies = {s.label: _Tally(Account(power, why)) for s in subjects}
    idle = Account(power, why)
    lost: dict[str, str] = {}
    share = seconds / rounds
    least = math.ceil(_MIN_SAMPLES / rounds)
    try:
        if power is not None:
            say("idle draw")
            with idle.span():
                time.sleep(IDLE_SECONDS)
        before = device_state.snapshot(gpu=gpu)
        for turn in range(rounds):
            # Each round begins with another subject, so that none always follows the same neighbour.
            start = turn % len(subjects)
            for subject in [s for s in subjects[start:] + subjects[:start] if s.label not in lost]:
                say(f"round {turn + 1} of {rounds}: {subject.label}")
                tally = tallies[subject.label]
                try:
                    tally.rounds.append(_round(subject, tally, fitted[subject.label], share, least, warmup))
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
        round_count=rounds,
        round_seconds=share,
        images=len(pictures),
        warnings=(*lost.values(), *device_state.warnings(before, after, load_)),
    )


def _round(subject: Subject, tally: _Tally, images: U8, seconds: float, iterations: int, warmup: float) -> Timings:
    if tally.account.meter is None:
        return subject.bench(images, seconds=seconds, iterations=iterations, warmup=warmup)
    # The meter must not count the warm-up, so that comes first and by itself.
    if warmup > 0:
        subject.bench(images, seconds=warmup, iterations=1, warmup=0.0)
    with tally.account.span():
        return subject.bench(images, seconds=seconds, iterations=iterations, warmup=0.0)


def _measured(subject: Subject, tally: _Tally, idle: Account) -> Measured:
    parts = {
        part: np.concatenate([getattr(t, part) for t in tally.rounds])
        for part in ("total", "compute", "h2d", "d2h", "enqueue")
    }
    info = subject.info
    total = latency_of(parts["total"])
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
        compute=latency_of(parts["compute"]),
        h2d=latency_of(parts["h2d"]),
        d2h=latency_of(parts["d2h"]),
        enqueue=latency_of(parts["enqueue"]),
        throughput=count / timed if timed > 0 else 0.0,
        seconds=timed,
        warmup_seconds=sum(t.warmup_seconds for t in tally.rounds),
        rounds=tuple(medians),
        low=interval.low,
        high=interval.high,
        curve=curve_of(parts["total"]),
        cold=subject.cold,
        energy=tally.account.energy(count, idle),
        settings=tuple(
            f"{_SETTINGS.get(key, key)}: {value}" for key, value in info.details.items() if key != "open_ms"
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


def labels(paths: Sequence[str]) -> list[str]:
    """Short distinct names of folders: the last part, or the whole path where two would be equal.

    >>> labels(["engines/a", "engines/b", "old/b"])
    ['a', 'engines/b', 'old/b']
    """
    if len(set(paths)) != len(paths):
        raise UsageError("an engine is named twice", where="bench", fix="name each engine once")
    short = [Path(p).resolve().name if p in (".", "..") else Path(p).name for p in paths]
    return [s if short.count(s) == 1 else p for s, p in zip(short, paths, strict=True)]


def default_images(engines: Sequence[Path]) -> U8:
    """The first golden pictures found beside the engines, else seeded noise."""
    for folder in engines:
        path = folder / _GOLDEN
        if path.is_file():
            with np.load(path, allow_pickle=False) as archive:
                return np.asarray(archive["images"], np.uint8)
    return np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)


def fit_images(images: U8, height: int, width: int) -> U8:
    """The same pictures at a subject's size."""
    return np.stack([scan.resize_image(image, height, width) for image in images])


def _gpu_of(subjects: Sequence[Subject]) -> int | None:
    for subject in subjects:
        if subject.info.backend.startswith("tensorrt"):
            return int(subject.info.details.get("gpu", 0))
    return None
