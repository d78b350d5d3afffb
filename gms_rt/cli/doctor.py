"""`gms-rt doctor`: what this machine has, what each extra would add. It never fails because something is absent."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import re
from typing import Any

import click

from gms_rt import __version__
from gms_rt.cli.console import Console
from gms_rt.engine.user_cache import CacheContents, cache_contents, clear_caches
from gms_rt.errors import GmsError
from gms_rt.precision.int8_probe import cpu_runs_int8
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.board import Board
from gms_rt.runtime.device import Machine, package_version, probe
from gms_rt.runtime.tensorrt_module import (
    MODULES,
    driver_problem,
    fitting_extra,
    how_to_install,
    tensorrt_version,
)

# What a person gains by installing an extra; its packages come from the distribution's own metadata.
GAINS = {
    "train": "train models, export runs to graphs",
    "comparators": "more models of others: gms-rt train --list-models says which need it",
    "tensorrt": "TensorRT engines on NVIDIA GPUs and Jetson",
    "tensorrt-cu12": "the same for drivers that have CUDA 12 only (r535 and newer)",
    "pycuda": "one CUDA context for gms-rt and a program that uses pycuda itself (compiled with the CUDA toolkit)",
    "tensorrt-rtx": "TensorRT-RTX plans for other machines' GPUs, built without one",
    "tensorrt-rtx-cu12": "the same, to run them with drivers that have CUDA 12 only",
    "dicom-seg": "DICOM SEG output",
    "dicom-lossless": "DICOM input in lossless JPEG",
    "nifti": "NIfTI input",
    "signing": "sign engines, load plans of authors whose key is trusted",
    "serve": "engines over HTTP: gms-rt serve",
    "ray": "archives on a cluster: gms-rt scale infer --backend ray; tables as Parquet",
    "s3": "gms-rt scale infer s3://...",
    "dev": "tests and checks",
}
ENVIRONMENT = {
    "GMS_RT_CACHE": "folder of compiled graphs and kernels and of timing caches, instead of ~/.cache/gms-rt",
    "GMS_RT_STATE": "folder of built plans and trusted keys, instead of ~/.local/state/gms-rt",
    "GMS_RT_LIBRARY": "the C library to load, instead of the installed one",
    "GMS_RT_OPENVINO": "OpenVINO's C library, libopenvino_c.so, instead of the one that is found",
    "GMS_RT_TRIAL": "the program that tries unknown graphs, instead of the one next to the C library",
    "GMS_RT_DATA": "folder of real data sets and weights, for the tests and benchmarks that use them",
    "GMS_RT_DEBUG": "1 for a traceback instead of one line on errors",
}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.option("--clear-cache", is_flag=True, help="Delete what earlier builds and opens left, and say how much it was.")
def command(as_json: bool, clear_cache: bool) -> None:
    """List what this machine has and what it lacks.

    What earlier builds and opens left for later ones is listed too: graphs compiled for this CPU, kernels compiled for
    this GPU, graphs that passed their trial, and TensorRT's timing caches. --clear-cache deletes it, and then lists
    nothing else; the next open and the next build take as long as the first.

    \b
    Examples:
      gms-rt doctor
      gms-rt doctor --clear-cache
      gms-rt doctor --json | python3 -m json.tool
    """
    console = Console(json=as_json)
    if clear_cache:
        cleared = clear_caches()
        lines = [f"deleted {_amount(kind)} of {kind.what} in {kind.folder}" for kind in cleared]
        console.result({"cleared": [_cache_facts(kind) for kind in cleared]}, "\n".join(lines))
        return
    machine = probe()
    facts = {
        "gms_rt": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "machine": dataclasses.asdict(machine),
        "native": _native(),
        "openvino": machine.packages["openvino"],
        "tensorrt": {flavour: tensorrt_version(flavour) for flavour in MODULES},
        "tensorrt_fits": {flavour: _fit(flavour, machine) for flavour in MODULES},
        "arithmetic": _arithmetic(),
        "extras": _extras(machine),
        "cache": [_cache_facts(kind) for kind in cache_contents()],
        "environment": {name: {"does": does, "value": os.environ.get(name)} for name, does in ENVIRONMENT.items()},
    }
    console.result(facts, _screen(machine, facts))


def _cache_facts(kind: CacheContents) -> dict[str, Any]:
    return dataclasses.asdict(kind) | {"folder": str(kind.folder)}


def _amount(kind: CacheContents) -> str:
    return f"{kind.files} {'file' if kind.files == 1 else 'files'} ({kind.bytes / 2**20:.1f} MiB)"


def _native() -> dict[str, str | None]:
    """Version of the C library, or why it cannot be loaded."""
    try:
        from gms_rt.runtime.library import load_library

        return {"version": load_library().gmsrt_version().decode(), "problem": None}
    except (GmsError, OSError) as error:
        return {"version": None, "problem": error.line() if isinstance(error, GmsError) else str(error)}


def _extras(machine: Machine) -> dict[str, dict[str, Any]]:
    try:
        requirements = importlib.metadata.requires("gms-rt") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    packages: dict[str, list[str]] = {name: [] for name in GAINS}
    for requirement in requirements:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and name[0] != "gms-rt":
            packages.setdefault(extra[1], []).append(name[0])
    return {
        name: {
            "adds": GAINS.get(name, ""),
            "missing": [p for p in wanted if package_version(p) is None and not _is_there(p)],
            "install": how_to_install(name, machine),
        }
        for name, wanted in packages.items()
        if wanted
    }


def _is_there(package: str) -> bool:
    """Whether apt brought a package that pip does not know of."""
    return package in MODULES and tensorrt_version(package) is not None


def _screen(machine: Machine, facts: dict[str, Any]) -> str:
    cpu, native = machine.cpu, facts["native"]
    lines = [
        f"gms-rt        {facts['gms_rt']}, Python {facts['python']}, {facts['system']}",
        *_board_lines(machine.board),
        f"processor     {cpu.name}, {cpu.cores} cores ({', '.join(cpu.features) or 'no known vector features'})",
        f"arithmetic    {_arithmetic_text(facts['arithmetic'])}",
        *(f"GPU {g.index}         {g.name}, SM{g.sm}, {g.memory_bytes / 2**30:.0f} GiB" for g in machine.gpus),
        *([] if machine.gpus else [f"GPU           none: {machine.driver_note}"]),
        f"driver        {'CUDA ' + machine.driver if machine.driver else 'none'}",
        f"C library     {native['version'] or 'not usable: ' + native['problem']}",
        f"OpenVINO      {facts['openvino'] or 'not installed'}",
        *(_tensorrt_line(flavour, facts) for flavour in MODULES),
        "",
        "extras",
    ]
    for name, extra in facts["extras"].items():
        state = "installed" if not extra["missing"] else extra["install"]
        lines.append(f"  {name:<17} {extra['adds']}: {state}")
    lines += ["", "cache (cleared by gms-rt doctor --clear-cache)"]
    lines += [f"  {kind.name:<14} {kind.what}: {_amount(kind)} in {kind.folder}" for kind in cache_contents()]
    lines += ["", "environment variables"]
    for name, variable in facts["environment"].items():
        state = "not set" if variable["value"] is None else f"set to {variable['value']}"
        lines.append(f"  {name:<14} {variable['does']}: {state}")
    return "\n".join(lines)


def _fit(flavour: str, machine: Machine) -> dict[str, str | None]:
    """The extra whose wheels this driver runs, and why what is installed would not run here."""
    extra = None if machine.board is not None and machine.board.jetson else fitting_extra(flavour, machine)
    return {"extra": extra, "problem": driver_problem(flavour, machine) or None}


def _tensorrt_line(flavour: str, facts: dict[str, Any]) -> str:
    version, fit = facts["tensorrt"][flavour], facts["tensorrt_fits"][flavour]
    state = version or "not installed"
    if fit["problem"]:
        state += f", does not run with this driver: {fit['problem']}"
    elif version is None and facts["machine"]["gpus"] and fit["extra"]:
        state += f"; for this driver: {fit['extra']}"
    return f"{flavour:<14}{state}"


def _board_lines(board: Board | None) -> list[str]:
    if board is None:
        return []
    software = board.software
    return [f"board         {board.in_words}", *([f"JetPack       {software}"] if software else [])]


def _arithmetic() -> dict[str, Any]:
    """What the CPU's runtime computes in, as it says itself; null where nobody can be asked."""
    known = cpu_arithmetic()
    int8 = None if known.problem else cpu_runs_int8()
    return {"fp16": known.fp16, "bf16": known.bf16, "int8": int8, "problem": known.problem or None}


def _arithmetic_text(known: dict[str, Any]) -> str:
    if known["problem"]:
        return f"unknown: {known['problem']}"
    words = [kind if known[kind] else f"no {kind}" for kind in ("fp16", "bf16", "int8")]
    return f"{', '.join(['fp32', *words])} (what OpenVINO computes in on this CPU)"
