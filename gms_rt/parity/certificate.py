"""The parity certificate: do an engine's masks, on this device, equal those of the PyTorch FP32 reference?

`certify` runs the engine over the pictures of its `golden.npz` and compares case by case; the result is written as
`parity.json` beside the engine. `verify` computes a certificate again and says where it no longer holds. Both need no
torch: the reference probabilities were written when the graph was exported.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import __version__, metrics
from gms_rt.arrays import U8
from gms_rt.artifacts import read_json, sha256_file, write_json
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import MANIFEST, verify_files
from gms_rt.errors import ArtifactError, DeviceError, UsageError
from gms_rt.runtime.device import probe
from gms_rt.statistics import bootstrap

CERTIFICATE = "parity.json"
GOLDEN = "golden.npz"
FORMAT = "gms-rt-parity"
VERSION = 1
THRESHOLD = 128  # of 255: probability at or above one half
GATE_MEAN, GATE_MIN = 0.99, 0.95

# Threads may add in another order, so a pixel on the threshold may fall either way when a certificate is recomputed.
_DICE_TOLERANCE = 0.002


@dataclass(frozen=True)
class Golden:
    """Pictures with their reference: N×H×W×3 images, N×H×W probabilities, and truth masks where known."""

    images: U8
    probabilities: U8
    truth: U8 | None
    names: tuple[str, ...]
    origin: str  # what the reference is, for the certificate
    sha256: str


def read_golden(path: Path) -> Golden:
    """Read and check a `golden.npz`."""
    try:
        # Opened here, because numpy leaves a file that is no archive open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise ArtifactError("has no reference masks", where=path, fix="build the engine again") from error
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ArtifactError(f"cannot be read ({error})", where=path, fix="build the engine again") from error
    images, probabilities = arrays.get("images"), arrays.get("probabilities")
    truth = arrays.get("truth")
    if images is None or probabilities is None:
        raise ArtifactError("lacks 'images' or 'probabilities'", where=path, fix="build the engine again")
    maps = [probabilities] if truth is None else [probabilities, truth]
    if (
        images.ndim != 4
        or not len(images)
        or images.shape[3] != 3
        or any(m.shape != images.shape[:3] for m in maps)
        or any(a.dtype != np.uint8 for a in [images, *maps])
    ):
        raise ArtifactError("holds arrays of other shapes or types than expected", where=path)
    stored = arrays.get("names")
    names = tuple(str(n) for n in stored) if stored is not None else tuple(f"case {i + 1}" for i in range(len(images)))
    if len(names) != len(images):
        raise ArtifactError(f"holds {len(names)} names for {len(images)} images", where=path)
    return Golden(images, probabilities, truth, names, "PyTorch FP32, stored at export", sha256_file(path))


def certify(
    engine: Path,
    *,
    device: str | None = None,
    gate_mean: float = GATE_MEAN,
    gate_min: float = GATE_MIN,
    write: bool = True,
) -> dict[str, Any]:
    """Compare an engine's masks with its stored reference on this device; writes `parity.json` into its folder."""
    from gms_rt.engine.select import load

    golden = read_golden(engine / GOLDEN)
    with load(engine, device=device) as opened:
        if GOLDEN in opened.manifest.files:
            verify_files(engine, opened.manifest, [GOLDEN])
        certificate = certificate_of(opened, golden, gate_mean=gate_mean, gate_min=gate_min)
    if write:
        write_json(engine / CERTIFICATE, certificate)
    return certificate


def certificate_of(
    engine: Engine, golden: Golden, *, gate_mean: float = GATE_MEAN, gate_min: float = GATE_MIN
) -> dict[str, Any]:
    """The certificate of an opened engine against reference masks."""
    if not (0 <= gate_mean <= 1 and 0 <= gate_min <= 1):
        raise UsageError(f"the gate (mean {gate_mean}, minimum {gate_min}) is not within 0 to 1", where="--gate")
    produced = engine.runner.infer(golden.images)
    cases = _cases(golden, produced)
    dices = [case["dice"] for case in cases]
    info, manifest = engine.runner.info, engine.manifest
    reasons = _shortfalls(cases, gate_mean, gate_min)
    interval = bootstrap(dices)
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "gms_rt": __version__,
        "engine": {
            "name": manifest.name,
            "precision": manifest.precision,
            "manifest_sha256": sha256_file(engine.folder / MANIFEST),
        },
        "reference": {
            "what": golden.origin,
            "sha256": golden.sha256,
            "cases": len(cases),
            "truth": golden.truth is not None,
        },
        "compared": {
            "arithmetic": info.execution,
            "backend": info.backend,
            "device": info.device,
            "machine": probe().name,
            "size": [info.height, info.width],
            "threshold": THRESHOLD,
            "in_words": f"{manifest.precision} engine on {info.device} ({info.backend}, {info.execution}) "
            f"against {golden.origin}, masks at probability ≥ {THRESHOLD}/255, {info.width}×{info.height} pixels",
        },
        "summary": _summary(cases, golden) | {"interval": dataclasses.asdict(interval)},
        "gate": {"mean": gate_mean, "min": gate_min},
        "verdict": "fail" if reasons else "pass",
        "reasons": reasons,
        "cases": cases,
    }


def _shortfalls(cases: list[dict[str, Any]], gate_mean: float, gate_min: float) -> list[str]:
    dices = [case["dice"] for case in cases]
    worst = cases[int(np.argmin(dices))]
    lines = []
    if float(np.mean(dices)) < gate_mean:
        lines.append(f"mean Dice {np.mean(dices):.5f} is below {gate_mean}")
    if worst["dice"] < gate_min:
        lines.append(f"Dice {worst['dice']:.5f} of '{worst['name']}' is below {gate_min}")
    if not any(case["foreground"] for case in cases):
        # Empty masks agree with each other whatever the engine does.
        lines.append("no reference mask has any foreground, so nothing was proven")
    return lines


def _cases(golden: Golden, produced: U8) -> list[dict[str, Any]]:
    cases = []
    for index, name in enumerate(golden.names):
        mask, reference = produced[index] >= THRESHOLD, golden.probabilities[index] >= THRESHOLD
        gap = np.abs(produced[index].astype(np.int16) - golden.probabilities[index])
        case: dict[str, Any] = {
            "name": name,
            "dice": metrics.dice(mask, reference),
            "flipped": metrics.differing_pixels(mask, reference),
            "pixels": int(mask.size),
            "foreground": int(np.count_nonzero(reference)),
            "hd95": _finite(metrics.hd95(mask, reference)),
            "probability_gap_max": int(gap.max()),
            "probability_gap_mean": float(gap.mean()),
        }
        if golden.truth is not None:
            truth = golden.truth[index]
            here, there = metrics.hd95(mask, truth), metrics.hd95(reference, truth)
            case |= {
                "truth_dice": metrics.dice(mask, truth),
                "truth_dice_reference": metrics.dice(reference, truth),
                "truth_hd95": _finite(here),
                "truth_hd95_reference": _finite(there),
                "truth_hd95_change": _finite(here - there) if math.isfinite(here) and math.isfinite(there) else None,
            }
        cases.append(case)
    return cases


def _summary(cases: list[dict[str, Any]], golden: Golden) -> dict[str, Any]:
    dices = [case["dice"] for case in cases]
    worst = int(np.argmin(dices))
    summary: dict[str, Any] = {
        "mean": float(np.mean(dices)),
        "min": float(min(dices)),
        "worst": cases[worst]["name"],
        "flipped": int(sum(case["flipped"] for case in cases)),
        "pixels": int(sum(case["pixels"] for case in cases)),
        "hd95_max": None if any(c["hd95"] is None for c in cases) else float(max(c["hd95"] for c in cases)),
    }
    if golden.truth is not None:
        summary["truth_mean"] = float(np.mean([case["truth_dice"] for case in cases]))
        summary["truth_mean_reference"] = float(np.mean([case["truth_dice_reference"] for case in cases]))
    return summary


def _finite(value: float) -> float | None:
    # JSON has no infinity; an infinite distance (one mask empty) is written as null.
    return float(value) if math.isfinite(value) else None


def read_certificate(path: Path) -> dict[str, Any]:
    """Read a certificate and refuse what is not one."""
    value = read_json(path)
    if value.get("format") != FORMAT:
        raise ArtifactError("is not a parity certificate", where=path, fix="write one: gms-rt parity ENGINE")
    if not isinstance(value.get("version"), int) or value["version"] > VERSION:
        raise ArtifactError(
            f"has version {value.get('version')!r}, this program reads up to {VERSION}",
            where=path,
            fix="update gms-rt",
        )
    for key, kind in (("engine", dict), ("reference", dict), ("compared", dict), ("summary", dict), ("gate", dict),
                      ("cases", list), ("verdict", str)):  # fmt: skip
        if not isinstance(value.get(key), kind):
            raise ArtifactError(f"lacks '{key}'", where=path, fix="write it again: gms-rt parity ENGINE")
    return value


@dataclass(frozen=True)
class Verification:
    """What a second computation of a certificate found; it holds when `differences` is empty."""

    certificate: str
    holds: bool
    differences: tuple[str, ...]
    largest_dice_difference: float
    verdict: str


def verify(certificate: Path, *, engine: Path | None = None, device: str | None = None) -> Verification:
    """Compute a certificate again on the same kind of device and compare every figure with what it claims."""
    claimed = read_certificate(certificate)
    folder = certificate.parent if engine is None else engine
    if claimed["reference"].get("sha256") != (sha256_file(folder / GOLDEN) if (folder / GOLDEN).is_file() else None):
        raise ArtifactError(
            "was made with other reference masks than this engine's golden.npz",
            where=certificate,
            fix="verify it where it was made, or certify again: gms-rt parity ENGINE",
        )
    gate = claimed["gate"]
    found = certify(folder, device=device, gate_mean=gate["mean"], gate_min=gate["min"], write=False)
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
    before = {case.get("name"): case for case in claimed["cases"] if isinstance(case, dict)}
    after = {case["name"]: case for case in found["cases"]}
    if before.keys() != after.keys():
        lines.append(f"cases were {len(before)}, are {len(after)}, or their names differ")
    largest = 0.0
    for name in before.keys() & after.keys():
        gap = abs(float(before[name].get("dice", math.inf)) - after[name]["dice"])
        largest = max(largest, gap)
        if not gap <= _DICE_TOLERANCE:
            lines.append(f"{name}: Dice was {before[name].get('dice')}, is {after[name]['dice']:.6f}")
    for key in ("mean", "min"):
        was = claimed["summary"].get(key)
        if not isinstance(was, (int, float)) or not abs(was - found["summary"][key]) <= _DICE_TOLERANCE:
            lines.append(f"{key} Dice was {was}, is {found['summary'][key]:.6f}")
    return lines, largest
