"""One picture at a time through the code of `gms-rt infer`, from bytes to the mask's bytes, without HTTP and disk."""

from __future__ import annotations

import time
from pathlib import Path

from gms_rt.artifacts import sha256_bytes
from gms_rt.engine.select import load
from gms_rt.infer import InferJob, InferOptions, OutFolder
from gms_rt.infer.case import ScanCase
from gms_rt.infer.case_settings import CaseSettings
from gms_rt.infer.sources import Source
from gms_rt.scan.reader import Fetched
from gms_rt.serve.segment import MemoryFolder


class InferOne:
    """An open engine. `close` it."""

    def __init__(self, engine: Path) -> None:
        self._engine = load(engine)
        self._job = InferJob(self._engine, OutFolder(Path()), InferOptions(overlays=False, contours=False))

    def mask(self, body: bytes) -> bytes:
        """The mask of a picture as PNG, as `infer` writes it."""
        folder = MemoryFolder(Path(), 1 << 30)
        predictor = self._job.settings.predictor
        case = ScanCase(
            0, Source(Path("scan"), "scan", "scan"), CaseSettings(folder, predictor, self._job.maker, self._job.key)
        )
        start = time.perf_counter()
        fetched = Fetched(Path("scan"), "picture", sha256_bytes(body), body)
        reading = fetched.open()
        case.begin(fetched, reading.multi)
        frame = next(iter(reading.frames))
        levels = predictor.predict([predictor.prepare(frame.image)])[0]
        case.place(case.write(frame, levels, 0.0, start), {})
        case.finish()
        return folder.contents["masks/scan.png"]

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()
