"""What proves that the masks of a timed engine are right: its certificate, if it is about that very engine."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.arrays import U8
from gms_rt.artifacts import write_json
from gms_rt.bench.results import Measured
from gms_rt.engine.golden import Golden, read_golden
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import CERTIFICATE, GOLDEN
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.parity.certificate import carries_verdict, certificate_from_engine, read_certificate


@dataclass(frozen=True)
class Proof:
    """The certificate of one timed engine; `why` says why there is none, or why it is about something else."""

    engine: str  # its name in the bench
    certificate: Mapping[str, Any] | None
    why: str = ""
    golden: Golden | None = None  # the reference, where the engine's masks were computed for it here
    produced: U8 | None = None  # the engine's probabilities (0-255) for the pictures of `golden`


def proof_from_folder(measured: Measured) -> Proof:
    """The certificate in a timed engine's folder."""
    path = Path(measured.source) / CERTIFICATE
    if not path.is_file():
        return Proof(measured.name, None, f"no certificate; run: gms-rt parity {measured.source}")
    try:
        certificate = read_certificate(path)
        return Proof(measured.name, certificate, stale_reason(certificate, measured))
    except (ArtifactError, KeyError, TypeError, ValueError) as error:
        return Proof(measured.name, None, f"the certificate cannot be used ({error})")


def proof_from_engine(engine: Engine, measured: Measured, *, certify: bool) -> Proof:
    """The proof of an opened engine with its masks; with `certify` a fitting certificate is made where none is."""
    found = proof_from_folder(measured)
    if not (engine.folder / GOLDEN).is_file():
        return found
    golden = read_golden(engine.folder / GOLDEN)
    if certify and found.why and carries_verdict(engine.manifest, golden):
        certificate = certificate_from_engine(engine, golden)
        # A folder on a read-only medium is not a reason to refuse a measurement; the proof is in the report.
        with contextlib.suppress(UsageError):
            write_json(engine.folder / CERTIFICATE, certificate)
        found = Proof(measured.name, certificate, stale_reason(certificate, measured))
    return Proof(measured.name, found.certificate, found.why, golden, engine.runner.infer(golden.images))


def stale_reason(certificate: Mapping[str, Any], measured: Measured) -> str:
    """Why a certificate is not about what was timed, or ""."""
    compared = certificate["compared"]
    if certificate["engine"]["manifest_sha256"] != measured.identity:
        return "the certificate is about an earlier build of this engine; certify it again"
    if (compared["device"], compared["backend"]) != (measured.device, measured.backend):
        return f"the certificate is about {compared['device']}; certify it on this device"
    if compared["arithmetic"] != measured.execution:
        return f"the certificate is about {compared['arithmetic']} arithmetic, {measured.execution} was timed"
    return ""
