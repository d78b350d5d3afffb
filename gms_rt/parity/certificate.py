"""The parity certificate: do an engine's masks, on this device, equal those of the PyTorch FP32 reference?

`certify` runs the engine over the pictures of its `golden.npz` and compares case by case; the result is written as
`parity.json` into the engine's folder. No torch is needed: the reference probabilities were written when the graph was
exported.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import __version__, metrics
from gms_rt.arrays import U8
from gms_rt.artifacts import check_format, read_json, sha256_file, write_json
from gms_rt.engine.drift import stack_from_runner
from gms_rt.engine.golden import Golden, read_golden
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import CERTIFICATE, GOLDEN, MANIFEST, EngineManifest, verify_files
from gms_rt.engine.select import load
from gms_rt.errors import ArtifactError
from gms_rt.precision.gate import Gate
from gms_rt.precision.plan_gate import plan_gate_text
from gms_rt.runtime.device import probe
from gms_rt.scan.mask import FOREGROUND
from gms_rt.statistics import bootstrap

SYNTHETIC = "only drawn pictures are known, which are not what the model is for"
FORMAT = "gms-rt-parity"
VERSION = 1
NO_VERDICT = "none"
NOTHING_PROVEN = "no reference mask has any foreground, so nothing was proven"


def certify(
    engine: Path,
    *,
    device: str | None = None,
    gate: Gate | None = None,
    write: bool = True,
    trust_plans: bool = False,
) -> dict[str, Any]:
    """Compare an engine's masks with its stored reference on this device; writes `parity.json` into its folder.

    Figures on drawn pictures are not written: they are no verdict, and what is there may be one.
    """
    golden = read_golden(engine / GOLDEN)
    with load(engine, device=device, trust_plans=trust_plans, trust_device=True) as opened:
        if GOLDEN in opened.manifest.files:
            verify_files(engine, opened.manifest, [GOLDEN])
        certificate = certificate_from_engine(opened, golden, gate)
    if write and certificate["verdict"] != NO_VERDICT:
        write_json(engine / CERTIFICATE, certificate)
    return certificate


def carries_verdict(manifest: EngineManifest, golden: Golden) -> bool:
    """Whether a verdict may rest on these pictures: drawn ones are only what the bundled model is for."""
    return not golden.synthetic or manifest.source.get("kind") == "bundled"


def certificate_from_engine(engine: Engine, golden: Golden, gate: Gate | None = None) -> dict[str, Any]:
    """The certificate of an opened engine against reference masks; the default gate unless one is given."""
    gate = gate or Gate()
    cases = _cases(golden, engine.runner.infer(golden.images))
    dices = [case["dice"] for case in cases]
    info, manifest = engine.runner.info, engine.manifest
    drawn = not carries_verdict(manifest, golden)
    reasons = [SYNTHETIC] if drawn else _shortfalls(cases, gate)
    interval = bootstrap(dices)
    judged = next((p.judged for p in manifest.plans if p.target == info.backend and p.judged is not None), None)
    pixels = f"{info.width}×{info.height} pixels"
    built = "" if judged is None else f"; at the build the plan's graph: {plan_gate_text(judged)}"
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
            "pictures": golden.source,
        },
        "compared": {
            **stack_from_runner(info),
            "machine": probe().name,
            "size": [info.height, info.width],
            "threshold": FOREGROUND,
            "in_words": f"{manifest.precision} engine on {_place(info.device)} ({info.backend}, {info.execution}) "
            f"against {golden.origin}, masks at probability ≥ {FOREGROUND}/255, {pixels}{built}",
            **({} if judged is None else {"judged_at_build": judged}),
        },
        "summary": _summary(cases, golden) | {"interval": dataclasses.asdict(interval)},
        "gate": {"mean": gate.mean, "min": gate.minimum},
        "verdict": NO_VERDICT if drawn else "fail" if reasons else "pass",
        "reasons": reasons,
        "cases": cases,
    }


def _place(device: str) -> str:
    """The processor or GPU, and the board with its power mode where there is one."""
    board = probe().board
    return f"{device}, {board.in_words}" if board else device


def _shortfalls(cases: list[dict[str, Any]], gate: Gate) -> list[str]:
    dices = [case["dice"] for case in cases]
    worst = cases[int(np.argmin(dices))]
    lines = []
    if float(np.mean(dices)) < gate.mean:
        lines.append(f"mean Dice {np.mean(dices):.5f} is below {gate.mean}")
    if worst["dice"] < gate.minimum:
        lines.append(f"Dice {worst['dice']:.5f} of '{worst['name']}' is below {gate.minimum}")
    if not any(case["foreground"] for case in cases):
        # Empty masks agree with each other whatever the engine does.
        lines.append(NOTHING_PROVEN)
    return lines


def _cases(golden: Golden, produced: U8) -> list[dict[str, Any]]:
    cases = []
    for index, name in enumerate(golden.names):
        mask, reference = produced[index] >= FOREGROUND, golden.probabilities[index] >= FOREGROUND
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
    check_format(value, FORMAT, VERSION, where=path, fix="write one: gms-rt parity ENGINE")
    for key, kind in (("engine", dict), ("reference", dict), ("compared", dict), ("summary", dict), ("gate", dict),
                      ("cases", list), ("verdict", str)):  # fmt: skip
        if not isinstance(value.get(key), kind):
            raise ArtifactError(f"lacks '{key}'", where=path, fix="write it again: gms-rt parity ENGINE")
    return value
