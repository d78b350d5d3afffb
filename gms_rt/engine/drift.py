"""Another processor, runtime, driver or arithmetic than the engine was certified on: are the masks still the same?

A certificate says on what it was made. Where an engine is loaded on something else, its reference pictures are run once
before the first result, and must meet the certificate's gate. A pass is remembered in the user's state folder.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from gms_rt.artifacts import read_json, sha256_file, sha256_json, write_json
from gms_rt.engine.golden import read_golden
from gms_rt.engine.manifest import CERTIFICATE, GOLDEN, MANIFEST, EngineManifest, rebuild_command
from gms_rt.engine.state import state_folder
from gms_rt.errors import GateError, GmsError, UsageError
from gms_rt.precision.gate import Gate, judge
from gms_rt.runtime.base import Runner, RunnerInfo
from gms_rt.runtime.device import probe


def stack_from_runner(info: RunnerInfo) -> dict[str, str]:
    """What an engine runs on, as a certificate records it: another of these can compute other masks.

    `device` is the processor or GPU, `runtime` OpenVINO or the CUDA driver with its version, `version` TensorRT's,
    `arithmetic` what they compute in.
    Boards with the same GPU differ in its size, and power modes in how much of it and how many cores run: `board` and
    `power_mode` are there where a device tree and nvpmodel name them.
    """
    known = {"runtime": info.details.get("runtime"), "version": info.details.get("version")}
    board = probe().board
    if board is not None:
        module = f"{board.model} ({board.module})" if board.module else board.model
        known |= {"board": module, "power_mode": board.power_mode}
    given = {k: str(v) for k, v in known.items() if v is not None}
    return {"arithmetic": info.execution, "backend": info.backend, "device": info.device, **given}


def check_drift(folder: Path, manifest: EngineManifest, runner: Runner) -> None:
    """Refuse an engine that was certified on something else and whose masks miss the certificate's gate here.

    Without a passing certificate of this very engine there is nothing to hold it to, and nothing happens.
    """
    here = stack_from_runner(runner.info)
    try:
        certificate = read_json(folder / CERTIFICATE) if (folder / CERTIFICATE).is_file() else {}
        compared, gate = certificate.get("compared"), gate_from_certificate(certificate)
    except GmsError:
        return  # damaged: `gms-rt parity` says so
    if gate is None or not isinstance(compared, dict):
        return
    # What an older certificate does not record cannot differ.
    there = {name: compared[name] for name in here if isinstance(compared.get(name), str)}
    changed = [name for name in there if there[name] != here[name]]
    if not changed or not _is_about(certificate, folder, manifest):
        return
    # One file per engine and stack; what was checked once need not be checked at every start.
    key = {
        "engine": certificate["engine"],
        "reference": certificate["reference"],
        "gate": certificate["gate"],
        "here": here,
    }
    name = f"{sha256_json(key)}.json"
    with contextlib.suppress(GmsError):
        if (state_folder("devices", make=False) / name).is_file():
            return
    golden = read_golden(folder / GOLDEN)
    if golden.images.shape[1:3] != (runner.info.height, runner.info.width):
        return
    verdict = judge(runner.infer(golden.images), golden.probabilities, gate)
    if not verdict.passed:
        raise GateError(
            f"certified on {_words(there, changed)}, this is {_words(here, changed)}: {verdict.failure()}",
            where=folder,
            fix=f"rebuild: {rebuild_command(folder, manifest)}; or leave this check out with --trust-device "
            "(trust_device=True)",
        )
    with contextlib.suppress(GmsError, OSError):
        write_json(state_folder("devices") / name, {"engine": str(folder.absolute()), **here})


def gate_from_certificate(certificate: dict[str, Any]) -> Gate | None:
    """The gate that the certificate passed; None where it did not pass or says no gate."""
    gate = certificate.get("gate")
    if certificate.get("verdict") != "pass" or not isinstance(gate, dict):
        return None
    mean, low = gate.get("mean"), gate.get("min")
    if not isinstance(mean, (int, float)) or not isinstance(low, (int, float)):
        return None
    try:
        return Gate(mean, low)
    except UsageError:
        return None


def _is_about(certificate: dict[str, Any], folder: Path, manifest: EngineManifest) -> bool:
    """Whether a certificate is about this engine as it is, with the reference pictures that the manifest lists."""
    engine, reference = certificate.get("engine"), certificate.get("reference")
    if not isinstance(engine, dict) or not isinstance(reference, dict) or not (folder / GOLDEN).is_file():
        return False
    golden = sha256_file(folder / GOLDEN)
    return (
        engine.get("manifest_sha256") == sha256_file(folder / MANIFEST)
        and manifest.files.get(GOLDEN) == golden
        and reference.get("sha256") == golden
    )


def _words(stack: dict[str, str], names: list[str]) -> str:
    return ", ".join(stack[name] for name in names)
