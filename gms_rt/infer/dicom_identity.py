"""How a DICOM result is named and who made it, the same for every kind of object (needs highdicom).

Identifiers follow from all that made the result: the source's content, the engine, what ran it, every option (the run's
key) and the kind of object. The same run gives the same object again; another threshold gives another object.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gms_rt.infer.dicom_source import DicomSource
from gms_rt.infer.dicom_values import LONG
from gms_rt.infer.result import Maker, SourceResult

NOT_CLINICAL = "Research use only, not for clinical use"
_SERIES = {"segmentation": 99, "probability": 98, "report": 97}  # after the source's own number


def result_uid(result: SourceResult, kind: str, *parts: object) -> str:
    """The identifier of something in a result: of the object where no more parts are given."""
    return uid_from_text(f"gms-rt {kind}", result.key, result.maker.fingerprint, result.digest, *parts)


def uid_from_text(*parts: object) -> str:
    """A valid identifier that follows from texts."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=[f"{len(str(part))} {part}\0" for part in parts]))


def object_arguments(result: SourceResult, source: DicomSource, kind: str) -> dict[str, Any]:
    """What the constructors of highdicom take for every kind of object: series, instance, equipment, dates."""
    image = source.images[0]
    now = datetime.now().replace(microsecond=0)
    return {
        "series_instance_uid": uid_from_text(
            f"gms-rt {kind}", image.StudyInstanceUID, image.SeriesInstanceUID, result.key, result.maker.fingerprint
        ),
        "series_number": min(max(image.SeriesNumber, 0) * 100 + _SERIES[kind], 2**31 - 1),
        "series_description": f"{result.maker.name[:24]} {kind}: {NOT_CLINICAL.lower()}"[:LONG],
        "sop_instance_uid": result_uid(result, kind),
        "instance_number": image.InstanceNumber if len(source.images) == 1 else 1,
        "manufacturer": "gms-rt",
        "manufacturer_model_name": result.maker.name[:LONG],
        "software_versions": result.maker.version[:LONG],
        "device_serial_number": result.maker.fingerprint[:16],
        "content_date": now.date(),
        "content_time": now.time(),
        "series_date": now.date(),
        "series_time": now.time(),
        "content_qualification": "RESEARCH",
    }


def processing_equipment(maker: Maker) -> Any:
    """The item of Contributing Equipment that says what made the result, with which proof, and what it is not for."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    proof = f"certificate (parity.json) sha256 {maker.certificate}" if maker.certificate else "no certificate"
    text = f"{NOT_CLINICAL}. Engine {maker.name}, engine.json sha256 {maker.fingerprint}, {proof}."
    return hd.ContributingEquipment(
        manufacturer="gms-rt",
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=maker.name[:LONG],
        software_versions=maker.version[:LONG],
        contribution_description=text[:1024],
    )


def algorithm_identification(maker: Maker) -> Any:
    """The algorithm as segments and measurements name it."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    parameters = {"engine.json sha256": maker.fingerprint}
    if maker.certificate:
        parameters["parity.json sha256"] = maker.certificate
    parameters |= {name: str(value) for name, value in maker.options.items()}
    return hd.AlgorithmIdentificationSequence(
        name=maker.name[:LONG],
        family=codes.cid7162.ArtificialIntelligence,
        version=f"{maker.version}+{maker.fingerprint[:12]}"[:LONG],
        source="gms-rt",
        parameters=parameters,
    )
