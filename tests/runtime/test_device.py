"""What a machine is called, and which devices can be named."""

from __future__ import annotations

import pytest

from gms_rt.errors import UsageError
from gms_rt.runtime.device import Cpu, Gpu, Machine, parse_device


def test_a_gpu_gives_the_machine_its_name() -> None:
    cpu = Cpu("AMD", "x86_64", 2, ())
    orin = Machine(cpu, (Gpu(0, "Orin (nvgpu)", 87, 2**33),), "12.6", "", {})
    assert orin.name == "orin-nvgpu"


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cpu:1", "cuda:-1", ""])
def test_odd_devices_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="use cpu, cuda or cuda:N"):
        parse_device(text)
