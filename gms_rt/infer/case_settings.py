"""What all cases of a run share, and a frame whose files are written and wait for their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gms_rt.arrays import U8
from gms_rt.classes import DEFAULT_CLASSES, SegmentClass
from gms_rt.infer.deidentify import Deidentifier
from gms_rt.infer.file_group import PartFile
from gms_rt.infer.measure import CaseRow
from gms_rt.infer.options import InferOptions
from gms_rt.infer.outputs import OutFolder
from gms_rt.infer.predict import Predictor
from gms_rt.infer.result import Maker

if TYPE_CHECKING:
    from gms_rt.infer.case import ScanCase

# Times the network's size: what is averaged down from there is 0.2 levels of 255 from the whole image in the mean, and
# 18 at most, beside sharp lines (benchmarks/reduced_jpeg.py).
REDUCED_SIDE = 3


@dataclass(frozen=True)
class CaseSettings:
    """What every case shares: where results go and how they are made."""

    out: OutFolder
    predictor: Predictor
    maker: Maker
    key: str  # fingerprint of all that makes the results: engine, device, options
    classes: Sequence[SegmentClass] = DEFAULT_CLASSES
    on_frame: Callable[[ScanCase, int], None] | None = None  # called with the number of frames that are written
    deidentifier: Deidentifier | None = None  # replaces what identifies a person

    @property
    def options(self) -> InferOptions:
        """How masks are made and what is written."""
        return self.predictor.options

    @property
    def least_side(self) -> int:
        """The shortest side that a JPEG may be decoded to; 0 where all its pixels are wanted."""
        return REDUCED_SIDE * max(self.predictor.height, self.predictor.width) if self.options.reduced_jpeg else 0

    def digest(self, content: str) -> str:
        """The hash that stands for a source's content in results and in the journal."""
        return self.deidentifier.digest(content) if self.deidentifier else content


@dataclass(frozen=True)
class WrittenFrame:
    """A frame whose files are written and wait for their places; what a source's own files need of it."""

    number: int
    row: CaseRow
    parts: dict[str, PartFile] = field(default_factory=dict)  # by the names they get in the output folder
    mask: U8 | None = None
    probabilities: U8 | None = None
    shown: U8 | None = None
    time: float | None = None
