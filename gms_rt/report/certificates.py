"""From certificates, and from what else proves an engine's masks, to what a report says about them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gms_rt.bench.proof import Proof
from gms_rt.report.model import Parity, ParityCase, Verdict


def parity_from_proof(proof: Proof) -> Parity:
    """The proof of a timed engine; a certificate that lacks something counts as none."""
    if proof.certificate is None:
        return Parity(proof.engine, "none", proof.why)
    try:
        return _parity(proof.engine, proof.certificate, proof.why)
    except (KeyError, TypeError, ValueError) as error:
        return Parity(proof.engine, "none", f"the certificate cannot be used ({error})")


def _parity(name: str, certificate: Mapping[str, Any], stale: str) -> Parity:
    summary, gate, compared = certificate["summary"], certificate["gate"], certificate["compared"]
    verdict: Verdict = "stale" if stale else "pass" if certificate["verdict"] == "pass" else "fail"
    return Parity(
        engine=name,
        verdict=verdict,
        why=stale or "; ".join(certificate.get("reasons", ())),
        in_words=str(compared.get("in_words", "")),
        mean=float(summary["mean"]),
        min=float(summary["min"]),
        low=float(summary["interval"]["low"]),
        high=float(summary["interval"]["high"]),
        worst=str(summary["worst"]),
        flipped=int(summary["flipped"]),
        pixels=int(summary["pixels"]),
        gate_mean=float(gate["mean"]),
        gate_min=float(gate["min"]),
        truth_mean=summary.get("truth_mean"),
        truth_mean_reference=summary.get("truth_mean_reference"),
        cases=tuple(
            ParityCase(
                str(c["name"]),
                float(c["dice"]),
                int(c["flipped"]),
                int(c["pixels"]),
                c["hd95"],
                c.get("truth_dice"),
                c.get("truth_dice_reference"),
            )
            for c in certificate["cases"]
        ),
    )
