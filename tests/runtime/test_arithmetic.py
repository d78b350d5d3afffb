"""Which arithmetic a CPU has is what its runtime says, and a precision asks for no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gms_rt.errors import DeviceError
from gms_rt.runtime import arithmetic, library
from gms_rt.runtime.arithmetic import CpuArithmetic, cpu_arithmetic, cpu_execution
from gms_rt.runtime.signal_stack import cpu_core


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    cpu_arithmetic.cache_clear()
    yield
    cpu_arithmetic.cache_clear()


def test_it_is_what_openvino_reports() -> None:
    reported = cpu_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    found = cpu_arithmetic()
    assert sorted(found.capabilities) == sorted(reported)
    assert (found.fp16, found.bf16, found.problem) == ("FP16" in reported, "BF16" in reported, "")
    assert found.name == cpu_core().get_property("CPU", "FULL_DEVICE_NAME")


@pytest.mark.parametrize(
    ("fp16", "bf16", "expected"),
    [(True, True, ("f16", "bf16")), (True, False, ("f16", "")), (False, True, ("f32", "bf16"))],
)
def test_a_precision_asks_for_what_is_there(
    monkeypatch: pytest.MonkeyPatch, fp16: bool, bf16: bool, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(arithmetic, "cpu_arithmetic", lambda: CpuArithmetic(fp16, bf16, name="a CPU"))
    assert (cpu_execution("fp16"), cpu_execution("fp32"), cpu_execution("int8")) == (expected[0], "f32", "f32")
    if bf16:
        assert cpu_execution("bf16") == expected[1]
        return
    with pytest.raises(DeviceError, match=r"no BF16 arithmetic on this CPU \(a CPU\)") as caught:
        cpu_execution("bf16")
    assert "--precision int8" in str(caught.value.fix)


def test_without_openvino_nothing_is_known_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_openvino", lambda: Path("/nowhere/libopenvino_c.so"))
    found = cpu_arithmetic()
    assert (found.fp16, found.bf16) == (None, None) and "OpenVINO cannot be loaded" in found.problem
    assert cpu_execution("fp16") == "f32"
    with pytest.raises(DeviceError, match="not known whether this CPU has BF16"):
        cpu_execution("bf16")
