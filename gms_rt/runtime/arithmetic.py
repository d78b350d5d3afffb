"""The arithmetic that the CPU's runtime really has: OpenVINO's own report, asked once per process.

A processor's flags say little: OpenVINO decides which of them it uses. It is asked through the C library, so neither
its Python module nor torch is imported. INT8 is another question, because OpenVINO takes every quantised graph and may
compute it in FP32: `gms_rt.precision.int8_probe` looks at what it runs.
"""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass

from gms_rt.errors import DeviceError, GmsError
from gms_rt.runtime import library as c


@dataclass(frozen=True)
class CpuArithmetic:
    """What OpenVINO says about this CPU; None where nobody can be asked."""

    fp16: bool | None  # it computes in FP16
    bf16: bool | None
    capabilities: tuple[str, ...] = ()  # in OpenVINO's own words
    name: str = ""  # of the processor, as OpenVINO has it
    problem: str = ""  # why nothing is known, or ""
    installed: bool = True  # whether there is an OpenVINO to ask


@functools.cache
def cpu_arithmetic() -> CpuArithmetic:
    """Ask OpenVINO's C library; never fails."""
    about = c.Processor()
    try:
        library, found = c.load_library(), c.find_openvino()
        path = None if found is None else os.fsencode(found)
        status = library.gmsrt_probe_cpu(path, ctypes.byref(about), ctypes.sizeof(about))
        if status == c.NO_RUNTIME and found is None:
            return CpuArithmetic(None, None, problem="OpenVINO is not installed", installed=False)
        c.check_status(library, status)
    except GmsError as error:
        return CpuArithmetic(None, None, problem=error.line())
    words = about.capabilities.decode(errors="replace").split()
    name = about.name.decode(errors="replace")
    if not words:
        return CpuArithmetic(None, None, name=name, problem="OpenVINO does not tell what this CPU computes in")
    return CpuArithmetic(bool(about.f16), bool(about.bf16), tuple(words), name)


def lacks_bf16(arithmetic: CpuArithmetic) -> str:
    """Why BF16 cannot be asked of this CPU, or ""."""
    if arithmetic.bf16:
        return ""
    if arithmetic.bf16 is None:
        return f"it is not known whether this CPU has BF16 arithmetic ({arithmetic.problem})"
    return f"OpenVINO has no BF16 arithmetic on this CPU ({arithmetic.name})"


def cpu_execution(precision: str) -> str:
    """The arithmetic of a precision on this CPU: f16 only where OpenVINO has it, else f32; bf16 or a refusal."""
    arithmetic = cpu_arithmetic()
    if precision == "fp16":
        return "f16" if arithmetic.fp16 else "f32"
    if precision != "bf16":
        return "f32"
    reason = lacks_bf16(arithmetic)
    if reason:
        raise DeviceError(
            reason,
            where="--target cpu --precision bf16",
            fix="use --precision int8 for speed or fp32 here, or --target tensorrt-rtx",
        )
    return "bf16"
