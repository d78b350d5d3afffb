"""What `/openapi.json` says of the interfaces that others have defined: KServe v2, MONAI Label, DICOMweb."""

from __future__ import annotations

import re
from typing import Any

_KSERVE = "https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol"
_MODEL = "/v2/models/{model}"
# Path, method, what it does.
_KSERVE_PATHS = (
    ("/v2", "get", "What server this is"),
    ("/v2/health/live", "get", "The process answers"),
    ("/v2/health/ready", "get", "The golden pictures have passed, and requests are taken"),
    ("/v2/models", "get", "The names of the models"),
    ("/v2/repository/index", "post", "The models as Triton lists its repository"),
    *(
        (place + path, method, what)
        for place in (_MODEL, _MODEL + "/versions/{version}")
        for path, method, what in (
            ("", "get", "A model's inputs and outputs"),
            ("/ready", "get", "Whether a model can be asked"),
            ("/config", "get", "A model's configuration, as Triton's clients ask for it"),
            ("/infer", "post", "Images in, masks out, as JSON or with binary data"),
        )
    ),
)
_MONAI_PATHS = (
    ("/info/", "get", "What the service is and can do"),
    ("/auth/", "get", "Whether a login is needed"),
    ("/auth/token", "post", "A login whose password is the token"),
    ("/auth/token/valid", "get", "Whether the token is right"),
    ("/infer/{model}", "post", "The label map of a file, a session or an image as NIfTI"),
    ("/session/", "put", "Hold files for a session"),
    ("/session/{name}", "get", "Whether a session is still held"),
    ("/session/{name}", "delete", "Forget a session"),
    ("/datastore/", "get", "What is held"),
    ("/datastore/", "put", "Hold an image under a name"),
    ("/datastore/", "delete", "Forget an image"),
    ("/datastore/image", "get", "An image that was uploaded"),
    ("/datastore/label", "get", "A label that was submitted"),
    ("/datastore/label", "put", "Submit the label of an image"),
)
_STUDIES = "/dicom-web/studies"
_SERIES = _STUDIES + "/{study}/series"
_INSTANCES = _SERIES + "/{series}/instances"
_DICOMWEB_PATHS = (
    *((path, "post", "STOW-RS: DICOM instances in, DICOM SEG out") for path in (_STUDIES, _STUDIES + "/{study}")),
    *(
        (path, "get", "QIDO-RS: search for kept results")
        for path in (_STUDIES, _SERIES, _INSTANCES, "/dicom-web/series", "/dicom-web/instances",
                     _STUDIES + "/{study}/instances")
    ),
    *(
        (path + end, "get", what)
        for path in (_STUDIES + "/{study}", _SERIES + "/{series}", _INSTANCES + "/{instance}")
        for end, what in (("", "WADO-RS: kept results"), ("/metadata", "WADO-RS: their attributes"))
    ),
)  # fmt: skip


def paths_of_others() -> dict[str, Any]:
    """The paths, each with its methods."""
    found: dict[str, Any] = {}
    for tag, paths in (("KServe v2", _KSERVE_PATHS), ("MONAI Label", _MONAI_PATHS), ("DICOMweb", _DICOMWEB_PATHS)):
        for path, method, what in paths:
            value: dict[str, Any] = {
                "summary": what,
                "tags": [tag],
                "responses": {"200": {"description": "OK"}, "default": {"description": "An error, told in one text"}},
            }
            if tag == "KServe v2":
                value["externalDocs"] = {"url": _KSERVE}
            names = re.findall(r"\{(\w+)\}", path)
            if names:
                value["parameters"] = [
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
                ]
            found.setdefault(path, {})[method] = value
    return found
