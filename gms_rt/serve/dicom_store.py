"""What DICOMweb keeps with `--keep`: one file for each result, below its study and series.

    DIR/dicom-web/<study>/<series>/<instance>.dcm

Names are identifiers and nothing else, so no name leads out of the folder. A file is whole or absent, also after
a kill. An object that is there stays as it is: the same identifier never names two contents.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_bytes
from gms_rt.errors import GmsError
from gms_rt.scan.dicom import read_header
from gms_rt.serve.dicom_study import MadeObject, is_uid
from gms_rt.serve.kept import kept_or_failed

FOLDER = "dicom-web"
_HEADERS = 256  # that are held, those used last


class DicomStore:
    """The kept objects of one folder. Any thread may ask."""

    def __init__(self, keep: Path) -> None:
        self.root = keep / FOLDER
        self._lock = threading.Lock()
        self._headers: OrderedDict[tuple[Path, int, int], Any] = OrderedDict()

    def put(self, made: MadeObject) -> bytes:
        """Keep an object, unless it is there; return the content that is kept."""
        name = made.name
        path = self.root / name.study / name.series / f"{name.instance}.dcm"
        with self._lock:
            if path.is_file():
                return path.read_bytes()
            with kept_or_failed():
                write_bytes(path, made.data)
            return made.data

    def paths(self, study: str | None = None, series: str | None = None, instance: str | None = None) -> list[Path]:
        """The files of a study, series or instance, or all, in a stable order."""
        return [
            path
            for study_folder in _named(self.root, study)
            for series_folder in _named(study_folder, series)
            for path in _named(series_folder, None if instance is None else f"{instance}.dcm", ".dcm")
        ]

    def header(self, path: Path) -> Any:
        """All of an object but its pixels; None where it is gone or cannot be read. Not to be changed."""
        try:
            about = path.stat()
            key = (path, about.st_size, about.st_mtime_ns)
            with self._lock:
                if key in self._headers:
                    self._headers.move_to_end(key)
                    return self._headers[key]
            header = read_header(path)
        except (OSError, GmsError):
            return None
        with self._lock:
            self._headers[key] = header
            while len(self._headers) > _HEADERS:
                self._headers.popitem(last=False)
        return header


def _named(folder: Path, name: str | None, ending: str = "") -> Iterator[Path]:
    """The entries that are identifiers (with this ending), or the one of this name."""
    try:
        names = sorted(entry.name for entry in folder.iterdir()) if name is None else [name]
    except OSError:
        return
    for each in names:
        if each.endswith(ending) and is_uid(each.removesuffix(ending)) and (folder / each).exists():
            yield folder / each
