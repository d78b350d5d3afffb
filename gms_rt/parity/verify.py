"""A certificate computed again, on the same kind of device: does every figure still hold?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.artifacts import sha256_file
from gms_rt.engine.manifest import GOLDEN
from gms_rt.errors import ArtifactError, DeviceError
from gms_rt.parity.certificate import certify, read_certificate
from gms_rt.precision.gate import Gate

# Threads may add in another order, so a pixel on the threshold may fall either way when a certificate is recomputed.
_DICE_TOLERANCE = 0.002


@dataclass(frozen=True)
class Verification:
    """What a second computation of a certificate found; it holds when `differences` is empty."""

    certificate: str
    holds: bool
    differences: tuple[str, ...]
    largest_dice_difference: float
    verdict: str


def verify_certificate(
    certificate: Path, *, engine: Path | None = None, device: str | None = None, trust_plans: bool = False
) -> Verification:
    """Compute a certificate again on the same kind of device and compare every figure with what it claims."""
    claimed = read_certificate(certificate)
    folder = certificate.parent if engine is None else engine
    if claimed["reference"].get("kept") is False:
        raise ArtifactError(
            "is about the build's gate pictures, which are not stored",
            where=certificate,
            fix="certify on pictures that you have: gms-rt parity ENGINE --data SCANS --reference RUN",
        )
    if claimed["reference"].get("sha256") != (sha256_file(folder / GOLDEN) if (folder / GOLDEN).is_file() else None):
        raise ArtifactError(
            "was made with other reference masks than this engine's golden.npz",
            where=certificate,
            fix="verify it where it was made, or certify again: gms-rt parity ENGINE",
        )
    try:
        gate = Gate(float(claimed["gate"]["mean"]), float(claimed["gate"]["min"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError("has no gate that can be read", where=certificate, fix="certify again") from error
    found = certify(folder, device=device, gate=gate, write=False, trust_plans=trust_plans)
    here, there = found["compared"], claimed["compared"]
    if (here["device"], here["backend"]) != (there.get("device"), there.get("backend")):
        raise DeviceError(
            f"is for {there.get('device')} ({there.get('backend')}), this is {here['device']} ({here['backend']})",
            where=certificate,
            fix="certify on this device: gms-rt parity ENGINE",
        )
    differences, largest = _differences(claimed, found)
    return Verification(str(certificate), not differences, tuple(differences), largest, found["verdict"])


def _differences(claimed: dict[str, Any], found: dict[str, Any]) -> tuple[list[str], float]:
    lines = []
    if claimed["engine"].get("manifest_sha256") != found["engine"]["manifest_sha256"]:
        lines.append("the engine was rebuilt since (engine.json differs)")
    if claimed["compared"].get("arithmetic") != found["compared"]["arithmetic"]:
        lines.append(f"arithmetic was {claimed['compared'].get('arithmetic')}, is {found['compared']['arithmetic']}")
    if claimed["verdict"] != found["verdict"]:
        lines.append(f"verdict was {claimed['verdict']}, is {found['verdict']}")
    before = {case.get("name"): case for case in claimed["cases"] if _has_name(case)}
    after = {case["name"]: case for case in found["cases"]}
    if before.keys() != after.keys():
        lines.append(f"cases were {len(before)}, are {len(after)}, or their names differ")
    largest = 0.0
    for name in before.keys() & after.keys():
        gap = abs(_number(before[name].get("dice")) - after[name]["dice"])
        largest = max(largest, gap)
        if not gap <= _DICE_TOLERANCE:
            lines.append(f"{name}: Dice was {before[name].get('dice')}, is {after[name]['dice']:.6f}")
    for key in ("mean", "min"):
        was = claimed["summary"].get(key)
        if not abs(_number(was) - found["summary"][key]) <= _DICE_TOLERANCE:
            lines.append(f"{key} Dice was {was}, is {found['summary'][key]:.6f}")
    return lines, largest


def _has_name(case: object) -> bool:
    return isinstance(case, dict) and isinstance(case.get("name"), str)


def _number(value: object) -> float:
    """A claimed figure; infinity for what is none, which no figure is near. Anyone can have written it."""
    return float(value) if isinstance(value, float) or (type(value) is int and abs(value) < 2**53) else math.inf
