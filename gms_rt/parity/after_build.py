"""The certificate at the end of a build, which does not fail for want of something to certify with.

It is about the graph's reference pictures where they are of the model's own domain and were not used up. Else it is
about the gate's pictures, against the masks of the FP32 graph, and says so; these pictures are not stored. Drawn
pictures carry no verdict, except for the bundled model, which is for them.
"""

from __future__ import annotations

from typing import Any

from gms_rt.artifacts import read_json, sha256_bytes, write_json
from gms_rt.engine.build import BuiltEngine
from gms_rt.engine.golden import Golden, read_golden
from gms_rt.engine.manifest import CERTIFICATE, GOLDEN
from gms_rt.engine.select import load
from gms_rt.errors import GmsError
from gms_rt.parity.certificate import SYNTHETIC, carries_verdict, certificate_from_engine, certify
from gms_rt.precision.fp32_masks import SHARED
from gms_rt.precision.gate import Gate
from gms_rt.precision.images import ImageSet


def certify_built(built: BuiltEngine) -> dict[str, Any]:
    """The certificate's verdict, summary, reasons and what was compared; a verdict of None has a reason for that.

    An engine that was there already keeps its certificate. What must be kept is what the build's own gate asked for.
    """
    gate = Gate(built.gate.mean, built.gate.minimum)
    path = built.folder / CERTIFICATE
    try:
        if built.unchanged and path.is_file():
            found = read_json(path)
        elif (built.folder / GOLDEN).is_file() and carries_verdict(built.manifest, read_golden(built.folder / GOLDEN)):
            found = certify(built.folder, gate=gate)
        elif built.source is not None and built.gate_images is not None and not built.gate_images.synthetic:
            found = _on_gate_images(built, built.gate_images, gate)
            write_json(path, found)
        else:
            there = (built.folder / GOLDEN).is_file()
            return {"verdict": None, "reason": SYNTHETIC if there else "the graph came without reference masks"}
    except GmsError as error:
        return {"verdict": None, "reason": error.line()}
    return {
        "verdict": found.get("verdict"),
        "summary": found.get("summary"),
        "reasons": found.get("reasons"),
        "reference": found.get("reference"),
    }


def _on_gate_images(built: BuiltEngine, images: ImageSet, gate: Gate) -> dict[str, Any]:
    source = built.source
    assert source is not None
    masks = SHARED.of(source.graph, source.sha256, images)
    names = tuple(f"gate picture {number + 1}" for number in range(len(masks)))  # a file's name can be a patient's
    origin = f"the FP32 graph (OpenVINO, f32) on the build's {len(masks)} gate pictures ({images.source})"
    gate_found = built.manifest.gate or {}
    if "promise" in gate_found and gate_found["promise"] is None:
        origin += "; they may have chosen the precision, so this says nothing about other pictures"
    digest = sha256_bytes(images.images.tobytes() + masks.tobytes())
    golden = Golden(images.images, masks, None, names, origin, digest)
    with load(built.folder, trust_device=True) as engine:
        certificate = certificate_from_engine(engine, golden, gate)
    certificate["reference"] |= {"kept": False, "data": images.record()}
    return certificate
