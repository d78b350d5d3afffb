"""What takes turns in a bench: engines and peers, told apart by short names, and the pictures that they all get."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt import scan
from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_file
from gms_rt.bench.results import ColdStart
from gms_rt.engine.golden import Golden, read_golden
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import GOLDEN, MANIFEST
from gms_rt.errors import UsageError
from gms_rt.peers.client import Peer
from gms_rt.runtime.base import RunnerInfo, Timings


@dataclass(frozen=True)
class Subject:
    """An opened engine or peer; whoever opened it closes it."""

    label: str  # unique in one bench
    kind: str  # "engine" or "peer"
    source: str  # the folder or file
    precision: str
    identity: str  # SHA-256 of engine.json or of the peer's model file
    info: RunnerInfo
    cold: ColdStart
    bench: Callable[..., Timings]  # one round in its own timing loop, as `Runner.bench`


def subject_from_engine(engine: Engine, label: str, cold: ColdStart) -> Subject:
    """An opened engine that takes turns."""
    identity = sha256_file(engine.folder / MANIFEST)
    runner, precision = engine.runner, engine.manifest.precision
    return Subject(label, "engine", str(engine.folder), precision, identity, runner.info, cold, runner.bench)


def subject_from_peer(peer: Peer) -> Subject:
    """An opened peer that takes turns."""
    why = "load time is without starting Python"
    cold = ColdStart(peer.load_ms, peer.first_ms, peer.peak_bytes, None, why=why)
    return Subject(peer.label, "peer", peer.source, peer.precision, peer.identity, peer.info, cold, peer.bench)


def labels(paths: Sequence[str]) -> list[str]:
    """Short distinct names of folders: the last part, or the whole path where two would be equal.

    >>> labels(["engines/a", "engines/b", "old/b"])
    ['a', 'engines/b', 'old/b']
    """
    if len(set(paths)) != len(paths):
        raise UsageError("an engine is named twice", where="bench", fix="name each engine once")
    short = [Path(p).resolve().name if p in (".", "..") else Path(p).name for p in paths]
    return [s if short.count(s) == 1 else p for s, p in zip(short, paths, strict=True)]


def first_golden(engines: Sequence[Path]) -> Golden | None:
    """The reference of the first engine that has one."""
    found = next((folder / GOLDEN for folder in engines if (folder / GOLDEN).is_file()), None)
    return None if found is None else read_golden(found)


def default_images(engines: Sequence[Path]) -> U8:
    """The first reference pictures found in the engines' folders, else seeded noise."""
    golden = first_golden(engines)
    return golden.images if golden else np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)


def fit_images(images: U8, height: int, width: int) -> U8:
    """The same pictures at another size."""
    return np.stack([scan.resize_image(image, height, width) for image in images])
