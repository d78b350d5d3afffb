"""How often a chunk or a source was begun and not ended: files in the output folder, which all workers see.

A worker that dies says nothing, and whoever takes its work over would die of the same file. So each leaves a mark
before it begins and removes it at the end. A chunk that two workers did not end is done source by source, and a source
that a worker did not even end alone is given up: it fails, and the others go on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from gms_rt.artifacts import make_folder

ATTEMPTS = ".gms-rt-attempts"
TOGETHER = 2  # times that a chunk is begun as a whole


class Attempts:
    """The marks below an output folder."""

    def __init__(self, root: Path) -> None:
        self._folder = root / ATTEMPTS

    def begin(self, name: str) -> int:
        """Leave a mark; which one it is, from 1."""
        make_folder(self._folder)
        number = 1
        while True:
            try:
                os.close(os.open(self._folder / f"{name}.{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                return number
            except FileExistsError:
                number += 1

    def end(self, name: str) -> None:
        """Remove all marks of a name."""
        number = 1
        with contextlib.suppress(FileNotFoundError):
            while True:
                (self._folder / f"{name}.{number}").unlink()
                number += 1

    def clear(self) -> None:
        """Remove all marks."""
        shutil.rmtree(self._folder, ignore_errors=True)
