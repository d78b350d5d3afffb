"""DICOM instances in, a DICOM SEG for each of their series or files out: for DICOMweb, and for a DICOM node (C-STORE).

It knows nothing of HTTP. Every instance is accounted for, in the order in which it came: segmented, or failed with
a reason of PS3.18 and plain words. The UIDs of results follow from the source, engine and options, as those of
`gms-rt infer` do: the same study twice gives the same objects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gms_rt.artifacts import sha256_bytes
from gms_rt.errors import InputError, MissingExtraError, NoImageError
from gms_rt.infer.dicom_seg import seg_available
from gms_rt.infer.dicom_values import text_value
from gms_rt.infer.failure import failure_reason
from gms_rt.infer.sources import FoundSources, Source, result_names, with_series
from gms_rt.scan.dicom import read_header
from gms_rt.scan.dicom_objects import object_without_image, sop_class
from gms_rt.serve.answer import SEG, AnswerParts, options_for
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.held import Held
from gms_rt.serve.intake import Taken, Workspace, hold_inflated
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.model import ServedModel
from gms_rt.serve.segment import Asked, SegmentedSource, SegmentJob
from gms_rt.serve.service import Service

# Failure reasons of PS3.18, 10.5.3, and PS3.7.
PROCESSING, DUPLICATE, NO_CLASS, MISMATCH, UNREADABLE = 0x0110, 0x0111, 0x0122, 0xA900, 0xC000
_UID = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True)
class DicomName:
    """The identifiers of an object; empty where they are not known."""

    study: str = ""
    series: str = ""
    instance: str = ""
    sop_class: str = ""


@dataclass(frozen=True)
class Receipt:
    """What came of one instance; `reason` 0 is success."""

    name: DicomName
    reason: int = 0
    words: str = ""  # why it failed


@dataclass(frozen=True)
class MadeObject:
    """A result as a DICOM file."""

    name: DicomName
    data: bytes


@dataclass(frozen=True)
class StudyResult:
    """A receipt for each instance, in the order in which they came, and the results."""

    receipts: list[Receipt]
    objects: list[MadeObject]


def is_uid(text: str) -> bool:
    """Whether a text is an identifier of DICOM, and so a safe name of a folder.

    >>> is_uid("1.2.840"), is_uid(".."), is_uid("1")
    (True, False, False)
    """
    return len(text) <= 64 and text.isascii() and _UID.fullmatch(text) is not None


def name_of_object(path: Path) -> DicomName:
    """The identifiers in a DICOM file; an InputError where one is missing or none."""
    return _name(read_header(path))


def segment_study(
    service: Service, model: ServedModel, sent: Sequence[bytes], study: str | None, deadline: Deadline, held: Held
) -> StudyResult:
    """Segment instances in the caller's thread. With `study`, those of another one fail."""
    check_seg()
    with Workspace(service.scratch) as workspace:
        arrived = _Arrived(sent, study, workspace, service.limits, held)
        if not arrived.paths:
            return StudyResult([arrived.receipts[index] for index in range(len(sent))], [])
        held.take(0)  # raises where the client has gone meanwhile
        asked = Asked(options_for(SEG, model.options, AnswerParts()))
        job = SegmentJob(model, asked, deadline, service.limits, service.counters)
        found = job.run(Taken(arrived.sources(), 0, {}), workspace)
        objects = [made for each in found for made in _objects(each, workspace)]
        for each in found:
            arrived.settle(each)
    return StudyResult([arrived.receipts[index] for index in range(len(sent))], objects)


def check_seg() -> None:
    """Raise where DICOM SEG cannot be made."""
    if not seg_available():
        raise MissingExtraError("DICOMweb", "dicom-seg")


class _Arrived:
    """The instances of one request: files of what can be segmented, receipts of all."""

    def __init__(
        self, sent: Sequence[bytes], study: str | None, workspace: Workspace, limits: ServeLimits, held: Held
    ) -> None:
        self.receipts: dict[int, Receipt] = {}
        self.paths: dict[Path, int] = {}  # the places of instances that are to be segmented
        self._copies: dict[int, int] = {}  # of an instance that came before
        self._names: dict[int, DicomName] = {}
        seen: dict[str, tuple[int, str]] = {}
        for index, data in enumerate(sent):
            path = workspace.folder / f"{index + 1:05d}.dcm"
            path.write_bytes(data)
            hold_inflated(path, limits, held)
            name = DicomName()
            try:
                header = read_header(path)
                name = _name(header, strict=False)
                name = _name(header)
                digest = sha256_bytes(data)
                first = seen.setdefault(name.instance, (index, digest))
                if study is not None and name.study != study:
                    raise _Refusal(MISMATCH, "is of another study than the address")
                if first[0] != index:
                    if first[1] != digest:
                        raise _Refusal(DUPLICATE, "has the SOP Instance UID of another instance of this request")
                    self._copies[index] = first[0]
                    path.unlink()
                    continue
                what = object_without_image(header)
                if what:
                    raise NoImageError(what)
            except Exception as error:  # hostile bytes fail in many ways
                self.receipts[index] = _receipt(name, error, path)
                path.unlink()
            else:
                self.paths[path], self._names[index] = index, name
        self._settle_copies()

    def sources(self) -> list[Source]:
        """The sources among the files, as `infer` finds them in a folder."""
        stems = result_names(path.name for path in self.paths)
        plain = [Source(path, path.name, stems[path.name]) for path in self.paths]
        return with_series(FoundSources(plain, next(iter(self.paths)).parent, 0)).sources

    def settle(self, found: SegmentedSource) -> None:
        """Say of each instance of a source what came of it."""
        source = found.source
        failed = {row.get("frame"): row["error"] for row in found.rows if row["status"] in ("failed", "skipped")}
        made = any(name.endswith(".dcm") for name in found.files)
        reason = next((str(row["seg"]) for row in found.rows if row.get("seg")), "")
        reason = next((text for frame, text in failed.items() if frame is None), None) or reason
        copies = source.series.copies if source.series else ()
        for number, path in enumerate((*source.paths, *copies), 1):
            index = self.paths[path]
            own = failed.get(number) if source.series else next(iter(failed.values()), None)
            code = 0 if made else UNREADABLE if own else PROCESSING
            words = "" if made else own or reason or "could not be segmented"
            self.receipts[index] = Receipt(self._names[index], code, words)
        self._settle_copies()

    def _settle_copies(self) -> None:
        for index, first in self._copies.items():
            if first in self.receipts:
                self.receipts[index] = self.receipts[first]


class _Refusal(InputError):
    """An instance that is not taken, with its code."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code = code


def _receipt(name: DicomName, error: Exception, path: Path) -> Receipt:
    if isinstance(error, _Refusal):
        return Receipt(name, error.code, error.what)
    if isinstance(error, NoImageError):
        return Receipt(name, NO_CLASS, error.what)
    if isinstance(error, InputError):
        return Receipt(name, UNREADABLE, failure_reason(error, path))
    return Receipt(name, UNREADABLE, f"cannot be read ({type(error).__name__})")


def _name(header: object, *, strict: bool = True) -> DicomName:
    values = {
        name: text_value(header, name, 65) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    kind = sop_class(header)
    values["SOPClassUID"] = "" if kind is None else str(kind)
    for name, value in values.items():
        if not is_uid(value):
            if strict:
                raise InputError(f"has no valid {name}, so nothing can refer to it")
            values[name] = ""
    return DicomName(*values.values())


def _objects(found: SegmentedSource, workspace: Workspace) -> list[MadeObject]:
    made = []
    for name, data in found.files.items():
        if name.endswith(".dcm"):
            made.append(MadeObject(name_of_object(workspace.folder / name), data))
    return made
