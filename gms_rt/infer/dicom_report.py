"""The measurements of a DICOM source as a structured report, template TID 1500 (needs highdicom).

For each class and image with a region: its area and the number of separate regions. For slices at equal steps: the
volume of each class. Lengths are used only where they are known in the patient: what an X-ray detector measures is not
corrected for magnification, and such areas are in pixels. A class that was found nowhere is reported with an area of 0.

The confidence of cases.csv is not in it: DICOM has no code for it that would not claim more than it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt.classes import SegmentClass
from gms_rt.infer.dicom_identity import object_arguments, processing_equipment, result_uid, uid_from_text
from gms_rt.infer.dicom_seg import code_from_class, frame_number, tracking_identity, write_object
from gms_rt.infer.dicom_source import DicomSource, Reference, named_for_highdicom, source_from_headers
from gms_rt.infer.result import SourceResult
from gms_rt.runtime.masks import measures_of_mask
from gms_rt.scan.dicom_spacing import functional_group, pixel_spacing

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_SAME_STEP = 0.01  # of the step between slices


@dataclass(frozen=True)
class _Report:
    """What groups of measurements are made from."""

    result: SourceResult
    source: DicomSource

    @property
    def segmented(self) -> bool:
        """Whether the run writes the Segmentation that measurements can refer to."""
        return bool(self.result.maker.options.get("dicom_seg"))


def write_dicom_report(path: Path, result: SourceResult) -> None:
    """Write the measurements of a DICOM file or series; an InputError says why it cannot be done."""
    write_object(path, "DICOM report", result, lambda: _document(result))


def slice_step(source: DicomSource) -> float | None:
    """The step between slices in millimetres where it is the same everywhere, else None."""
    if not source.regular or source.places is None or len(source.places) < 2:
        return None
    steps = np.diff(sorted(place.distance for place in source.places))
    step = float(steps.mean())
    return step if bool((abs(steps - step) <= _SAME_STEP * step).all()) else None


def _document(result: SourceResult) -> Any:
    import highdicom as hd
    from pydicom.uid import SecondaryCaptureImageStorage

    report = _Report(result, source_from_headers(result.headers, result.labels.shape))
    evidence = [named_for_highdicom(image) for image in report.source.images]
    for image in evidence:  # highdicom knows not every class; the true one is put in below
        image.SOPClassUID = SecondaryCaptureImageStorage
    arguments = object_arguments(result, report.source, "report")
    document = hd.sr.Comprehensive3DSR(
        evidence=[*evidence, _segmentation_evidence(report)] if report.segmented else evidence,
        content=_content(report),
        is_complete=True,
        is_final=False,
        is_verified=False,
        contributing_equipment=[processing_equipment(result.maker)],
        **arguments,
    )
    document.PatientName = report.source.images[0].PatientName
    classes = {ref.instance: ref.sop_class for ref in report.source.references}
    for evidence_kind in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in document.get(evidence_kind) or []:
            for series in study.ReferencedSeriesSequence:
                for item in series.ReferencedSOPSequence:
                    item.ReferencedSOPClassUID = classes.get(item.ReferencedSOPInstanceUID, item.ReferencedSOPClassUID)
    if result.maker.options.get("deidentify") and "DeidentificationMethodCodeSequence" in document:
        # Only codes and numbers are in the content, made from what was cleaned before.
        document.DeidentificationMethodCodeSequence.append(_clean_content_code())
    return document


def _clean_content_code() -> Any:
    from pydicom import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113104", "DCM"
    code.CodeMeaning = "Clean Structured Content Option"
    return code


def _segmentation_evidence(report: _Report) -> Any:
    image = named_for_highdicom(report.source.images[0])
    image.SOPClassUID, image.Modality = _SEGMENTATION, "SEG"
    image.SOPInstanceUID = result_uid(report.result, "segmentation")
    image.SeriesInstanceUID = object_arguments(report.result, report.source, "segmentation")["series_instance_uid"]
    return image


def _content(report: _Report) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    maker = report.result.maker
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=uid_from_text("gms-rt engine", maker.fingerprint),
            name=maker.name[:64],
            manufacturer_name="gms-rt",
            model_name=f"gms-rt {maker.version}, research use only, not for clinical use"[:64],
        ),
    )
    return hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=Code("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[
            group
            for number, segment in enumerate(report.result.classes, 1)
            for group in _groups_of_class(report, number, segment)
        ],
    )


def _groups_of_class(report: _Report, number: int, segment: SegmentClass) -> Iterator[Any]:
    masks = report.result.labels == number
    found = np.flatnonzero(masks.any(axis=(1, 2)))
    if not len(found):
        yield _group(report, number, segment, range(len(masks)), [_area(report, 0, 0)])
        return
    step = slice_step(report.source)
    if step is not None and report.source.places is not None:
        row, column = report.source.places[0].spacing
        millimetres = float(masks.sum(dtype=np.int64)) * row * column * step
        yield _group(report, number, segment, found, [_volume(millimetres)])
    for index in map(int, found):
        measured = measures_of_mask(masks[index].astype(np.uint8))
        measurements = [_area(report, index, measured.area), _regions(measured.regions)]
        yield _group(report, number, segment, [index], measurements)


def _group(
    report: _Report, number: int, segment: SegmentClass, frames: Sequence[int] | Any, measurements: list[Any]
) -> Any:
    """Measurements of a class in some frames: of the segment there, or of the images where none is written."""
    import highdicom as hd

    frames = [int(index) for index in frames]
    name, uid = tracking_identity(report.result, report.source, number)
    maker = report.result.maker
    common = {
        "tracking_identifier": hd.sr.TrackingIdentifier(uid=uid, identifier=name),
        "finding_type": code_from_class(segment.kind),
        "finding_category": code_from_class(segment.category),
        "finding_sites": [hd.sr.FindingSite(code_from_class(segment.anatomy))] if segment.anatomy else None,
        "algorithm_id": hd.sr.AlgorithmIdentification(maker.name[:64], f"{maker.version}+{maker.fingerprint[:12]}"),
        "measurements": measurements,
    }
    references = [report.source.references[index] for index in frames]
    if not report.segmented:
        images = [_image(hd.sr.SourceImageForMeasurementGroup, ref) for ref in references]
        return hd.sr.MeasurementsAndQualitativeEvaluations(source_images=images, **common)
    segmentation = result_uid(report.result, "segmentation")
    images = [_image(hd.sr.SourceImageForSegmentation, ref) for ref in references]
    if len(frames) > 1:
        several = hd.sr.ReferencedSegment(_SEGMENTATION, segmentation, number, source_images=images)
        return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=several, **common)
    at = frame_number(report.source, number, frames[0])
    planar = hd.sr.ReferencedSegmentationFrame(_SEGMENTATION, segmentation, at, number, images[0])
    # A frame holds one segment, and the standard allows a reference to name one of the two.
    del planar[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=planar, **common)


def _image(kind: Any, reference: Reference) -> Any:
    return kind(reference.sop_class, reference.instance, [reference.frame] if reference.frame else None)


def _area(report: _Report, index: int, pixels: int) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    headers = report.result.headers
    header, number = (headers[index], 1) if len(headers) > 1 else (headers[0], index + 1)
    spacing = pixel_spacing(header, number)
    measured = functional_group(header, number, "PixelMeasuresSequence") is not None or header.get("PixelSpacing")
    if spacing is None or (not measured and header.get("ImagerPixelSpacing")):
        return hd.sr.Measurement(codes.SCT.Area, pixels, Code("{pixels}", "UCUM", "pixels"))
    return hd.sr.Measurement(codes.SCT.Area, round(pixels * spacing[0] * spacing[1], 4), codes.UCUM.SquareMillimeter)


def _volume(millimetres: float) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return hd.sr.Measurement(codes.SCT.Volume, round(millimetres, 4), codes.UCUM.CubicMillimeter)


def _regions(count: int) -> Any:
    import highdicom as hd
    from pydicom.sr.coding import Code

    return hd.sr.Measurement(Code("246205007", "SCT", "Quantity"), count, Code("{regions}", "UCUM", "regions"))
