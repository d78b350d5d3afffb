"""Every way to run an engine folder on this machine, and why the others do not fit."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from gms_rt.engine.manifest import EngineManifest, Plan
from gms_rt.engine.trust import plan_trust
from gms_rt.runtime.arithmetic import cpu_arithmetic, lacks_bf16
from gms_rt.runtime.device import Machine, probe
from gms_rt.runtime.tensorrt_module import driver_problem, how_to_install, tensorrt_version


@dataclass(frozen=True)
class Fit:
    """One way to run an engine here: `reason` is empty when it fits."""

    target: str
    plan: Plan | None
    gpu: int | None
    reason: str
    untrusted: bool = False  # it would fit, but nobody vouches for the plan

    @property
    def fits(self) -> bool:
        """Whether it can run on this machine."""
        return not self.reason


def engine_fits(manifest: EngineManifest, machine: Machine | None = None, *, gpu: int | None = None) -> list[Fit]:
    """Every way to run this engine, GPU plans first, each with the reason where it does not fit.

    `gpu` asks for one GPU by number; otherwise the one that a plan was timed on is taken, else the first of its SM.
    """
    here = machine or probe()
    found = [_plan_fit(plan, here, gpu) for plan in manifest.plans]
    if "cpu" in manifest.targets:
        found.append(Fit("cpu", None, None, _cpu_reason(manifest)))
    return found


def _plan_fit(plan: Plan, machine: Machine, wanted: int | None) -> Fit:
    candidates = [g for g in machine.gpus if wanted in (None, g.index)]
    same = sorted((g for g in candidates if g.sm == plan.sm), key=lambda g: g.name != plan.device)
    gpu = same[0].index if same else None  # where two GPUs are of that SM, the one that its kernels were timed on
    installed = tensorrt_version(plan.target)
    if not machine.gpus:
        reason = machine.driver_note
    elif not candidates:
        reason = f"there is no GPU {wanted}, this machine has {len(machine.gpus)}"
    elif gpu is None:
        here = ", ".join(f"SM{g.sm} ({g.name})" for g in candidates)
        reason = f"built for SM{plan.sm}, this machine has {here}"
    elif installed is None:
        reason = f"needs {plan.target}: {how_to_install(plan.target, machine)}"
    elif installed not in (plan.version, "unknown"):
        reason = f"built with {plan.target} {plan.version}, installed is {installed}"
    else:
        reason = driver_problem(plan.target, machine)
    return Fit(plan.target, plan, gpu, reason)


def _cpu_reason(manifest: EngineManifest) -> str:
    if not cpu_arithmetic().installed:
        return "needs OpenVINO: pip install openvino"
    # An f16 engine is the same graph in f32, so it runs on any CPU. An INT8 engine with a bf16 remainder does if its
    # gate was met in f32 too; a bf16 engine would be the FP32 engine by another name.
    needed = manifest.execution == "bf16" and manifest.fallback != "f32"
    reason = lacks_bf16(cpu_arithmetic()) if needed else ""
    return f"asks for bf16: {reason}" if reason else ""


def trusted_fits(
    folder: Path, manifest: EngineManifest, kind: str | None, gpu: int | None, trust_plans: bool
) -> list[Fit]:
    """The ways to run an engine folder on the CPU, on a GPU, or (None) both.

    A plan that would fit and that nobody vouches for has that as its reason.
    """
    found = []
    for option in engine_fits(manifest, gpu=gpu):
        if kind is not None and (option.target == "cpu") != (kind == "cpu"):
            continue
        if option.fits and option.plan is not None and not trust_plans:
            trust = plan_trust(folder, option.plan)
            if not trust.trusted:
                option = dataclasses.replace(option, reason=trust.reason, untrusted=True)
        found.append(option)
    return found
