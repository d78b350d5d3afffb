"""How a graph is exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gms_rt.errors import UsageError

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


def check_options(options: ExportOptions) -> None:
    """Refuse a batch or an opset that no graph can have."""
    batch = options.batch
    if not 1 <= batch[0] <= batch[1]:
        raise UsageError(f"{batch[0]}-{batch[1]} is not a batch range", where="--batch", fix="give 1 or 1-8")
    if options.opset not in OPSETS:
        raise UsageError(f"{options.opset} is not supported", where="--opset", fix="use 18 (widest reach) or 21")
