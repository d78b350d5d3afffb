"""Masks and probabilities as DICOM Segmentation objects that refer, frame by frame, to their source (needs highdicom).

highdicom makes the object. It wants parallel frames at different places, or one frame without a place: ultrasound,
captured video, series without a frame of reference and images over time are none of these. There the object is made
for the first frame and the others are added to it, each referring to its source, with its place only where it is known.

Every source frame has a frame for each segment, also where nothing was found: absence is a result too.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path
from gms_rt.classes import Code, SegmentClass
from gms_rt.colours import cielab_from_rgb
from gms_rt.errors import GmsError, InputError, MissingExtraError, line_from_error
from gms_rt.infer.deidentify import remove_dates
from gms_rt.infer.dicom_identity import (
    NOT_CLINICAL,
    algorithm_identification,
    object_arguments,
    processing_equipment,
    result_uid,
    uid_from_text,
)
from gms_rt.infer.dicom_source import DicomSource, FramePlace, named_for_highdicom, source_from_headers
from gms_rt.infer.dicom_values import LONG
from gms_rt.infer.result import SourceResult


@dataclass(frozen=True)
class _Content:
    """What an object holds: `pixels` are class numbers (segmentation) or 0-255 of the one class (probability)."""

    kind: str
    pixels: U8
    classes: Sequence[SegmentClass]

    @property
    def fractional(self) -> bool:
        """Whether pixels are probabilities."""
        return self.kind == "probability"

    def of_class(self, number: int) -> U8:
        """The pixels that are stored for a class."""
        return self.pixels if self.fractional else (self.pixels == number).astype(np.uint8)


def seg_available() -> bool:
    """Whether highdicom is installed."""
    return importlib.util.find_spec("highdicom") is not None


def write_seg(path: Path, result: SourceResult) -> None:
    """Write the masks of a DICOM file or series as a binary Segmentation, one segment for each class."""
    highest = int(result.labels.max(initial=0))
    if highest > len(result.classes):
        raise InputError(f"has masks with class {highest}, but only {len(result.classes)} classes are described")
    write_object(
        path,
        "DICOM SEG",
        result,
        lambda: _segmentation(result, _Content("segmentation", result.labels, result.classes)),
    )


def write_probability_seg(path: Path, result: SourceResult) -> None:
    """Write the probabilities (of the first class) as a fractional Segmentation, 255 meaning certain."""
    probabilities = result.probabilities
    if probabilities is None:
        raise InputError("has no probabilities to write")
    write_object(
        path,
        "DICOM SEG",
        result,
        lambda: _segmentation(result, _Content("probability", probabilities, result.classes[:1])),
    )


def write_object(path: Path, kind: str, result: SourceResult, make: Callable[[], Any]) -> None:
    """Write what `make` makes of a result as a DICOM file, whole or not at all; an InputError says why it cannot be."""
    if not seg_available():
        raise MissingExtraError(f"writing {kind}", "dicom-seg")
    try:
        dataset = make()
    except GmsError:
        raise
    except Exception as error:  # what a header lacks shows deep inside
        reason = line_from_error(error)[:300]
        raise InputError(f"has a header from which no {kind} can be made ({reason})") from error
    if result.maker.options.get("deidentify"):
        remove_dates(dataset)
    with atomic_path(path) as part:
        dataset.save_as(part, enforce_file_format=True)


def _segmentation(result: SourceResult, content: _Content) -> Any:
    import highdicom as hd
    from pydicom.uid import ExplicitVRLittleEndian

    source = source_from_headers(result.headers, content.pixels.shape)
    whole = source.regular or len(source.references) == 1
    pixels = content.pixels if whole else content.pixels[:1]
    form = hd.seg.SegmentationTypeValues.FRACTIONAL if content.fractional else hd.seg.SegmentationTypeValues.BINARY
    segmentation = hd.seg.Segmentation(
        source_images=_stand_ins(source),
        # highdicom counts a probability from 0 to 1 and rounds it to the same byte again.
        pixel_array=pixels.astype(np.float32) / np.float32(255) if content.fractional else pixels,
        segmentation_type=form,
        max_fractional_value=255,
        segment_descriptions=[
            _description(result, source, number, segment) for number, segment in enumerate(content.classes, 1)
        ],
        content_label="GMS_RT",
        content_description=NOT_CLINICAL,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=False,
        contributing_equipment=[processing_equipment(result.maker)],
        **object_arguments(result, source, content.kind),
    )
    if not whole:
        _add_frames(segmentation, source, content)
    segmentation.PatientName = source.images[0].PatientName
    _refer(segmentation, source)
    if "FrameOfReferenceUID" not in segmentation or "PlanePositionSequence" not in _first_frame(segmentation):
        segmentation.PatientOrientation = source.images[0].PatientOrientation
    _fix_dimension_organization(segmentation, result_uid(result, content.kind, "dimensions"))
    return segmentation


def tracking_identity(result: SourceResult, source: DicomSource, number: int) -> tuple[str, str]:
    """Name and identifier of a class's region in this source, the same in every object that holds it."""
    return f"{result.classes[number - 1].name[:48]} {result.digest[:8]}", uid_from_text(
        "gms-rt region", source.images[0].StudyInstanceUID, result.key, result.digest, number
    )


def frame_number(source: DicomSource, segment: int, index: int) -> int:
    """The number (from 1) of the frame that holds a segment (from 1) of a source frame (from 0)."""
    return (segment - 1) * len(source.references) + source.ranks[index] + 1


def code_from_class(code: Code) -> Any:
    """A code as highdicom takes it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning[:LONG])


def _description(result: SourceResult, source: DicomSource, number: int, segment: SegmentClass) -> Any:
    import highdicom as hd

    name, uid = tracking_identity(result, source, number)
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:LONG],
        segmented_property_category=code_from_class(segment.category),
        segmented_property_type=code_from_class(segment.kind),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm_identification(result.maker),
        tracking_id=name,
        tracking_uid=uid,
        anatomic_regions=[code_from_class(segment.anatomy)] if segment.anatomy else None,
    )
    described.RecommendedDisplayCIELabValue = list(cielab_from_rgb(segment.colour))
    for item, name, modifier in (
        (
            described.SegmentedPropertyTypeCodeSequence[0],
            "SegmentedPropertyTypeModifierCodeSequence",
            segment.kind_modifier,
        ),
        (
            described.get("AnatomicRegionSequence", [None])[0],
            "AnatomicRegionModifierSequence",
            segment.anatomy_modifier,
        ),
    ):
        if item is not None and modifier is not None:
            setattr(item, name, [code_from_class(modifier)])
    made = f", by {result.maker.name}. {NOT_CLINICAL}."
    # The standard counts characters, but checkers count bytes.
    text = (segment.description or segment.name).encode()[: 1024 - len(made.encode())]
    described.SegmentDescription = text.decode("utf-8", "ignore") + made
    return described


def _stand_ins(source: DicomSource) -> list[Any]:
    """The source's images as highdicom can use them: of a class that has just what is known."""
    from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, SecondaryCaptureImageStorage

    images = [named_for_highdicom(image) for image in source.images]
    if not source.regular or source.places is None:
        images[0].SOPClassUID = SecondaryCaptureImageStorage
        return images[:1]
    for image, place in zip(images, source.places, strict=False):
        image.FrameOfReferenceUID = source.frame_of_reference
        image.SOPClassUID = CTImageStorage
        image.ImagePositionPatient = _decimals(place.position)
        image.ImageOrientationPatient = _decimals(source.places[0].orientation)
        image.PixelSpacing = _decimals(source.places[0].spacing)
        image.SliceThickness = _decimals([source.places[0].thickness])[0]
    if len(source.places) > len(images):
        image = images[0]
        image.SOPClassUID, image.NumberOfFrames = EnhancedCTImageStorage, len(source.places)
        image.SharedFunctionalGroupsSequence = [_groups(source.places[0], ("orientation", "measures"))]
        image.PerFrameFunctionalGroupsSequence = [_groups(place, ("position",)) for place in source.places]
    return images


def _groups(place: FramePlace, which: Sequence[str]) -> Any:
    """Functional groups that say where a frame is."""
    import highdicom as hd
    from pydicom import Dataset

    patient = hd.CoordinateSystemNames.PATIENT
    item = Dataset()
    if "position" in which:
        item.PlanePositionSequence = hd.PlanePositionSequence(patient, place.position)
    if "orientation" in which:
        item.PlaneOrientationSequence = hd.PlaneOrientationSequence(patient, place.orientation)
    if "measures" in which:
        item.PixelMeasuresSequence = hd.PixelMeasuresSequence(place.spacing, place.thickness)
    return item


def _add_frames(segmentation: Any, source: DicomSource, content: _Content) -> None:
    """Turn the Segmentation of the first frame into that of all, indexed by a number that counts the frames."""
    from pydicom import Dataset
    from pydicom.datadict import tag_for_keyword
    from pydicom.pixels import pack_bits

    shared = segmentation.SharedFunctionalGroupsSequence[0]
    frames = []
    for segment, first in enumerate(list(segmentation.PerFrameFunctionalGroupsSequence), 1):
        for index in range(len(source.references)):
            item = copy.deepcopy(first)
            item.FrameContentSequence[0].FrameAcquisitionNumber = index + 1
            item.FrameContentSequence[0].DimensionIndexValues = [segment, index + 1]
            if source.places is not None:
                item.update(_groups(source.places[index], ("position", "orientation", "measures")))
            frames.append(item)
    if source.places is not None:
        segmentation.FrameOfReferenceUID, segmentation.PositionReferenceIndicator = source.frame_of_reference, None
        for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            if all(item[name] == frames[0][name] for item in frames):
                shared[name] = frames[0][name]
                for item in frames:
                    del item[name]
    segmentation.PerFrameFunctionalGroupsSequence = frames
    index = Dataset()
    index.DimensionOrganizationUID = segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID
    index.DimensionIndexPointer = tag_for_keyword("FrameAcquisitionNumber")
    index.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    index.DimensionDescriptionLabel = "Frame Acquisition Number"
    segmentation.DimensionIndexSequence.append(index)
    segmentation.NumberOfFrames = len(frames)
    if content.fractional:
        data = content.pixels.tobytes()
        segmentation.PixelData = data + b"\0" * (len(data) % 2)
    else:
        every = [content.of_class(number) for number in range(1, len(content.classes) + 1)]
        segmentation.PixelData = pack_bits(np.concatenate(every), pad=True)


def _refer(segmentation: Any, source: DicomSource) -> None:
    """Make every reference name the true source, and no frame number where the source has one frame only."""
    from pydicom import Dataset

    def reference(sop_class: str, instance: str) -> Any:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        return item

    classes = {ref.instance: ref.sop_class for ref in source.references}
    listed = [reference(sop_class, instance) for instance, sop_class in classes.items()]
    segmentation.SourceImageSequence = listed
    segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence = copy.deepcopy(listed)
    added = not source.regular
    for index, group in enumerate(segmentation.PerFrameFunctionalGroupsSequence):
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
        if added:
            ref = source.references[index % len(source.references)]
            item.ReferencedSOPInstanceUID = ref.instance
            item.ReferencedFrameNumber = ref.frame
        if source.references[0].frame is None and "ReferencedFrameNumber" in item:
            del item.ReferencedFrameNumber
        item.ReferencedSOPClassUID = classes[item.ReferencedSOPInstanceUID]


def _first_frame(segmentation: Any) -> Any:
    return segmentation.PerFrameFunctionalGroupsSequence[0]


def _fix_dimension_organization(segmentation: Any, uid: str) -> None:
    """Name the dimensions by an identifier that follows from the result, instead of a new one each time."""
    for item in [*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence]:
        item.DimensionOrganizationUID = uid


def _decimals(values: Sequence[Any]) -> list[Any]:
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(value), auto_format=True) for value in values]
