"""A runtime that has opened a model: what the server times, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gms_rt.arrays import U8


@dataclass(frozen=True)
class OpenedPeer:
    """An opened peer: `run` takes N×H×W×3 images and gives N×H×W probabilities (0-255)."""

    run: Callable[[U8], U8]
    height: int
    width: int
    runtime: str
    execution: str
    device: str  # "" for the processor
    threads: int
    parameters: int | None = None
    batch: int = 1
    notes: list[str] = field(default_factory=list)
