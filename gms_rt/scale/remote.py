"""Sources below a folder of a file system that fsspec knows (S3, Google Cloud, SFTP and others).

Names, order and results are those of the same tree on a disk. The file system's own settings, such as keys and
endpoints, come from where its library looks for them: environment variables and files of its own.
"""

from __future__ import annotations

import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gms_rt.artifacts import sha256_bytes
from gms_rt.errors import InputError, MissingExtraError, UsageError, line_from_error
from gms_rt.infer.sources import OUTPUT_MARK, FoundSources, Source, result_names
from gms_rt.scan.dicom import is_dicom
from gms_rt.scan.reader import SUFFIXES
from gms_rt.scan.slices import Slice, slice_from_stream

_TRIES = 3
_READERS = 16  # requests at the same time while the folder is listed
_BLOCK = 64 << 10  # bytes of a file that are read at a time where only its header is wanted
_EXTRAS = {"s3": "s3", "s3a": "s3"}


class RemoteFolder:
    """A folder of a remote file system."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            import fsspec
        except ImportError as error:
            raise MissingExtraError(f"reading {url}", "s3") from error
        protocol = url.partition("://")[0]
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            if protocol in _EXTRAS:
                raise MissingExtraError(f"reading {url}", _EXTRAS[protocol]) from error
            raise UsageError(line_from_error(error), where=url) from error
        except ValueError as error:
            raise UsageError(line_from_error(error), where=url) from error
        self._root = root.rstrip("/")

    def listing(self) -> dict[str, str]:
        """The files below it by name, in the order in which a folder of the same files is searched, and their stamps.

        Hidden files and folders are left out, and so are folders with the results of a run.
        """
        try:
            self._fs.invalidate_cache()
            about = self._fs.find(self._root, detail=True)
        except Exception as error:  # each file system has its own
            raise UsageError(f"cannot be listed ({line_from_error(error)})", where=self.url) from error
        names = {path[len(self._root) :].lstrip("/"): value for path, value in about.items()}
        split = {name: name.split("/") for name in names}
        results = {tuple(parts[:-1]) for parts in split.values() if parts[-1] == OUTPUT_MARK}
        kept = [
            name
            for name, parts in split.items()
            if all(part and not part.startswith(".") for part in parts)
            and not any(tuple(parts[:end]) in results for end in range(len(parts)))
        ]
        kept.sort(key=lambda name: [os.fsencode(part) for part in split[name]])
        return {name: _stamp(names[name]) for name in kept}

    def start(self, name: str) -> bytes:
        """The first bytes of a file."""
        return bytes(self._fs.cat_file(f"{self._root}/{name}", start=0, end=132))

    def slice(self, name: str, path: Path) -> Slice | None:
        """A file's slice, from its header; `path` stands for it."""
        try:
            with self._fs.open(f"{self._root}/{name}", "rb", block_size=_BLOCK) as stream:
                return slice_from_stream(path, stream)
        except Exception:  # a file that cannot be read fails when it is segmented
            return None

    def bring(self, source: Source, scratch: Path) -> Source:
        """The source with its files in a local folder. What cannot be fetched is an InputError."""
        paths = [self._fetch(name, scratch) for name in source.members or (source.name,)]
        series = source.series and dataclasses.replace(source.series, paths=tuple(paths))
        return dataclasses.replace(source, path=paths[0], series=series)

    def _fetch(self, name: str, scratch: Path) -> Path:
        folder = scratch / sha256_bytes(os.fsencode(name))[:24]  # no name leads out of the scratch folder
        folder.mkdir(exist_ok=True)
        path = folder / name.rpartition("/")[2]
        for left in reversed(range(_TRIES)):
            try:
                self._fs.get_file(f"{self._root}/{name}", str(path))
                return path
            except FileNotFoundError as error:
                raise InputError("cannot be read (it is no longer there)") from error
            except Exception as error:  # each file system has its own
                if not left:
                    raise InputError(f"cannot be fetched ({line_from_error(error)})") from error
            time.sleep(0.5 * (_TRIES - left))
        raise AssertionError("the last try returns or raises")


def find_remote(folder: RemoteFolder) -> tuple[FoundSources, dict[str, str]]:
    """Every scan below a remote folder, as `find_sources` finds those of a local one, and the stamps by name."""
    stamps = folder.listing()
    with ThreadPoolExecutor(_READERS) as pool:
        scans = [
            name for name, wanted in zip(stamps, pool.map(lambda n: _is_scan(folder, n), stamps), strict=True) if wanted
        ]
    stems = result_names(scans)
    sources = [Source(Path(name), name, stems[name]) for name in scans]
    return FoundSources(sources, Path(folder.url), len(stamps) - len(scans), [folder.url]), stamps


def _is_scan(folder: RemoteFolder, name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    if base.endswith(SUFFIXES) or base == "dicomdir":
        return base != "dicomdir"
    try:
        return is_dicom(folder.start(name))
    except Exception:  # it then fails with a reason, and does not go missing in silence
        return True


def _stamp(about: dict[str, Any]) -> str:
    """What changes when a file does: its size, and its tag or time."""
    marks = (about.get(key) for key in ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated"))
    return f"{about.get('size')}-{next((str(mark) for mark in marks if mark is not None), '')}"
