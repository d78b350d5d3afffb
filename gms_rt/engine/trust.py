"""Whose plans this machine runs: those it built, those of an author it trusts, those its user vouches for.

A TensorRT plan is native code, and whoever writes it also writes its hash into `engine.json`. So the hash says that a
plan is whole, never that it is harmless. What this user's builds made is remembered by hash in the user's state folder,
which nobody else can write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gms_rt.artifacts import sha256_file, write_json
from gms_rt.engine.keys import PrivateKey, trusted_keys
from gms_rt.engine.manifest import MANIFEST, Plan, read_manifest, rebuild_command, verify_files
from gms_rt.engine.signature import SIGNATURE, Signature, read_signature, write_signature
from gms_rt.engine.state import state_folder
from gms_rt.errors import GmsError, UsageError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class PlanTrust:
    """Whether a plan may be loaded, and why."""

    file: str
    trusted: bool
    reason: str  # completes "the plan …": "was built on this machine"


def remember_plan(folder: Path, sha256: str) -> str:
    """Remember that this user built a plan; why that could not be done, or ""."""
    try:
        write_json(state_folder("plans") / f"{sha256}.json", {"engine": str(folder.absolute())})
    except (GmsError, OSError) as error:
        return str(error)
    return ""


def plan_trust(folder: Path, plan: Plan) -> PlanTrust:
    """Whether a plan of this folder may be loaded without the user's word for it. Its bytes are compared later."""
    try:
        if _SHA256.fullmatch(plan.sha256) and (state_folder("plans", make=False) / f"{plan.sha256}.json").is_file():
            return PlanTrust(plan.file, True, "was built on this machine")
        signed = _signer(folder, plan)
    except (GmsError, OSError) as error:
        return PlanTrust(plan.file, False, f"was not built on this machine and cannot be trusted ({error})")
    if signed:
        return PlanTrust(plan.file, True, f"is signed by the trusted key {signed}")
    return PlanTrust(plan.file, False, "was not built on this machine and is not signed by a trusted key")


def sign_engine(folder: Path, key: PrivateKey, *, trust_plans: bool = False) -> Signature:
    """Sign a whole engine. Nobody vouches by accident: a plan that would not be loaded here is refused."""
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    for trust in [plan_trust(folder, plan) for plan in manifest.plans]:
        if not trust.trusted and not trust_plans:
            raise UsageError(
                trust.reason,
                where=folder / trust.file,
                fix=f"rebuild: {rebuild_command(folder, manifest)}; or vouch for it with --trust-plans",
            )
    return write_signature(folder, key)


def _signer(folder: Path, plan: Plan) -> str:
    """The trusted key that signed this plan and the manifest that names it, or ""; a false signature raises."""
    keys = trusted_keys() if (folder / SIGNATURE).is_file() else []
    if not keys:
        return ""
    signature = read_signature(folder)
    key = next((key for key in keys if key.raw == signature.key), None)
    if key is None:
        return ""
    signature.check(key)
    signed = {entry.name: entry.sha256 for entry in signature.files}
    for name, digest in ((plan.file, plan.sha256), (MANIFEST, sha256_file(folder / MANIFEST))):
        if signed.get(name) != digest:
            raise GmsError("is not what was signed", where=folder / name, fix=f"see gms-rt verify {folder}")
    return key.fingerprint
