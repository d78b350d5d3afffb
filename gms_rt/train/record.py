"""What happened in each epoch, as `metrics.csv` and as TensorBoard events.

Both are written from the rows of the training's state: after a resume they hold each epoch once. Events are written
at once, not by TensorBoard's background thread, which does not survive a full disk.
"""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_bytes
from gms_rt.train.checkpoint import Row

_BEFORE = ("epoch", "step", "phase", "lr")
_BEHIND = ("validation_dice", "validation_loss", "seconds", "images_per_second")
EVENTS = "events.out.tfevents.gms-rt"


class Record:
    """Writes rows into a run folder; `losses` are the names of its columns of losses."""

    def __init__(self, folder: Path, losses: tuple[str, ...]) -> None:
        self._columns = (*_BEFORE, *losses, *_BEHIND)
        self._csv = folder / "metrics.csv"
        self._events = folder / "tensorboard" / EVENTS
        self._written = 0

    def write(self, rows: list[Row]) -> None:
        """Write all rows to the table, and those that are new as events."""
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_bytes(self._csv, text.getvalue().encode())
        try:
            records = _records(rows[self._written :], first=self._written == 0)
        except ImportError:  # the table is complete without the events
            return
        if self._written == 0:
            write_bytes(self._events, records)
        else:
            with self._events.open("ab") as stream:
                stream.write(records)
        self._written = len(rows)


def _records(rows: list[Row], *, first: bool) -> bytes:
    """Rows in the format of TensorBoard's event files."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

    stream = io.BytesIO()
    writer: Any = RecordWriter(stream)
    if first:
        writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    for row in rows:
        values = [Summary.Value(tag=name, simple_value=v) for name, v in row.items() if isinstance(v, float)]
        event = Event(wall_time=time.time(), step=int(row["step"]), summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return stream.getvalue()
