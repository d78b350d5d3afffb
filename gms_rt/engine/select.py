"""Which part of an engine folder fits this machine, why the others do not, and loading the one that does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import EngineManifest, Plan, newest_engines, read_manifest, verify_files
from gms_rt.errors import ArtifactError, DeviceError, NativeError, UsageError
from gms_rt.runtime.base import Runner
from gms_rt.runtime.device import Machine, parse_device, probe
from gms_rt.runtime.tensorrt_module import tensorrt_version

ENGINES = Path("engines")


@dataclass(frozen=True)
class Fit:
    """One way to run an engine here: `reason` is empty when it fits."""

    target: str
    plan: Plan | None
    gpu: int | None
    reason: str

    @property
    def fits(self) -> bool:
        """Whether it can run on this machine."""
        return not self.reason


def engine_fits(manifest: EngineManifest, machine: Machine | None = None, *, gpu: int | None = None) -> list[Fit]:
    """Every way to run this engine, GPU plans first, each with the reason where it does not fit.

    `gpu` asks for one GPU by number; otherwise the first that a plan was built for is taken.
    """
    here = machine or probe()
    found = [_plan_fit(plan, here, gpu) for plan in manifest.plans]
    if "cpu" in manifest.targets:
        found.append(Fit("cpu", None, None, _cpu_reason(manifest, here)))
    return found


def _plan_fit(plan: Plan, machine: Machine, wanted: int | None) -> Fit:
    candidates = [g for g in machine.gpus if wanted in (None, g.index)]
    gpu = next((g.index for g in candidates if g.sm == plan.sm), None)
    installed = tensorrt_version(plan.target)
    if not machine.gpus:
        reason = machine.driver_note
    elif not candidates:
        reason = f"there is no GPU {wanted}, this machine has {len(machine.gpus)}"
    elif gpu is None:
        here = ", ".join(f"SM{g.sm} ({g.name})" for g in candidates)
        reason = f"built for SM{plan.sm}, this machine has {here}"
    elif installed is None:
        reason = f"needs {plan.target}: pip install 'gms-rt[{plan.target}]'"
    elif installed not in (plan.version, "unknown"):
        reason = f"built with {plan.target} {plan.version}, installed is {installed}"
    else:
        reason = ""
    return Fit(plan.target, plan, gpu, reason)


def _cpu_reason(manifest: EngineManifest, machine: Machine) -> str:
    if manifest.execution == "bf16" and not machine.cpu.bf16:
        return f"asks for bf16 arithmetic, which {machine.cpu.name} lacks"
    return ""


def load(
    path: str | Path | None = None,
    *,
    device: str | None = None,
    threads: int = 0,
    lanes: int = 1,
    mode: Literal["latency", "throughput"] = "latency",
    batch: int = 0,
    trial: Literal["auto", "always", "never"] = "auto",
) -> Engine:
    """Load an engine folder (or the newest below `engines/` that fits) on this machine.

    `device` is "cpu", "cuda" or "cuda:N"; by default a fitting GPU plan wins over the CPU. Files are checked against
    their hashes first. `batch` is how many images make one inference, where the engine's graph leaves that open (0: as
    it was built). A CPU graph that this machine has not run before is first run once in a process of its own, so that
    one on which OpenVINO crashes raises an error: `trial` "always" repeats that every time, "never" leaves it out for
    engines that are trusted: a malformed graph can then crash this process.
    """
    kind, index = parse_device(device)
    folder = newest_that_fits(ENGINES, device) if path is None else Path(path)
    manifest = read_manifest(folder)
    choice = _choose(folder, manifest, kind, index)
    if choice.plan is not None:
        if batch not in (0, manifest.batch):
            raise _fixed_batch(folder, manifest, batch)
        verify_files(folder, manifest, [choice.plan.file])
        runner: Runner = _tensorrt_runner(folder, manifest, choice, lanes)
    else:
        runner = _cpu_runner(folder, manifest, threads, lanes, mode, batch, trial)
    return Engine(folder, manifest, runner)


def newest_that_fits(root: Path, device: str | None = None) -> Path:
    """The newest engine below `root` that runs on this machine."""
    kind, index = parse_device(device)
    engines = newest_engines(root)
    reasons = []
    for folder in engines:
        try:
            options = _wanted(engine_fits(read_manifest(folder), gpu=index), kind)
        except ArtifactError as error:  # a damaged engine must not hide the others
            reasons.append(error.line())
            continue
        if any(option.fits for option in options):
            return folder
        reasons += [f"{folder.name} ({o.target}): {o.reason}" for o in options]
    if not engines:
        raise UsageError("there is no engine", where=root, fix="build one: gms-rt build --precision fp16")
    raise DeviceError(
        f"none of {len(engines)} engines fits this machine ({'; '.join(reasons)})",
        where=root,
        fix="build one for it: gms-rt build --precision fp16",
    )


def _wanted(options: list[Fit], kind: str | None) -> list[Fit]:
    return [o for o in options if kind is None or (o.target == "cpu") == (kind == "cpu")]


def _choose(folder: Path, manifest: EngineManifest, kind: str | None, index: int | None) -> Fit:
    options = _wanted(engine_fits(manifest, gpu=index), kind)
    for option in options:
        if option.fits:
            return option
    holds = "; ".join(f"{o.plan.file if o.plan else 'cpu graph'}: {o.reason}" for o in options)
    asked = f" on {kind}" if kind else ""
    raise DeviceError(
        f"cannot run{asked} on this machine ({holds or 'nothing built for it'})",
        where=folder,
        fix=f"build it here: {manifest.rebuild}",
    )


def _cpu_runner(
    folder: Path,
    manifest: EngineManifest,
    threads: int,
    lanes: int,
    mode: Literal["latency", "throughput"],
    batch: int,
    trial: Literal["auto", "always", "never"],
) -> Runner:
    from gms_rt.runtime.cpu import CpuRunner
    from gms_rt.runtime.options import CpuSettings

    settings = CpuSettings(
        threads=threads,
        lanes=lanes,
        mode=mode,
        batch=batch,
        trial=trial,
    )
    try:
        # The folder, not the file: the C library compares the graph with its hash and opens nothing that is not listed.
        return CpuRunner(folder, settings, quantised=manifest.precision == "int8")
    except (NativeError, UsageError) as error:
        if batch not in (0, manifest.batch):
            raise _fixed_batch(folder, manifest, batch) from error
        raise


def _fixed_batch(folder: Path, manifest: EngineManifest, batch: int) -> UsageError:
    return UsageError(
        f"a batch of {batch} was asked, this engine's is fixed at {manifest.batch}",
        where=folder,
        fix=f"build it with --batch {batch}, or from a graph exported with --batch 1-{batch}",
    )


def _tensorrt_runner(folder: Path, manifest: EngineManifest, choice: Fit, lanes: int) -> Runner:
    from gms_rt.runtime.options import CudaSettings
    from gms_rt.runtime.tensorrt import TensorRtRunner

    if choice.plan is None or choice.gpu is None:
        raise DeviceError("this plan has no GPU to run on", where=folder)
    settings = CudaSettings(
        batch=manifest.batch, height=manifest.height, width=manifest.width, device=choice.gpu, lanes=lanes
    )
    return TensorRtRunner(
        folder / choice.plan.file,
        choice.target,
        settings,
        execution={"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "i8+f16"}[manifest.precision],
    )
