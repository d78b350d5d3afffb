"""What a machine is called, which devices can be named, and which arithmetic a processor has."""

from __future__ import annotations

import dataclasses

import pytest

from gms_rt.errors import DeviceError, UsageError
from gms_rt.runtime.device import Cpu, Gpu, Machine, cpu_execution, parse_device

PLAIN_CPU = Cpu("plain cpu", "x86_64", 2, ("avx2",))


def test_a_gpu_gives_the_machine_its_name() -> None:
    cpu = Cpu("AMD", "x86_64", 2, ())
    orin = Machine(cpu, (Gpu(0, "Orin (nvgpu)", 87, 2**33),), "12.6", "", {})
    assert orin.name == "orin-nvgpu"


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cpu:1", "cuda:-1", ""])
def test_odd_devices_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="use cpu, cuda or cuda:N"):
        parse_device(text)


def test_bf16_on_a_cpu_without_it_is_refused() -> None:
    with pytest.raises(DeviceError, match="no BF16 arithmetic") as caught:
        cpu_execution("bf16", Machine(PLAIN_CPU, (), None, "", {}))
    assert "--precision int8" in str(caught.value.fix)
    able = dataclasses.replace(PLAIN_CPU, features=("avx512_bf16",))
    assert cpu_execution("bf16", Machine(able, (), None, "", {})) == "bf16"
    assert cpu_execution("fp16", Machine(PLAIN_CPU, (), None, "", {})) == "f32"
