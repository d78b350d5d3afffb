"""What every runner is: one fused graph of one fixed shape, opened on one device.

The base class owns lifecycle and checks; a backend fills four hooks. Images go in as uint8 NHWC RGB at network
size, probabilities come out as uint8 NHW (0-255). Runners may be called from many threads.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

import numpy as np

from gms_rt.arrays import F64, U8
from gms_rt.errors import NativeError, UsageError

AnyRunner = TypeVar("AnyRunner", bound="Runner")


@dataclass(frozen=True)
class Timings:
    """One timed run: milliseconds per inference in order, and the wall time of the whole.

    The definitions are trtexec's: `total` = h2d + compute + d2h, `enqueue` is host time of the launch. On a CPU
    h2d and d2h are the copies into and out of the runtime's own tensors (0 where it works in place).
    """

    total: F64
    compute: F64
    h2d: F64
    d2h: F64
    enqueue: F64
    wall_seconds: float
    warmup_seconds: float
    batch: int = 1
    lanes: int = 1

    @property
    def images_per_second(self) -> float:
        """Throughput: images finished in the wall time from the first start to the last end."""
        return len(self.total) * self.batch / self.wall_seconds if self.wall_seconds > 0 else 0.0


@dataclass(frozen=True)
class RunnerInfo:
    """What a runner is and how it executes: for reports, `engine.json` and `doctor`."""

    backend: str  # "cpu" or "tensorrt" or "tensorrt-rtx"
    batch: int
    height: int
    width: int
    device: str
    execution: str  # the arithmetic the device uses: "f32", "bf16", "f16", "i8+f32", …
    lanes: int = 1
    threads: int = 0
    details: dict[str, str | int | float] = field(default_factory=dict)


def check_images(images: U8, height: int, width: int) -> None:
    """Raise `UsageError` if they are not uint8 N×height×width×3."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3):
        raise UsageError(
            f"images of type {images.dtype} and shape {images.shape} do not fit",
            fix=f"give uint8 (N, {height}, {width}, 3)",
        )


class Owner:
    """The process that opened something: a fork of it has the memory of an engine, but none of its threads.

    Calls there would wait for threads that do not exist, so the fork may only forget what it has.
    """

    def __init__(self) -> None:
        self._process = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is the process, and not a fork of it."""
        return os.getpid() == self._process

    def check(self) -> None:
        """Raise `NativeError` in a fork."""
        if not self.is_here:
            raise NativeError(
                "an engine does not survive a fork of its process",
                fix="load it in the new process, or start that with multiprocessing's 'spawn' method",
            )


def closed_error() -> UsageError:
    """For a call after `close`."""
    return UsageError("this engine is closed", fix="load it again")


class Runner(ABC):
    """An opened graph. Use it as a context manager."""

    def __init__(self, info: RunnerInfo) -> None:
        self.info = info
        self._closed = False
        self._owner = Owner()
        self._lifecycle = threading.Lock()

    def infer(self, images: U8) -> U8:
        """Segment N images of network size, any N: uint8 N×H×W×3 in, uint8 N×H×W out."""
        self._check_open()
        check_images(images, self.info.height, self.info.width)
        probabilities = np.empty(images.shape[:3], np.uint8)
        if len(images):
            self._infer(np.ascontiguousarray(images), probabilities)
        return probabilities

    def bench(self, images: U8, *, seconds: float = 3.0, iterations: int = 10, warmup: float = 0.2) -> Timings:
        """Time inference over `images` in turn, at least `seconds` and `iterations`, after `warmup` seconds."""
        self._check_open()
        check_images(images, self.info.height, self.info.width)
        if len(images) < 1 or seconds < 0 or iterations < 1 or warmup < 0:
            raise UsageError("a bench needs at least one image, one iteration and no negative time")
        return self._bench(np.ascontiguousarray(images), seconds, iterations, warmup)

    def close(self) -> None:
        """Release the device's resources; a second call does nothing, and a call in a fork only forgets them."""
        if not self._owner.is_here:
            self._closed = True
            return
        with self._lifecycle:
            if not self._closed:
                self._closed = True
                self._close()

    def __enter__(self: AnyRunner) -> AnyRunner:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise closed_error()
        self._owner.check()

    @abstractmethod
    def _infer(self, images: U8, probabilities: U8) -> None:
        """Fill `probabilities` from `images`; both are contiguous and of equal length."""

    @abstractmethod
    def _bench(self, images: U8, seconds: float, iterations: int, warmup: float) -> Timings: ...

    @abstractmethod
    def _close(self) -> None: ...
