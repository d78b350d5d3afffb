"""How sources looked when they were segmented: size and time, or a tag. One line of JSON each.

`infer --continue` reads every source to compare its content; of an archive that would be most of the work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

from gms_rt.errors import GmsError

STAMPS = ".gms-rt-stamps.jsonl"


class Stamps:
    """The stamps of an output folder. Use it as a context manager; without `resume` earlier ones are forgotten."""

    def __init__(self, root: Path, *, resume: bool) -> None:
        self._path = root / STAMPS
        self._resume = resume
        self._known: dict[str, str] = {}
        self._stream: IO[str] | None = None

    def __enter__(self) -> Stamps:
        try:
            if not self._resume:
                self._path.unlink(missing_ok=True)
            elif self._path.exists():
                self._read()
            self._stream = self._path.open("a", encoding="ascii")
            self._stream.write("\n")  # ends a line that a kill tore
        except OSError as error:
            raise GmsError(f"cannot be written ({error.strerror})", where=self._path) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def is_same(self, source: str, stamp: str) -> bool:
        """Whether a source looks as it did when it was segmented."""
        return bool(stamp) and self._known.get(source) == stamp

    def add(self, stamps: Iterable[tuple[str, str]]) -> None:
        """Record the stamps of sources that are segmented."""
        assert self._stream is not None, "stamps are open while a run lasts"
        try:
            self._stream.write("".join(json.dumps(each) + "\n" for each in stamps))
            self._stream.flush()
        except OSError as error:
            raise GmsError(f"cannot be written ({error.strerror})", where=self._path) from error

    def _read(self) -> None:
        with self._path.open("rb") as stream:
            for line in stream:
                try:
                    name, stamp = json.loads(line)
                except ValueError:  # torn, or the empty line before what a later run added
                    continue
                self._known[name] = stamp
