"""The results of a request as one body: JSON, PNG, DICOM SEG, NIfTI, GeoJSON, or a zip of all files.

The JSON format is in `docs/serve.md`; its version grows when a key changes its meaning.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gms_rt.errors import GmsError, InputError
from gms_rt.infer.measure import CaseRow
from gms_rt.infer.options import InferOptions
from gms_rt.infer.summary import NOT_CLINICAL
from gms_rt.serve.model import ServedModel
from gms_rt.serve.refusals import NotAcceptableError
from gms_rt.serve.segment import SegmentedSource, Spent

FORMAT, VERSION = "gms-rt-segment", 1
JSON, PNG, SEG = "application/json", "image/png", "application/dicom"
NIFTI, GEOJSON, ZIP_KIND = "application/x-nifti", "application/geo+json", "application/zip"
FORMATS = (JSON, PNG, SEG, NIFTI, GEOJSON, ZIP_KIND)
_NUMBERS = ("bbox", "spacing")  # several numbers in one cell of cases.csv, a list here
_LEFT_OUT = ("series", "source", "refer", "seg", "seconds")  # of cases.csv: told in another place, or of its own files


@dataclass(frozen=True)
class AnswerParts:
    """What a JSON answer has besides numbers."""

    masks: bool = True  # each mask as PNG, base64
    contours: bool = True  # each mask as GeoJSON
    images: bool = False  # each image as it was seen, JPEG, base64


@dataclass(frozen=True)
class Rendered:
    """A body and what its head says."""

    body: bytes
    kind: str
    filename: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def options_for(kind: str, options: InferOptions, parts: AnswerParts) -> InferOptions:
    """The options that make the files which an answer of this kind needs, and no others."""
    if kind == ZIP_KIND:
        return options
    return dataclasses.replace(
        options,
        overlays=False,
        contours=kind == GEOJSON or (kind == JSON and parts.contours),
        dicom_seg=kind == SEG,
        nifti=kind == NIFTI,
        slices=kind in (JSON, PNG, GEOJSON),
    )


def render_answer(
    kind: str, found: Sequence[SegmentedSource], model: ServedModel, spent: Spent, parts: AnswerParts, skipped: int = 0
) -> Rendered:
    """The body of this kind. A request of which nothing could be segmented raises the reason."""
    if all(each.error is not None for each in found):
        error = found[0].error
        assert error is not None
        if len(found) > 1:
            raise type(error)(f"none of {len(found)} could be segmented; the first {error.what}", fix=error.fix)
        raise type(error)(error.what, where="body", fix=error.fix)
    body = _RENDERERS[kind](_Answer(found, model, spent, parts, skipped))
    identity = {"X-Engine-SHA256": model.fingerprint, "X-Not-For-Clinical-Use": "1"}
    if model.certificate:
        identity["X-Certificate-SHA256"] = model.certificate
    return dataclasses.replace(body, headers=identity)


@dataclass(frozen=True)
class _Answer:
    found: Sequence[SegmentedSource]
    model: ServedModel
    spent: Spent
    parts: AnswerParts
    skipped: int


def _json(answer: _Answer) -> Rendered:
    head = {
        "format": FORMAT,
        "version": VERSION,
        "notes": [NOT_CLINICAL, *filter(None, [answer.model.notice])],
        "engine": answer.model.identity,
        "threshold": answer.model.options.threshold,
        "skipped": answer.skipped,
        "milliseconds": {name: round(1e3 * value, 3) for name, value in dataclasses.asdict(answer.spent).items()},
    }
    sources = b", ".join(_source(each, answer.parts) for each in answer.found)
    return Rendered(_joined(head, "sources", b"[" + sources + b"]") + b"\n", JSON)


def _source(each: SegmentedSource, parts: AnswerParts) -> bytes:
    frames = [row for row in each.rows if "width" in row or row.get("frame") is not None]
    told = [row for row in each.rows if row not in frames]
    statuses = {row["status"] for row in each.rows}
    value = {
        "name": each.source.name,
        "kind": each.kind,
        "sha256": each.digest or None,
        "status": next((s for s in ("failed", "skipped", "ok", "empty") if s in statuses), "empty"),
        "error": next((row["error"] for row in told if row.get("error")), None),
        "series": next((_all_told(row["series"]) for row in each.rows if row.get("series")), None),
    }
    return _joined(value, "frames", b"[" + b", ".join(_frame(each, row, parts) for row in frames) + b"]")


def _frame(each: SegmentedSource, row: CaseRow, parts: AnswerParts) -> bytes:
    value = _all_told({key: cell for key, cell in row.items() if key not in _LEFT_OUT})
    for key in _NUMBERS:
        if value.get(key):
            value[key] = [_number(text) for text in value[key].split()]
    value["error"] = row.get("error")
    mask = each.files.get(f"masks/{row['case']}.png")
    if parts.masks:
        value["mask_png"] = None if mask is None else base64.b64encode(mask).decode()
    if parts.images:
        image = each.images.get(row.get("frame") or 1)
        value["image_jpeg"] = None if image is None else base64.b64encode(image).decode()
    if not parts.contours:
        return _dump(value)
    return _joined(value, "contours", each.files.get(f"contours/{row['case']}.json", b"null").strip())


def _all_told(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON can say it: a figure that a scan's own header made infinite is not known."""
    return {key: None if isinstance(cell, float) and not math.isfinite(cell) else cell for key, cell in row.items()}


def _number(text: str) -> float | int:
    return int(text) if text.lstrip("-").isdecimal() else float(text)


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _joined(value: dict[str, Any], key: str, text: bytes) -> bytes:
    """An object as JSON with one more key, whose value is JSON already."""
    return _dump(value)[:-1] + b', "' + key.encode() + b'": ' + text + b"}"


def _png(answer: _Answer) -> Rendered:
    return Rendered(_only(answer, "masks/", ".png", "mask as PNG"), PNG)


def _geojson(answer: _Answer) -> Rendered:
    return Rendered(_only(answer, "contours/", ".json", "contour as GeoJSON"), GEOJSON)


def _seg(answer: _Answer) -> Rendered:
    return Rendered(_only(answer, "dicom/", ".dcm", "DICOM SEG"), SEG, "mask.dcm")


def _nifti(answer: _Answer) -> Rendered:
    return Rendered(_only(answer, "nifti/", "_dseg.nii.gz", "NIfTI mask"), NIFTI, "mask_dseg.nii.gz")


def _only(answer: _Answer, start: str, end: str, what: str) -> bytes:
    """The one file of a kind; what there is several of, or none, needs another format."""
    files = [
        data
        for each in answer.found
        for name, data in each.files.items()
        if name.startswith(start) and name.endswith(end)
    ]
    rows = [row for each in answer.found for row in each.rows]
    failed = next((row["error"] for row in rows if row["status"] == "failed"), None)
    if len(files) == 1 and failed is None:  # one of several would look like all that was sent
        return files[0]
    if len(files) <= 1:
        reason = failed or next((str(row[key]) for row in rows for key in ("seg", "note") if row.get(key)), None)
        if reason:
            raise InputError(f"has no {what}: {reason.removeprefix(f'no {what}: ')}", where="body")
    raise NotAcceptableError(
        f"has {len(files)} answers of the kind {what}", where="body", fix=f"ask for {JSON} or {ZIP_KIND}"
    )


def _zip(answer: _Answer) -> Rendered:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for each in answer.found:
            for name, data in sorted(each.files.items()):
                stored = name.endswith((".png", ".jpg", ".gz"))
                archive.writestr(name, data, zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
        bare = dataclasses.replace(answer, parts=AnswerParts(masks=False, contours=False))
        archive.writestr("answer.json", _json(bare).body, zipfile.ZIP_DEFLATED)
    return Rendered(stream.getvalue(), ZIP_KIND, "masks.zip")


_RENDERERS: dict[str, Callable[[_Answer], Rendered]] = {
    JSON: _json,
    PNG: _png,
    SEG: _seg,
    NIFTI: _nifti,
    GEOJSON: _geojson,
    ZIP_KIND: _zip,
}


def error_value(error: BaseException, status: int, reason: str) -> dict[str, Any]:
    """An error as answers have it: what, where and how to fix it, nothing of the program's inside."""
    if isinstance(error, GmsError) and status != 500:
        told: dict[str, Any] = {"what": error.what, "where": error.where, "fix": error.fix}
    else:
        told = {"what": "the service failed", "where": None, "fix": "see its log"}
    return {"error": {"status": status, "reason": reason, **told}}
