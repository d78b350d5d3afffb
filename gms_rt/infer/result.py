"""All results of one source, as the writers of whole files (DICOM SEG, reports, NIfTI) take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gms_rt.arrays import U8
from gms_rt.classes import DEFAULT_CLASSES, SegmentClass


@dataclass(frozen=True)
class Maker:
    """Who made a result: the engine's name, the hash of its manifest, the program's version, the certificate."""

    name: str
    fingerprint: str
    version: str
    certificate: str | None = None  # SHA-256 of the engine's parity.json
    options: dict[str, Any] = field(default_factory=dict)  # of the run, as run.json has them


@dataclass(frozen=True)
class SourceResult:
    """One source (a file or a DICOM series) with the masks of all its frames."""

    paths: Sequence[Path]  # the file, or one file per frame of a series in the order of the frames
    digest: str  # SHA-256 of the source's content
    labels: U8  # frames × rows × columns: 0 is background, k is the k-th class
    rows: Sequence[dict[str, Any]]  # of cases.csv, one per frame
    maker: Maker
    key: str  # fingerprint of all that made the result: engine, device, options
    probabilities: U8 | None = None  # frames × rows × columns (of the first class), 0-255, where asked for
    classes: Sequence[SegmentClass] = DEFAULT_CLASSES
    headers: Sequence[Any] = ()  # DICOM headers: one, or one per frame of a series
