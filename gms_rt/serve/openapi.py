"""`/openapi.json`: what the service answers, for people and programs that read OpenAPI."""

from __future__ import annotations

from typing import Any

from gms_rt import __version__
from gms_rt.serve.answer import FORMATS, GEOJSON, JSON, NIFTI, PNG, SEG, ZIP_KIND
from gms_rt.serve.openapi_paths import paths_of_others
from gms_rt.serve.service import Service

_WHAT = {
    JSON: "Measurements, confidence, contours and masks of all images.",
    PNG: "The mask of the one image that was sent: 0 and 255, at its size.",
    SEG: "The masks of the one DICOM file or series that was sent as DICOM Segmentation.",
    NIFTI: "The masks of the one volume that was sent, with its affine.",
    GEOJSON: "The outlines of the one image's mask.",
    ZIP_KIND: "All files as gms-rt infer writes them.",
}
_ERRORS = {
    "400": "The request is wrong.",
    "401": "There is no right token.",
    "403": "The Host or Origin may not ask.",
    "406": "There is no answer in a format that Accept allows.",
    "408": "The body comes too slowly.",
    "413": "The body, an image or their number is too large.",
    "415": "The body is not a scan that is read.",
    "422": "The scan cannot be segmented.",
    "429": "The service is busy; Retry-After says when to come back.",
    "503": "The service is not ready, or it is ending.",
    "504": "The deadline was over before the answer was there.",
    "507": "The disk of the service is full.",
}

# What a client has to know before it sends: what is over is refused.
_LIMITS = ("max_bytes", "max_files", "max_frames", "max_pixels", "timeout")


def openapi_document(service: Service) -> dict[str, Any]:
    """The description of this service, with its models and limits."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    errors = {
        status: {"description": text, "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
        for status, text in _ERRORS.items()
    }
    limits = service.limits
    segment = {
        "summary": "Segment a picture, DICOM, NIfTI, a zip of them, or the files of a form",
        "description": f"At most {limits.max_bytes} bytes, {limits.max_pixels} pixels per image, {limits.max_frames} "
        f"images; answered within {limits.timeout:g} s. Not for clinical use.",
        "parameters": [
            _query("model", {"type": "string", "enum": list(service.models)}, "The engine; the first one if left out."),
            _query("masks", {"type": "boolean", "default": True}, "JSON only: each mask as PNG in base64."),
            _query("contours", {"type": "boolean", "default": True}, "JSON only: each mask as GeoJSON."),
            _query("images", {"type": "boolean", "default": False}, "JSON only: each image as JPEG in base64."),
            {
                "name": "X-Request-Timeout",
                "in": "header",
                "schema": {"type": "number"},
                "description": "Seconds after which nobody waits any more.",
            },
        ],
        "x-limits": {name: getattr(limits, name) for name in _LIMITS},
        "requestBody": {
            "required": True,
            "content": dict.fromkeys(("image/png", "image/jpeg", SEG, NIFTI, ZIP_KIND, "*/*"), binary)
            | {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    }
                }
            },
        },
        "responses": {
            "200": {
                "description": " ".join(f"{kind}: {_WHAT[kind]}" for kind in FORMATS),
                "content": {kind: binary for kind in FORMATS if kind != JSON}
                | {JSON: {"schema": {"$ref": "#/components/schemas/Answer"}}},
            }
        }
        | errors,
    }
    plain = {"responses": {"200": {"description": "OK"}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "gms-rt serve",
            "version": __version__,
            "description": "Segmentation of medical images. Not for clinical use.",
        },
        "paths": {
            "/v1/segment": {"post": segment},
            "/metrics": {"get": {"summary": "Figures for Prometheus", **plain}},
        }
        | paths_of_others(),
        "components": {
            "schemas": {"Error": _ERROR, "Answer": _ANSWER},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _query(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": text}


def _nullable(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["status", "reason", "what"],
            "properties": {
                "status": {"type": "integer"},
                "reason": {"type": "string"},
                "what": {"type": "string"},
                "where": _nullable("string"),
                "fix": _nullable("string"),
            },
        }
    },
}
_FRAME = {
    "type": "object",
    "required": ["case", "frame", "status", "error"],
    "properties": {
        "case": {"type": "string"},
        "frame": _nullable("integer"),
        "status": {"enum": ["ok", "empty", "failed"]},
        "error": _nullable("string"),
        "width": {"type": "integer"},
        "height": {"type": "integer"},
        "area_px": {"type": "integer"},
        "area_mm2": _nullable("number"),
        "components": {"type": "integer"},
        "centroid_x": {"type": "number"},
        "centroid_y": {"type": "number"},
        "bbox": {"type": "array", "items": {"type": "integer"}},
        "spacing": {"type": ["array", "null"], "items": {"type": "number"}},
        "confidence": {"type": "number"},
        "mask_png": _nullable("string"),
        "image_jpeg": _nullable("string"),
        "contours": _nullable("object"),
    },
}
_ANSWER = {
    "type": "object",
    "required": ["format", "version", "notes", "engine", "threshold", "skipped", "milliseconds", "sources"],
    "properties": {
        "format": {"const": "gms-rt-segment"},
        "version": {"const": 1},
        "notes": {"type": "array", "items": {"type": "string"}},
        "engine": {"type": "object"},
        "threshold": {"type": "number"},
        "skipped": {"type": "integer"},
        "milliseconds": {"type": "object", "additionalProperties": {"type": "number"}},
        "sources": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "kind", "sha256", "status", "error", "series", "frames"],
                "properties": {
                    "name": {"type": "string"},
                    "kind": {"enum": ["picture", "dicom", "nifti", None]},
                    "sha256": _nullable("string"),
                    "status": {"enum": ["ok", "empty", "failed", "skipped"]},
                    "error": _nullable("string"),
                    "series": _nullable("object"),
                    "frames": {"type": "array", "items": _FRAME},
                },
            },
        },
    },
}
