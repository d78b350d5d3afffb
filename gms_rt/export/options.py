"""How a graph is exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gms_rt.errors import UsageError
from gms_rt.scan.flips import FLIPS, check_views

OPSETS = (18, 21)


@dataclass(frozen=True)
class ExportOptions:
    """How a graph is exported."""

    height: int = 224  # of the input, in pixels: a multiple of the tokenizer's stride, for a student of 32
    width: int = 224
    batch: tuple[int, int] = (1, 1)  # the smallest and the largest number of images at once
    opset: int = 18  # one of OPSETS
    # Pictures whose masks are stored with a run's graph: a folder, or a text file of paths; "phantoms" stores drawn
    # ones only. None: some validation pictures of the run's own data, phantoms where there are none.
    reference: Path | None = None
    flips: str | None = None  # what the graph averages over by itself: a name of FLIPS

    @property
    def network_batch(self) -> tuple[int, int]:
        """How many pictures at once go through the network: every view of a picture does."""
        views = len(FLIPS[self.flips]) if self.flips else 1
        return self.batch[0] * views, self.batch[1] * views

    @property
    def example_batch(self) -> int:
        """How many the exporter is shown: a range is not taken for a range where it sees a single one."""
        low, high = self.network_batch
        return max(low, min(2, high))


def check_options(options: ExportOptions) -> None:
    """Refuse a batch or an opset that no graph can have."""
    batch = options.batch
    if not 1 <= batch[0] <= batch[1]:
        raise UsageError(f"{batch[0]}-{batch[1]} is not a batch range", where="--batch", fix="give 1 or 1-8")
    if options.opset not in OPSETS:
        raise UsageError(f"{options.opset} is not supported", where="--opset", fix="use 18 (widest reach) or 21")
    if options.flips is not None:
        check_views(options.flips, options.height, options.width)
