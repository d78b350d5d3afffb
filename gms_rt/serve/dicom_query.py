"""Searching kept objects as QIDO-RS does (PS3.18, 10.6): studies, series and instances by their attributes."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gms_rt.errors import UsageError
from gms_rt.infer.dicom_values import text_value
from gms_rt.serve.dicom_store import DicomStore

_STUDY = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
)  # fmt: skip
_SERIES = ("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber")
_INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "NumberOfFrames")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_OTHER = ("includefield", "fuzzymatching")
_FIELDS = {"studies": _STUDY, "series": (*_STUDY, *_SERIES), "instances": (*_STUDY, *_SERIES, *_INSTANCE)}
_LEVELS = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID", "instances": "SOPInstanceUID"}
MOST = 1000  # answers to one question


def search_store(
    store: DicomStore, level: str, pairs: Iterable[tuple[str, str]], study: str | None, series: str | None
) -> list[dict[str, Any]]:
    """What matches, as DICOM JSON; at most `MOST`, more with `offset`. `level` is studies, series or instances."""
    asked = _Question(level, pairs)
    groups: dict[str, list[Any]] = {}
    paths = store.paths(study or asked.only("StudyInstanceUID"), series or asked.only("SeriesInstanceUID"))
    for path, header in _headers(store, paths):
        if all(matches(header) for matches in asked.rules):
            key = _LEVELS[level]
            groups.setdefault(text_value(header, key, 65), []).append((path, header))
    chosen = list(groups.values())[asked.offset : asked.offset + asked.limit]
    return [_found(store, level, members) for members in chosen]


def _headers(store: DicomStore, paths: Iterable[Path]) -> Iterator[tuple[Path, Any]]:
    for path in paths:
        header = store.header(path)
        if header is not None:
            yield path, header


class _Question:
    """The query of an address: rules that a header must meet, and which of the answers are wanted."""

    def __init__(self, level: str, pairs: Iterable[tuple[str, str]]) -> None:
        self.limit, self.offset = MOST, 0
        self.rules: list[Callable[[Any], bool]] = []
        self._single: dict[str, str] = {}
        known = (*_FIELDS[level], "ModalitiesInStudy")
        for key, value in pairs:
            if key in ("limit", "offset"):
                if not value.isascii() or not value.isdecimal() or len(value) > 9:
                    raise UsageError("is not a whole number", where=key)
                setattr(self, key, min(int(value), MOST) if key == "limit" else int(value))
            elif key.lower() not in _OTHER:
                name = _keyword(key)
                if name not in known:
                    raise UsageError("is not searched for here", where=key[:40], fix=f"ask for {', '.join(known)}")
                if value not in ("", "*"):
                    self._add(name, value)

    def only(self, name: str) -> str | None:
        """The one identifier that is asked for, where it is one."""
        return self._single.get(name)

    def _add(self, name: str, value: str) -> None:
        if name in _UIDS:
            wanted = value.replace("\\", ",").split(",")
            if len(wanted) == 1:
                self._single[name] = value
            self.rules.append(lambda header: text_value(header, name, 65) in wanted)
        elif name == "ModalitiesInStudy":  # all that is kept of a study is of the modalities that are kept
            self.rules.append(lambda header: text_value(header, "Modality", 16) in value.replace("\\", ",").split(","))
        elif name in ("StudyDate", "StudyTime", "PatientBirthDate") and "-" in value:
            first, _, last = value.partition("-")
            self.rules.append(lambda header: _within(text_value(header, name, 16), first, last))
        else:
            pattern = value.lower().replace("[", "[[]")
            self.rules.append(lambda header: fnmatch.fnmatchcase(text_value(header, name, 200).lower(), pattern))


def _within(value: str, first: str, last: str) -> bool:
    return bool(value) and first <= value and (not last or value[: len(last)] <= last)


def _keyword(key: str) -> str:
    from pydicom.datadict import keyword_for_tag

    if len(key) == 8 and all(c in "0123456789abcdefABCDEF" for c in key):
        return str(keyword_for_tag(int(key, 16)))
    return key


def _found(store: DicomStore, level: str, members: list[Any]) -> dict[str, Any]:
    from pydicom import Dataset

    path, header = members[0]
    found = Dataset()
    found.SpecificCharacterSet = "ISO_IR 192"
    for name in _FIELDS[level]:
        value = header.get(name)
        setattr(found, name, "" if value is None else value)
    if level != "instances":  # counts are of all that is kept, not only of what matches
        study = path.parent.parent.name
        if level == "studies":
            every = list(_headers(store, store.paths(study)))
            found.ModalitiesInStudy = sorted({text_value(each, "Modality", 16) for _, each in every})
            found.NumberOfStudyRelatedSeries = len({place.parent for place, _ in every})
            found.NumberOfStudyRelatedInstances = len(every)
        else:
            found.NumberOfSeriesRelatedInstances = len(store.paths(study, path.parent.name))
    result: dict[str, Any] = found.to_json_dict(suppress_invalid_tags=True)
    return result
