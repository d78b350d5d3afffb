"""What an engine is built for: targets and compute capabilities (SMs), as asked or as this machine has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gms_rt.errors import DeviceError, UsageError
from gms_rt.precision.int8_probe import cpu_runs_int8
from gms_rt.runtime.arithmetic import cpu_arithmetic, cpu_execution
from gms_rt.runtime.device import Machine, probe
from gms_rt.runtime.tensorrt_module import driver_problem, load_tensorrt, tensorrt_installed

# Why the ahead-of-time compiler leaves an SM out, and what to do instead.
_REFUSED = {
    87: "Jetson Orin runs the full TensorRT of its JetPack: build there with --target tensorrt",
    90: "H100 and H200 run full TensorRT: build on that machine with --target tensorrt",
    110: "Jetson Thor runs the full TensorRT of its JetPack: build there with --target tensorrt",
}


def default_targets(precision: str, machine: Machine | None = None) -> tuple[str, ...]:
    """What a bare build is for: this CPU, its GPUs' TensorRT, and TensorRT-RTX where its wheels are installed."""
    here = machine or probe()
    found = ["cpu"] if cpu_arithmetic().installed else []
    if (precision == "bf16" and not cpu_arithmetic().bf16) or (precision == "int8" and not cpu_runs_int8()):
        found = []
    if here.gpus and tensorrt_installed("tensorrt"):
        found.append("tensorrt")
    if tensorrt_installed("tensorrt-rtx") and "tensorrt" not in found and _rtx_is_of_use(here):
        found.append("tensorrt-rtx")
    return tuple(found) or ("cpu",)  # the CPU's refusal names the reason and the alternatives


def _rtx_is_of_use(machine: Machine) -> bool:
    """Not beside GPUs that it does not run on: plans for other machines are asked for by name."""
    if not machine.gpus:
        return True
    known = ahead_of_time_sms(load_tensorrt("tensorrt-rtx", "building for tensorrt-rtx"))
    return any(gpu.sm in known for gpu in machine.gpus)


def check_cpu(precision: str) -> None:
    """Refuse a CPU engine of a precision that this machine's CPU does not compute in."""
    cpu_execution(precision)
    if precision == "int8" and not cpu_runs_int8():
        raise DeviceError(
            f"OpenVINO runs no convolution in INT8 on this CPU ({probe().cpu.name})",
            where="--target cpu --precision int8",
            fix="use --precision fp16 here, or --target tensorrt on a machine with an NVIDIA GPU",
        )


def wanted_plans(targets: Iterable[str], sms: tuple[int, ...]) -> list[tuple[str, int]]:
    """The plans to build, as flavour and SM; none for a CPU engine."""
    flavours = [target for target in targets if target != "cpu"]
    if sms and not flavours:
        raise UsageError("a CPU engine has no SM", where="--sm", fix="add --target tensorrt-rtx")
    return [
        (flavour, sm)
        for flavour in flavours
        for sm in choose_sms(flavour, load_tensorrt(flavour, f"building for {flavour}"), sms)
    ]


def choose_sms(flavour: str, trt: Any, asked: tuple[int, ...], machine: Machine | None = None) -> tuple[int, ...]:
    """The SMs to build for: those asked, else this machine's GPUs, else what an ahead-of-time builder offers."""
    here = machine or probe()
    own = tuple(dict.fromkeys(gpu.sm for gpu in here.gpus))
    if flavour == "tensorrt-rtx":
        known = ahead_of_time_sms(trt)
        for sm in asked:
            check_ahead_of_time(trt, sm)
        fitting = tuple(sm for sm in own if sm in known)
        if own and not fitting and not asked:
            raise DeviceError(
                f"TensorRT-RTX does not run on this machine's GPU ({here.gpus[0].name}, SM{own[0]})",
                where="--target tensorrt-rtx",
                fix=f"{_REFUSED.get(own[0], 'use --target tensorrt')}; for other machines name their --sm, say 86,89",
            )
        return asked or fitting or tuple(sm for sm in (89,) if sm in known) or known[-1:]
    if not own:
        raise DeviceError(
            f"full TensorRT builds only on the GPU it is for, and this machine has none ({here.driver_note})",
            where="--target tensorrt",
            fix="build on the device itself, or use --target tensorrt-rtx --sm 80,86,89 from here",
        )
    problem = driver_problem(flavour, here)
    if problem:
        raise DeviceError(problem, where="--target tensorrt")
    missing = [sm for sm in asked if sm not in own]
    if missing:
        raise DeviceError(
            f"full TensorRT cannot build for SM{missing[0]} here: this machine has SM{', SM'.join(map(str, own))}",
            where="--sm",
            fix="build on that device, or use --target tensorrt-rtx for SM75-SM121",
        )
    return asked or own[:1]


def ahead_of_time_sms(trt: Any) -> tuple[int, ...]:
    """The SMs a module can build for without their GPU; none for full TensorRT."""
    names = vars(getattr(trt, "ComputeCapability", object))
    return tuple(sorted(int(name[2:]) for name in names if name.startswith("SM") and name[2:].isdigit()))


def check_ahead_of_time(trt: Any, sm: int) -> None:
    """Refuse an SM that TensorRT-RTX does not build for, with what to do instead."""
    known = ahead_of_time_sms(trt)
    if sm not in known:
        fix = _REFUSED.get(sm, f"it builds for SM{', SM'.join(map(str, known))}")
        raise DeviceError(f"TensorRT-RTX cannot build for SM{sm}", where="--sm", fix=fix)


def sms_from_text(values: Iterable[str]) -> tuple[int, ...]:
    """SM numbers from `--sm` values: repeated or separated by commas, 89 or 8.9 or sm89.

    >>> sms_from_text(("80,8.6", "sm89"))
    (80, 86, 89)
    """
    found = []
    for text in ",".join(values).replace(" ", "").split(","):
        digits = text.lower().removeprefix("sm").replace(".", "")
        if text and not (digits.isdigit() and 50 <= int(digits) <= 999):
            raise UsageError(f"'{text}' is not a compute capability", where="--sm", fix="write 80,86,89")
        if text:
            found.append(int(digits))
    return tuple(dict.fromkeys(found))
