"""Results without patient data: names, dates and identifiers of sources are replaced before any result is made.

Identifiers and names are replaced by keyed hashes (HMAC-SHA-256). The key is random, is kept in a hidden file of the
output folder for --continue, and belongs to whoever ran it: with it and a source, results can be linked to that source.
Results are made from a new header that holds only what is listed here, so that nothing unknown can slip through.

DICOM results meet the Basic Application Confidentiality Profile of PS3.15 (113100), reports with its option Clean
Structured Content (113104). Its other options are not met: above all pixels are not cleaned, and text that is burned
into an image stands in its overlay.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gms_rt import __version__
from gms_rt.errors import ArtifactError, GmsError
from gms_rt.infer.measure import CaseRow
from gms_rt.infer.result import SourceResult
from gms_rt.infer.sources import FoundSources, Source

KEY_FILE = ".gms-rt-deidentify.key"
DATE, TIME = "19000101", "000000"  # of every result: a type 1 date cannot be left out
_KEY_BYTES = 32
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_UID_COLUMNS = ("study_uid", "series_uid", "sop_uid")

# What a result needs of a header and what says nothing about a person; a nested entry is a sequence.
_GEOMETRY: dict[str, Any] = {
    "PlanePositionSequence": {"ImagePositionPatient": None},
    "PlaneOrientationSequence": {"ImageOrientationPatient": None},
    "PixelMeasuresSequence": {"PixelSpacing": None, "SliceThickness": None, "SpacingBetweenSlices": None},
}
_KEPT: dict[str, Any] = {
    **dict.fromkeys((
        "SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames", "SeriesNumber", "InstanceNumber",
        "ImagePositionPatient", "ImageOrientationPatient", "PatientOrientation", "PixelSpacing", "SliceThickness",
        "SpacingBetweenSlices", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "LossyImageCompression",
        "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    )),
    "SequenceOfUltrasoundRegions": dict.fromkeys((
        "PhysicalUnitsXDirection", "PhysicalUnitsYDirection", "PhysicalDeltaX", "PhysicalDeltaY",
    )),
    "SharedFunctionalGroupsSequence": _GEOMETRY,
    "PerFrameFunctionalGroupsSequence": _GEOMETRY,
}  # fmt: skip


class Deidentifier:
    """Replaces what identifies a person; the same key gives the same replacements."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def pseudonym(self, kind: str, text: str, length: int = 12) -> str:
        """A name that stands for a text, such as `source-0a1b2c3d4e5f`.

        >>> Deidentifier(b"k").pseudonym("source", "Doe_John.dcm")
        'source-7e36553245e5'
        """
        return f"{kind}-{self._digest(kind, text).hex()[:length]}"

    def uid(self, uid: str) -> str:
        """A valid DICOM identifier that stands for another one."""
        number = int.from_bytes(self._digest("uid", uid)[:16], "big")
        return f"2.25.{number}"

    def header(self, header: Any) -> Any:
        """A new DICOM header with nothing of a person in it, from which results can be made."""
        from pydicom import Dataset

        clean = _kept(header, _KEPT)
        for name in _UIDS:
            if header.get(name):
                setattr(clean, name, self.uid(str(header.get(name))))
        person = str(header.get("PatientID") or header.get("PatientName") or "")
        clean.PatientID = clean.PatientName = self.pseudonym("patient", person) if person else "patient"
        clean.PatientIdentityRemoved = "YES"
        clean.DeidentificationMethod = f"gms-rt {__version__} --deidentify: PS3.15 Basic Profile"[:64]
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
        code.CodeMeaning = "Basic Application Confidentiality Profile"
        clean.DeidentificationMethodCodeSequence = [code]
        clean.LongitudinalTemporalInformationModified = "REMOVED"
        return clean

    def result(self, result: SourceResult) -> SourceResult:
        """The result of a source as if the source had been without patient data. Its rows are cleaned already."""
        return dataclasses.replace(
            result,
            headers=[self.header(header) for header in result.headers],
        )

    def digest(self, content: str) -> str:
        """The hash that stands for the hash of a source's content, which anyone who has the source could make."""
        return self._digest("content", content).hex()

    def reason(self, text: str) -> str:
        """Why something failed, in this program's own words: what a library says can repeat what a header holds.

        >>> Deidentifier(b"k").reason("is a damaged DICOM file (no number: 'Doe'); has the UID 1.2.840.99.7")
        'is a damaged DICOM file; has the UID …'
        """
        own = re.sub(r"\s*\(.*\)", "", text, flags=re.DOTALL)
        own = re.sub(r"""(?<!\w)(['"]).*\1""", "…", own, flags=re.DOTALL)
        return re.sub(r"\b\d+(\.\d+){3,}", "…", own)

    def row(self, row: CaseRow, source: Source) -> CaseRow:
        """A row of cases.csv without identifiers of the source, nor its file's name in a reason."""
        clean = dict(row)
        for column in _UID_COLUMNS:
            if clean.get(column):
                clean[column] = self.uid(str(clean[column]))
        files = [*source.paths, *(source.series.copies if source.series else ())]
        for column in ("error", "note", "seg"):
            text = clean.get(column)
            if isinstance(text, str):
                for path in files:
                    text = text.replace(str(path), source.name).replace(path.name, source.name)
                clean[column] = text
        if isinstance(clean.get("series"), dict):  # the row of series.csv
            clean["series"] = self.row(clean["series"], source)
        return clean

    def sources(self, found: FoundSources) -> FoundSources:
        """The same sources under other names, with no word about where they are."""
        renamed = []
        for source in found.sources:
            name = self.pseudonym("source", source.name)
            members = tuple(self.pseudonym("source", member) for member in source.members)
            renamed.append(dataclasses.replace(source, name=name, stem=name, members=members))
        inputs = [self.pseudonym("input", text) for text in found.inputs]
        return dataclasses.replace(
            found, sources=renamed, root=Path(self.pseudonym("root", str(found.root))), inputs=inputs
        )

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The content of run.json without the engine's folder and times; its sources are renamed already."""
        clean = dict(record) | {"started": None, "deidentified": True}
        if isinstance(clean.get("engine"), dict):
            clean["engine"] = clean["engine"] | {"folder": Path(str(clean["engine"].get("folder", ""))).name}
        return clean | ({"ended": None} if "ended" in clean else {})

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{text}".encode("utf-8", "surrogateescape"), hashlib.sha256).digest()


def deidentifier_for_folder(root: Path) -> Deidentifier:
    """The de-identifier of an output folder: with the key that is there, or a new one that is put there."""
    path = root / KEY_FILE
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise ArtifactError(
                "is not a key of --deidentify", where=path, fix="remove it: names will change"
            ) from None
        return Deidentifier(key)
    except OSError as error:
        raise GmsError(f"cannot be written ({error.strerror})", where=path) from error
    with os.fdopen(handle, "wb") as stream:
        key = secrets.token_bytes(_KEY_BYTES)
        stream.write(key)
    return Deidentifier(key)


def remove_dates(dataset: Any) -> None:
    """Set every date and time of a DICOM result to 1900, also those of its making: they can be the day of the scan."""
    values = {"DA": DATE, "TM": TIME, "DT": DATE + TIME}

    def replace(_: Any, element: Any) -> None:
        if element.VR in values and element.value:
            element.value = values[element.VR]

    dataset.walk(replace)


def _kept(holder: Any, names: Mapping[str, Any]) -> Any:
    from pydicom import Dataset

    clean = Dataset()
    for name, nested in names.items():
        try:
            value = holder.get(name)
            if value is None:
                continue
            setattr(clean, name, value if nested is None else [_kept(item, nested) for item in value])
        except Exception:  # noqa: S112 (what a damaged element holds is not taken over)
            continue
    return clean
