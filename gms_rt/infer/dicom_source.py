"""What a DICOM result takes over from the images it was made from: patient and study, references, places of frames.

Headers as devices write them leave out what the standard asks for, hold dates of older standards or text in any
character set. Results are made from a cleaned copy, in UTF-8: what is valid is taken over, what is not is left empty,
and nothing is made up. Without an identity (study, series, instance) there is nothing to refer to: an InputError.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gms_rt.errors import InputError
from gms_rt.infer.dicom_values import (
    LONG,
    SHORT,
    choice_value,
    date_value,
    person_value,
    text_value,
    time_value,
    whole_number,
)
from gms_rt.scan.dicom_spacing import functional_group

UTF_8 = "ISO_IR 192"
_TEXTS = {"PatientID": LONG, "AccessionNumber": SHORT, "StudyID": SHORT}  # type 2: there, and may be empty
_MORE_TEXTS = {"IssuerOfPatientID": LONG, "StudyDescription": LONG, "Manufacturer": LONG,
               "ManufacturerModelName": LONG}  # fmt: skip
_TRIAL = ("ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName")
# Classes whose images have one frame: no valid object can refer to a second frame of them.
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SINGLE = {_STORAGE + tail: name for tail, name in (
    ("1", "Computed Radiography"), ("1.1", "Digital X-Ray"), ("1.1.1", "Digital X-Ray"), ("1.2", "Mammography"),
    ("1.2.1", "Mammography"), ("1.3", "Intra-Oral X-Ray"), ("1.3.1", "Intra-Oral X-Ray"), ("2", "CT"), ("4", "MR"),
    ("6.1", "Ultrasound"), ("7", "Secondary Capture"), ("128", "PET"), ("77.1.1", "VL Endoscopic"),
    ("77.1.2", "VL Microscopic"), ("77.1.3", "VL Slide-Coordinates Microscopic"), ("77.1.4", "VL Photographic"),
)}  # fmt: skip
_NEAR = 1e-3  # millimetres, and the error allowed in direction cosines


@dataclass(frozen=True)
class FramePlace:
    """Where a frame lies in its frame of reference, in millimetres."""

    position: tuple[float, ...]  # of the first pixel's centre
    orientation: tuple[float, ...]  # direction cosines of the rows and of the columns
    spacing: tuple[float, ...]  # between rows, between columns
    thickness: float | None

    @property
    def distance(self) -> float:
        """How far along the normal of its plane."""
        return float(np.cross(self.orientation[:3], self.orientation[3:]) @ np.array(self.position))


@dataclass(frozen=True)
class Reference:
    """The image, or one frame of it, that a frame of the result was made from."""

    sop_class: str
    instance: str
    frame: int | None  # None where the instance has one frame


@dataclass(frozen=True)
class DicomSource:
    """The cleaned source of a result: `images` hold patient, study and series, one for each instance."""

    images: Sequence[Any]
    references: Sequence[Reference]  # one for each frame
    places: Sequence[FramePlace] | None  # one for each frame; None where one is not known
    frame_of_reference: str | None  # None without places

    @cached_property
    def regular(self) -> bool:
        """Whether all frames are parallel, equally sampled and at different distances, as slices are."""
        if self.places is None:
            return False
        first = self.places[0]
        same = all(
            np.allclose(place.orientation, first.orientation, atol=_NEAR)
            and np.allclose(place.spacing, first.spacing, rtol=_NEAR)
            for place in self.places
        )
        return same and bool((np.diff(sorted(place.distance for place in self.places)) > _NEAR).all())

    @cached_property
    def ranks(self) -> Sequence[int]:
        """For each source frame its place (from 0) among the frames of a segment in an object."""
        order = list(range(len(self.references)))
        if self.regular and self.places is not None:
            heights = [-place.distance for place in self.places]  # highdicom sorts against this normal
            order.sort(key=lambda at: heights[at])
        ranks = [0] * len(order)
        for rank, index in enumerate(order):
            ranks[index] = rank
        return ranks


def source_from_headers(headers: Sequence[Any], shape: tuple[int, ...]) -> DicomSource:
    """The source with these headers: one, or one for each frame of a series; `shape` is frames × rows × columns."""
    count = shape[0]
    if not headers:
        raise InputError("has no DICOM header to refer to")
    if len(headers) not in (1, count):
        raise InputError(f"has {len(headers)} images for masks of {count} frames")
    for header in headers:
        if shape[1:] != (header.get("Rows"), header.get("Columns")):
            raise InputError(
                f"masks of {shape[1:]} do not fit an image of {(header.get('Rows'), header.get('Columns'))}"
            )
    if len(headers) == 1 and _count(headers[0]) != count:
        raise InputError(f"has {_count(headers[0])} frames, but there are masks of {count}")
    images = [image_from_header(header) for header in headers]
    if len(headers) == 1 and count > 1 and images[0].SOPClassUID in _SINGLE:
        raise InputError(f"says that it is a single {_SINGLE[images[0].SOPClassUID]} image, but has {count} frames")
    for name, several in (("PatientID", "patients"), ("StudyInstanceUID", "studies"), ("SeriesInstanceUID", "series")):
        if len({str(image.get(name)) for image in images}) > 1:
            raise InputError(f"has images of several {several}")
    if len({image.SOPInstanceUID for image in images}) < len(images):
        raise InputError("has images with the same SOPInstanceUID, so nothing can tell which is meant")
    frames = [(header, 1) for header in headers] if len(headers) > 1 else [(headers[0], n + 1) for n in range(count)]
    references = [
        Reference(_uid(header, "SOPClassUID"), _uid(header, "SOPInstanceUID"), number if _count(header) > 1 else None)
        for header, number in frames
    ]
    spaces = {_frame_of_reference(header) for header in headers}
    places = _places(frames) if None not in spaces and len(spaces) == 1 else None
    return DicomSource(images, references, places, spaces.pop() if places else None)


def image_from_header(header: Any) -> Any:
    """Patient, study, series and identity of an image as a new dataset of valid values only."""
    from pydicom import Dataset

    image = Dataset()
    image.SpecificCharacterSet = UTF_8
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"):
        setattr(image, name, _uid(header, name))
    for name, longest in _TEXTS.items():
        setattr(image, name, text_value(header, name, longest))
    for name, longest in _MORE_TEXTS.items():
        if text_value(header, name, longest):
            setattr(image, name, text_value(header, name, longest))
    for name in ("PatientName", "ReferringPhysicianName"):
        setattr(image, name, person_value(header, name))
    image.PatientSex = choice_value(header, "PatientSex", ("M", "F", "O"))
    image.PatientBirthDate = date_value(header, "PatientBirthDate")
    image.StudyDate, image.StudyTime = date_value(header, "StudyDate"), time_value(header, "StudyTime")
    age = text_value(header, "PatientAge", 4)
    if re.fullmatch(r"\d{3}[DWMY]", age):
        image.PatientAge = age
    _copy_deidentification(header, image)
    _copy_trial(header, image)
    image.Rows, image.Columns = int(header.Rows), int(header.Columns)
    image.Modality = text_value(header, "Modality", SHORT) or "OT"
    image.SeriesNumber = whole_number(header, "SeriesNumber")
    image.InstanceNumber = max(1, whole_number(header, "InstanceNumber"))
    directions = header.get("PatientOrientation")
    known = directions is not None and not isinstance(directions, str) and len(directions) == 2
    image.PatientOrientation = [str(d) for d in directions] if known and all(map(_direction, directions)) else None
    _copy_lossy(header, image)
    return image


def named_for_highdicom(image: Any) -> Any:
    """A copy whose name has two components, as highdicom wants them; the result gets the name as it is."""
    copied = copy.deepcopy(image)  # a shallow copy shares its elements
    if copied.PatientName and "^" not in str(copied.PatientName):
        copied.PatientName = f"{copied.PatientName}^"
    return copied


def _uid(header: Any, name: str) -> str:
    uid = text_value(header, name, 65)
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid) or len(uid) > 64:
        raise InputError(f"has no valid {name}, so nothing can refer to it" if uid else f"has no {name}")
    return uid


def _frame_of_reference(header: Any) -> str | None:
    uid = text_value(header, "FrameOfReferenceUID", 65)
    return uid if re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid) and len(uid) <= 64 else None


def _count(header: Any) -> int:
    return max(1, whole_number(header, "NumberOfFrames"))


def _direction(value: Any) -> bool:
    return re.fullmatch(r"[ARPLHF]{1,3}", str(value)) is not None


def _copy_deidentification(header: Any, image: Any) -> None:
    removed = choice_value(header, "PatientIdentityRemoved", ("YES", "NO"))
    if not removed:
        return
    image.PatientIdentityRemoved = removed
    if removed == "YES":
        codes = header.get("DeidentificationMethodCodeSequence") or []
        said = [text_value(code, "CodeMeaning", LONG) for code in codes]
        method = text_value(header, "DeidentificationMethod", LONG)
        image.DeidentificationMethod = method or [text for text in said if text] or "not stated by the source"
        kept = [_code(code) for code in codes]
        if kept and all(kept):
            image.DeidentificationMethodCodeSequence = kept
    dates = choice_value(header, "LongitudinalTemporalInformationModified", ("UNMODIFIED", "MODIFIED", "REMOVED"))
    if dates:
        image.LongitudinalTemporalInformationModified = dates


def _code(code: Any) -> Any:
    from pydicom import Dataset

    clean = Dataset()
    for name, longest in (("CodeValue", SHORT), ("CodingSchemeDesignator", SHORT), ("CodeMeaning", LONG)):
        if not text_value(code, name, longest):
            return None
        setattr(clean, name, text_value(code, name, longest))
    return clean


def _copy_trial(header: Any, image: Any) -> None:
    subject = {n: text_value(header, n, LONG) for n in ("ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID")}
    sponsor = text_value(header, "ClinicalTrialSponsorName", LONG)
    if not sponsor or not text_value(header, _TRIAL[0], LONG) or not any(subject.values()):
        return
    image.ClinicalTrialSponsorName = sponsor
    for name in _TRIAL:
        setattr(image, name, text_value(header, name, LONG))
    for name, text in subject.items():
        if text:
            setattr(image, name, text)


def _copy_lossy(header: Any, image: Any) -> None:
    image.LossyImageCompression = "01" if choice_value(header, "LossyImageCompression", ("00", "01")) == "01" else "00"
    if image.LossyImageCompression == "01":
        ratios = [float(r) for r in _numbers(header.get("LossyImageCompressionRatio")) if r > 0]
        method = choice_value(header, "LossyImageCompressionMethod", ("ISO_10918_1", "ISO_14495_1", "ISO_15444_1",
                                                                 "ISO_13818_2", "ISO_14496_10"))  # fmt: skip
        if len(ratios) == 1 and method:
            image.LossyImageCompressionRatio, image.LossyImageCompressionMethod = f"{ratios[0]:.6g}", method


def _places(frames: Sequence[tuple[Any, int]]) -> list[FramePlace] | None:
    found = [_place(header, number) for header, number in frames]
    places = [place for place in found if place is not None]
    if len(places) < len(found):
        return None
    thickness = next((place.thickness for place in places if place.thickness), None)
    if thickness is None:
        # Readers want one. Between slices it is at least the step; a single one says nothing.
        steps = np.diff(sorted({round(place.distance, 3) for place in places}))
        if not len(steps):
            return None
        thickness = float(np.median(steps))
    return [FramePlace(p.position, p.orientation, p.spacing, p.thickness or thickness) for p in places]


def _place(header: Any, number: int) -> FramePlace | None:
    own = header if _count(header) == 1 else None  # of many frames, only the functional groups say where each is
    position = _value(header, own, number, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = _value(header, own, number, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _value(header, own, number, "PixelMeasuresSequence", "PixelSpacing", 2)
    thickness = _value(header, own, number, "PixelMeasuresSequence", "SliceThickness", 1)
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        return None
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = (np.linalg.norm(rows), np.linalg.norm(columns))
    if not np.allclose(lengths, 1, atol=0.01) or abs(rows @ columns) > 0.01:
        return None
    return FramePlace(position, orientation, spacing, thickness[0] if thickness and thickness[0] > 0 else None)


def _value(header: Any, own: Any, number: int, group: str, name: str, length: int) -> tuple[float, ...] | None:
    for holder in (functional_group(header, number, group), own):
        values = _numbers(holder.get(name)) if holder is not None else ()
        if len(values) == length:
            return values
    return None


def _numbers(value: Any) -> tuple[float, ...]:
    try:
        values = () if value is None else (value,) if isinstance(value, (str, int, float)) else tuple(value)
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
