"""Loading an engine folder: the way that fits this machine best, or why none does."""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from gms_rt.engine.drift import check_drift
from gms_rt.engine.fits import Fit, trusted_fits
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import (
    EngineManifest,
    newest_engines,
    read_manifest,
    read_verified,
    rebuild_command,
)
from gms_rt.engine.user_cache import compiled_graphs, compiled_kernels
from gms_rt.errors import ArtifactError, DeviceError, GmsError, NativeError, UsageError
from gms_rt.runtime.base import Runner
from gms_rt.runtime.device import parse_device
from gms_rt.runtime.options import GraphUse

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from gms_rt.runtime.tensorrt import TensorRtRunner
    from gms_rt.runtime.tensorrt_layers import LayerWatch

    class LoadKeywords(TypedDict, total=False):
        """The fields of `LoadOptions` as keywords, for type checkers."""

        device: str | None
        threads: int
        lanes: int
        mode: Literal["latency", "throughput"]
        batch: int
        trial: Literal["auto", "always", "never"]
        trust_plans: bool
        trust_device: bool
        cuda_graph: GraphUse


ENGINES = Path("engines")
EXECUTIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "i8+f16"}  # of a plan, as its typed graph says


@dataclass(frozen=True)
class LoadOptions:
    """How an engine is loaded: the keywords of `load`."""

    device: str | None = None  # "cpu", "cuda" or "cuda:N"; None: a GPU if a trusted plan fits one, else the CPU
    threads: int = 0  # CPU threads; 0: the runtime's choice
    lanes: int = 1  # images in flight
    mode: Literal["latency", "throughput"] = "latency"  # one image as fast as possible, or many at the same time
    batch: int = 0  # images per inference, where the engine's graph leaves that open; 0: as it was built
    # Whether a CPU graph is first run in a process of its own: once per machine, every time, or never, for engines that
    # are trusted: a malformed graph can then crash this process.
    trial: Literal["auto", "always", "never"] = "auto"
    trust_plans: bool = False  # whether plans are loaded whoever built them; a plan can do all that this process can
    # Whether the reference pictures are left out that are otherwise run once where the processor, GPU, driver, OpenVINO
    # or TensorRT differ from those of the engine's certificate.
    trust_device: bool = False
    # Whether a plan is captured into a CUDA graph and replayed: where that is possible, always (else it is an error),
    # or never. A graph saves the time that the processor needs to queue the plan's kernels one by one.
    cuda_graph: GraphUse = "auto"

    def keywords(self) -> LoadKeywords:
        """The same as keywords of `load`."""
        return cast("LoadKeywords", {f.name: getattr(self, f.name) for f in dataclasses.fields(self)})


@dataclass(frozen=True)
class _Choice:
    """The way taken, and what the user should know about it."""

    fit: Fit
    notice: str = ""


def load(path: str | Path | None = None, **options: Unpack[LoadKeywords]) -> Engine:
    """Load an engine folder (or the newest below `engines/` that fits) on this machine; options as in `LoadOptions`.

    By default a fitting GPU plan wins over the CPU. A plan is native code, so it is loaded only if this machine built
    it, its folder is signed by a key that the user trusts, or `trust_plans` says so; else the CPU graph runs, and
    `Engine.notice` and the log say why. Files are checked against their hashes first. A CPU graph that this machine has
    not run before is first run once in a process of its own, so that one on which OpenVINO crashes raises an error. On
    another device, runtime or arithmetic than the engine's certificate names, its reference pictures must meet the gate
    first. An engine that was built to run in f16 runs in f32 on a CPU without it, one of INT8 and bf16 if its gate was
    met in f32 too, and `Engine.notice` says so.
    What OpenVINO made of the graph is kept in the user's cache folder for the next load, except with `trial` "always".
    """
    how = LoadOptions(**options)
    kind, index = parse_device(how.device)
    folder = newest_that_fits(ENGINES, how.device, trust_plans=how.trust_plans) if path is None else Path(path)
    manifest = read_manifest(folder)
    choice = _choose(folder, manifest, how, kind, index)
    if choice.notice:
        _say_once(choice.notice)
    if choice.fit.plan is not None:
        if how.batch not in (0, manifest.batch):
            raise _fixed_batch(folder, manifest, how.batch)
        runner: Runner = plan_runner(folder, manifest, choice.fit, how)
    else:
        runner = _cpu_runner(folder, manifest, how)
    notice = _f32_notice(folder, manifest, runner) or _graph_notice(folder, runner)
    if notice:
        _say_once(notice)
    if not how.trust_device:
        try:
            check_drift(folder, manifest, runner)
        except BaseException:
            runner.close()
            raise
    return Engine(folder, manifest, runner, notice="; ".join(filter(None, (choice.notice, notice))))


def fit_here(folder: Path, manifest: EngineManifest, options: LoadOptions) -> Fit:
    """The way in which `load` would run an engine on this machine."""
    return _choose(folder, manifest, options, *parse_device(options.device)).fit


def _f32_notice(folder: Path, manifest: EngineManifest, runner: Runner) -> str:
    """What to say of an engine that was built, judged and certified in another arithmetic and runs in f32."""
    info, built = runner.info, manifest.execution
    if info.backend != "cpu" or built == "f32" or info.execution.removeprefix("i8+") != "f32":
        return ""
    judged = ", in which its gate was met too" if manifest.fallback == "f32" else ""
    return (
        f"{folder}: was built to run in {built}, which OpenVINO does not have on {info.device}: it runs in f32{judged}"
    )


def _graph_notice(folder: Path, runner: Runner) -> str:
    """What to say of a plan that could not be captured into a CUDA graph, and so is queued anew for each inference."""
    notice = runner.info.details.get("notice")
    return f"{folder}: {notice}" if notice else ""


@functools.cache
def _say_once(notice: str) -> None:
    # Where a program has not set up logging, Python prints this on stderr.
    logging.getLogger("gms_rt").warning("%s", notice)


def newest_that_fits(root: Path, device: str | None = None, *, trust_plans: bool = False) -> Path:
    """The newest engine below `root` that runs on this machine."""
    kind, index = parse_device(device)
    engines = newest_engines(root)
    reasons = []
    for folder in engines:
        try:
            options = trusted_fits(folder, read_manifest(folder), kind, index, trust_plans)
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


def _choose(folder: Path, manifest: EngineManifest, how: LoadOptions, kind: str | None, index: int | None) -> _Choice:
    options = trusted_fits(folder, manifest, kind, index, how.trust_plans)
    untrusted = [o for o in options if o.untrusted]
    advice = f"trust it with --trust-plans (trust_plans=True), or rebuild: {rebuild_command(folder, manifest)}"
    for option in options:
        if option.fits and option.target == "cpu" and untrusted:
            first = untrusted[0]
            name = first.plan.file if first.plan else ""
            notice = GmsError(f"plan {name} {first.reason}: running the CPU graph", where=folder, fix=advice).line()
            return _Choice(option, notice)
        if option.fits:
            return _Choice(option)
    holds = "; ".join(f"{o.plan.file if o.plan else 'cpu graph'}: {o.reason}" for o in options)
    asked = f" on {kind}" if kind else ""
    raise DeviceError(
        f"cannot run{asked} on this machine ({holds or 'nothing built for it'})",
        where=folder,
        fix=advice if untrusted else f"build it here: {rebuild_command(folder, manifest)}",
    )


def _cpu_runner(folder: Path, manifest: EngineManifest, how: LoadOptions) -> Runner:
    from gms_rt.runtime.cpu import CpuRunner
    from gms_rt.runtime.options import CpuSettings

    settings = CpuSettings(
        threads=how.threads,
        lanes=how.lanes,
        mode=how.mode,
        batch=how.batch,
        trial=how.trial,
        cache=compiled_graphs(),
    )
    try:
        # The folder, not the file: the C library compares the graph with its hash and opens nothing that is not listed.
        return CpuRunner(folder, settings, quantised=manifest.precision == "int8")
    except (NativeError, UsageError) as error:
        if how.batch not in (0, manifest.batch):
            raise _fixed_batch(folder, manifest, how.batch) from error
        raise


def _fixed_batch(folder: Path, manifest: EngineManifest, batch: int) -> UsageError:
    return UsageError(
        f"a batch of {batch} was asked, this engine's is fixed at {manifest.batch}",
        where=folder,
        fix=f"build it with --batch {batch}, or from a graph exported with --batch 1-{batch}",
    )


def plan_runner(
    folder: Path, manifest: EngineManifest, choice: Fit, how: LoadOptions, *, watch: LayerWatch | None = None
) -> TensorRtRunner:
    """A runner of the plan that was chosen, which is trusted; `watch` hears of its layers."""
    from gms_rt.runtime.kernel_cache import KeptKernels
    from gms_rt.runtime.options import CudaSettings
    from gms_rt.runtime.tensorrt import TensorRtRunner

    if choice.plan is None or choice.gpu is None:
        raise DeviceError("this plan has no GPU to run on", where=folder)
    kernels = compiled_kernels()
    settings = CudaSettings(
        batch=manifest.batch,
        height=manifest.height,
        width=manifest.width,
        device=choice.gpu,
        lanes=how.lanes,
        cuda_graph=how.cuda_graph,
    )
    return TensorRtRunner(
        folder / choice.plan.file,
        choice.target,
        settings,
        content=read_verified(folder, manifest, choice.plan.file),
        kernels=KeptKernels(kernels, choice.plan.sha256) if kernels is not None else None,
        execution=EXECUTIONS[manifest.precision],
        watch=watch,
    )
