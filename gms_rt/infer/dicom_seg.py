"""Masks as a DICOM Segmentation object that refers, frame by frame, to the scan it was made from (needs highdicom).

highdicom makes the object. It wants geometry for several frames, which ultrasound and captured video do not have: there
the object is made for the first frame and the others are added to it, each referring to its source frame by number,
with no geometry invented.

Identifiers are derived from the source's and the engine's, so that the same scan and engine give the same object
identity every time.
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.artifacts import atomic_path
from gms_rt.errors import GmsError, InputError, MissingExtraError, line_from_error

# Type 2 attributes must be there and may be empty. Exports of simple devices leave them out.
_TYPE_2 = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
           "StudyID", "ReferringPhysicianName")  # fmt: skip


@dataclass(frozen=True)
class Algorithm:
    """Who made the mask: the engine's name and the hash of its manifest, the program's version, what is segmented."""

    name: str
    fingerprint: str
    version: str
    label: str = "Segmented region"


def seg_available() -> bool:
    """Whether highdicom is installed."""
    return importlib.util.find_spec("highdicom") is not None


def write_seg(path: Path, header: Any, masks: NDArray[Any], algorithm: Algorithm) -> None:
    """Write masks (frames × rows × columns, non-zero is foreground) of the scan with this header."""
    if not seg_available():
        raise MissingExtraError("writing DICOM SEG", "dicom-seg")
    if masks.shape[1:] != (header.Rows, header.Columns):
        raise InputError(f"masks of {masks.shape[1:]} do not fit a scan of {(header.Rows, header.Columns)}")
    try:
        dataset = _segmentation(header, masks, algorithm)
    except GmsError:
        raise
    except Exception as error:  # incomplete headers fail deep inside
        reason = line_from_error(error)[:300]
        raise InputError(f"has a header from which no DICOM SEG can be made ({reason})") from error
    with atomic_path(path) as part:
        dataset.save_as(part, enforce_file_format=True)


def _segmentation(header: Any, masks: NDArray[Any], algorithm: Algorithm) -> Any:
    import highdicom as hd
    from pydicom.uid import ExplicitVRLittleEndian

    source = _complete(header)
    flat = int(source.get("NumberOfFrames") or 1) > 1 and "FrameOfReferenceUID" not in source
    binary = (masks != 0).astype(np.uint8)
    result = hd.seg.Segmentation(
        source_images=[_as_single(source) if flat else source],
        pixel_array=binary[:1] if flat else binary,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(algorithm)],
        series_instance_uid=_uid("series", str(source.SeriesInstanceUID), algorithm.fingerprint),
        series_number=_series_number(source),
        sop_instance_uid=_uid("instance", str(source.SOPInstanceUID), algorithm.fingerprint),
        instance_number=int(source.get("InstanceNumber") or 1),
        manufacturer="gms-rt",
        manufacturer_model_name=algorithm.name[:64],
        software_versions=algorithm.version[:64],
        device_serial_number=algorithm.fingerprint[:16],
        content_label="GMS_RT",
        content_description="Not for clinical use",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        # Every source frame has its mask frame, also where nothing was found: absence is a result too.
        omit_empty_frames=False,
    )
    if flat:
        _add_frames(result, binary, source.SOPClassUID)
    return result


def _description(algorithm: Algorithm) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    # What the region is depends on what the model was trained for, so the codes claim no more than a region.
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=algorithm.label[:64],
        segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
        segmented_property_type=codes.DCM.SelectedRegion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name[:64],
            family=codes.cid7162.ArtificialIntelligence,
            version=f"{algorithm.version}+{algorithm.fingerprint[:12]}"[:64],
            source="gms-rt",
            parameters={"engine.json sha256": algorithm.fingerprint},
        ),
    )


def _as_single(source: Any) -> Any:
    """The source as if it were a single captured picture, which needs no geometry."""
    from pydicom.uid import SecondaryCaptureImageStorage

    single = copy.deepcopy(source)
    single.SOPClassUID = SecondaryCaptureImageStorage
    del single.NumberOfFrames
    return single


def _add_frames(result: Any, binary: NDArray[np.uint8], source_class: Any) -> None:
    """Turn the Segmentation of one frame into that of all, indexed by the source's frame number."""
    from pydicom import Dataset
    from pydicom.datadict import tag_for_keyword
    from pydicom.pixels import pack_bits

    for element in result.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = source_class
    first = result.PerFrameFunctionalGroupsSequence[0]
    frames = []
    for number in range(1, len(binary) + 1):
        item = copy.deepcopy(first)
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = number
        item.FrameContentSequence[0].FrameAcquisitionNumber = number
        item.FrameContentSequence[0].DimensionIndexValues = [1, number]
        frames.append(item)
    result.PerFrameFunctionalGroupsSequence = frames
    index = Dataset()
    index.DimensionOrganizationUID = result.DimensionOrganizationSequence[0].DimensionOrganizationUID
    index.DimensionIndexPointer = tag_for_keyword("FrameAcquisitionNumber")
    index.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    index.DimensionDescriptionLabel = "Frame Acquisition Number"
    result.DimensionIndexSequence.append(index)
    result.NumberOfFrames = len(binary)
    result.PixelData = pack_bits(binary, pad=True)


def _complete(header: Any) -> Any:
    source = copy.deepcopy(header)  # a shallow copy shares its elements with the caller's header
    for name in _TYPE_2:
        if name not in source:
            setattr(source, name, "" if name != "PatientName" else None)
    enhanced = "PerFrameFunctionalGroupsSequence" in source
    placed = "ImagePositionPatient" in source and "ImageOrientationPatient" in source and "PixelSpacing" in source
    several = int(source.get("NumberOfFrames") or 1) > 1
    if "FrameOfReferenceUID" in source and not enhanced and (several or not placed):
        del source.FrameOfReferenceUID  # without positions a frame of reference is useless
    return source


def _series_number(source: Any) -> int:
    # Next to the source's own number, in the range of an integer string.
    return min(int(source.get("SeriesNumber") or 0) * 100 + 99, 2**31 - 1)


def _uid(*parts: str) -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["gms-rt", *parts]))
