"""What a client sent, as sources that `infer` knows: a picture, DICOM, NIfTI, an archive or several files.

What a file is, its content says, not its name or Content-Type; only DICOM without its usual prefix is believed to be
what the client calls it. A lone picture stays in memory. All else is written to a folder of this request, under names
of our own, and is gone with it.
"""

from __future__ import annotations

import math
import shutil
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from types import TracebackType

from gms_rt.artifacts import sha256_bytes
from gms_rt.errors import InputError, TooLargeError
from gms_rt.infer.measure import as_text
from gms_rt.infer.outputs import ENDINGS
from gms_rt.infer.sources import FoundSources, Source, result_names, with_series
from gms_rt.scan.dicom import check_beginning, is_dicom
from gms_rt.scan.foreign import refuse_foreign
from gms_rt.scan.pictures import picture_format
from gms_rt.scan.reader import Fetched, fetch, fetch_series
from gms_rt.serve.held import Held
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.packed import ZIP, unpack
from gms_rt.serve.refusals import UnsupportedError

DICOM_KIND = "application/dicom"
_RESULTS = tuple(ENDINGS.values())
_ENDINGS = {"dicom": ".dcm", "nifti": ".nii", "nifti-gz": ".nii.gz", "picture": ""}


@dataclass(frozen=True)
class SentFile:
    """One file as it came: its content, the name and Content-Type that the client gave it."""

    data: bytes
    name: str = "scan"
    kind: str = ""


@dataclass(frozen=True)
class Taken:
    """The sources of a request; `skipped` counts files that are not scans."""

    sources: list[Source]
    skipped: int
    pictures: dict[Path, bytes]  # contents of what was not written to the disk

    def fetch(self, source: Source) -> Fetched:
        """A source's content, hashed."""
        data = self.pictures.get(source.path)
        if data is not None:
            return Fetched(source.path, "picture", sha256_bytes(data), data)
        return fetch_series(source.paths) if source.series else fetch(source.path)


class Workspace:
    """A folder of one request below `root`, made when it is first needed. A context manager: the folder is removed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder; nobody else may read it."""
        if self._folder is None:
            self._folder = Path(mkdtemp(dir=self._root))
        return self._folder

    @property
    def name(self) -> Path:
        """Where the folder is or would be."""
        return self._folder or self._root

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def kind_of_content(data: bytes, content_type: str = "") -> str | None:
    """What some bytes are: "picture", "dicom", "nifti", "nifti-gz", "zip", or None for what is not read.

    >>> kind_of_content(b"II*" + bytes(140)), kind_of_content(b"hello")
    ('picture', None)
    """
    if is_dicom(data[:132]):
        return "dicom"
    if data.startswith(ZIP):
        return "zip"
    if picture_format(data[:16]) is not None:
        return "picture"
    if _is_nifti(data[:352]):
        return "nifti"
    if data.startswith(b"\x1f\x8b"):
        try:
            start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data[:65536], 352)
        except zlib.error:
            return None
        return "nifti-gz" if _is_nifti(start) else None
    return "dicom" if content_type.split(";")[0].strip().lower() == DICOM_KIND and data else None


def _is_nifti(start: bytes) -> bool:
    one = start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c") and start[344:347] in (b"n+1", b"ni1")
    return one or start[4:7] == b"n+2"


def take_files(sent: list[SentFile], workspace: Workspace, limits: ServeLimits, held: Held) -> Taken:
    """The sources among what was sent. Slices of a DICOM series are one source, as `infer` has them."""
    if len(sent) == 1:
        kind = _known_kind(sent[0])
        if kind == "picture":
            path = workspace.name / "scan"
            return Taken([Source(path, as_text(sent[0].name), "scan")], 0, {path: sent[0].data})
        if kind == "zip":
            entries = (SentFile(data, name) for name, data in unpack(sent[0].data, limits, held))
            return _written(entries, workspace, limits, held)
    return _written(sent, workspace, limits, held)


def _known_kind(sent: SentFile) -> str:
    kind = kind_of_content(sent.data, sent.kind)
    if kind is not None:
        return kind
    what = "is empty (0 bytes)" if not sent.data else "is not a picture, DICOM, NIfTI or zip archive"
    try:
        refuse_foreign(sent.data[:1024], "")
    except InputError as error:
        raise UnsupportedError(error.what, where="body", fix=error.fix) from error
    raise UnsupportedError(what, where="body", fix="send PNG, JPEG, TIFF, BMP, WebP, DICOM, NIfTI or a zip of them")


def _written(files: Iterable[SentFile], workspace: Workspace, limits: ServeLimits, held: Held) -> Taken:
    """Write each scan under a number, and find the series among them."""
    kept: list[tuple[Path, str]] = []
    skipped = 0
    for number, sent in enumerate(files, 1):
        kind = kind_of_content(sent.data, sent.kind)
        if kind is None or kind == "zip" or PurePosixPath(sent.name).name.lower() == "dicomdir":
            skipped += 1
            continue
        path = workspace.folder / f"{number:05d}{_ENDINGS[kind]}"
        path.write_bytes(sent.data)
        if kind == "dicom":
            hold_inflated(path, limits, held)
        elif kind != "picture":
            _hold_volume(sent.data, limits, held)
        kept.append((path, as_text(sent.name)))
    if not kept:
        raise UnsupportedError(
            f"has no picture, DICOM or NIfTI ({skipped} other files)", where="body", fix="send what is to be segmented"
        )
    names = _unlike(name for _, name in kept)
    stems = result_names(names)
    sources = [Source(path, name, stems[name]) for (path, _), name in zip(kept, names, strict=True)]
    found = with_series(FoundSources(sources, workspace.folder, skipped))
    return Taken(found.sources, skipped, {})


def hold_inflated(path: Path, limits: ServeLimits, held: Held) -> None:
    """Hold what a deflated DICOM file becomes in memory: a thousand times its size, if somebody wants it so."""
    try:
        size = check_beginning(path)
    except Exception:  # what is wrong with it is told when it is read
        return
    if size > limits.max_unpacked:
        raise TooLargeError(
            f"is deflated from {size >> 20} MiB, the limit is {limits.max_unpacked >> 20}", where="body"
        )
    if size:
        held.take(size)


def _hold_volume(data: bytes, limits: ServeLimits, held: Held) -> None:
    """Hold what a volume becomes in memory, four bytes a voxel; its reader refuses one that is too large."""
    packed = data.startswith(b"\x1f\x8b")
    start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data[:65536], 352) if packed else data[:352]
    for order in "<>":
        one = struct.unpack_from(f"{order}i", start)[0] == 348
        axes = struct.unpack_from(f"{order}8h", start, 40) if one else struct.unpack_from(f"{order}8q", start, 16)
        if 1 <= axes[0] <= 7:
            voxels = math.prod(max(1, size) for size in axes[1 : axes[0] + 1])
            if voxels <= limits.max_pixels * 8:
                held.take(4 * voxels)
            return


def _unlike(names: Iterable[str]) -> list[str]:
    """Names below no other place, no two alike; files that were sent without one have a number.

    A folder is not named as a result could be: `a.dcm/b` would stand where the result of `a.dcm` goes.
    """
    taken: set[str] = set()
    result = []
    for number, name in enumerate(names, 1):
        parts = name.replace("\0", "").replace("\\", "/").split("/")
        *folders, last = [part for part in parts if part not in ("", ".", "..")] or ["scan"]
        plain = "/".join([*(f"{each}~" if each.lower().endswith(_RESULTS) else each for each in folders), last])
        while plain in taken:
            plain = f"{plain}-{number}"
        taken.add(plain)
        result.append(plain)
    return result
