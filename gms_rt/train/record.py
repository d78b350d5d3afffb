"""What happened in each epoch, as `metrics.csv` and as TensorBoard events."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_bytes
from gms_rt.train.checkpoint import Row

COLUMNS = (
    "epoch", "step", "phase", "lr", "loss", "latent_loss", "dice_loss",
    "validation_dice", "validation_loss", "seconds", "images_per_second",
)  # fmt: skip


class Record:
    """Writes rows. After a resume the rows of epochs that are trained again are replaced."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._csv = folder / "metrics.csv"
        self._events = _writer(folder / "tensorboard", first_step)

    def write(self, rows: list[Row]) -> None:
        """Write all rows to the file and the newest as events."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_bytes(self._csv, text.getvalue().encode())
        if self._events is not None:
            for name, value in rows[-1].items():
                if isinstance(value, float):
                    self._events.add_scalar(name, value, rows[-1]["step"])
            self._events.flush()

    def close(self) -> None:
        """Finish the events file."""
        if self._events is not None:
            self._events.close()


def _writer(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the table is complete without the events
        return None
    return SummaryWriter(str(folder), purge_step=first_step)
