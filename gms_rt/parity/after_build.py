"""The certificate at the end of a build, which does not fail for want of something to certify with."""

from __future__ import annotations

from typing import Any

from gms_rt.artifacts import read_json
from gms_rt.engine.build import BuiltEngine
from gms_rt.engine.manifest import CERTIFICATE, GOLDEN
from gms_rt.errors import GmsError
from gms_rt.parity.certificate import certify


def certify_built(built: BuiltEngine) -> dict[str, Any]:
    """The certificate's verdict, summary and reasons; a verdict of None has a reason why there is none.

    An engine that was there already keeps its certificate.
    """
    if not (built.folder / GOLDEN).is_file():
        return {"verdict": None, "reason": "the graph came without reference masks"}
    if built.unchanged and (built.folder / CERTIFICATE).is_file():
        found = read_json(built.folder / CERTIFICATE)
    else:
        try:
            found = certify(built.folder)
        except GmsError as error:
            return {"verdict": None, "reason": error.line()}
    return {"verdict": found.get("verdict"), "summary": found.get("summary"), "reasons": found.get("reasons")}
