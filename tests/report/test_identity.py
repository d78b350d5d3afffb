"""A report names the board and its power mode, not only its GPU."""

from __future__ import annotations

from support.jetson_boards import AGX_ORIN, machine_from_files

from gms_rt.report.identity import identity_from_machine
from gms_rt.runtime.device import Cpu, Gpu, Machine


def test_a_board_with_its_mode_and_jetpack_is_named() -> None:
    identity = identity_from_machine(machine_from_files(AGX_ORIN))
    assert identity.device == "NVIDIA Jetson AGX Orin Developer Kit, p3701-0005, MAXN"
    hardware = {fact.label: (fact.value, fact.note) for fact in identity.hardware}
    assert hardware["Board"] == ("NVIDIA Jetson AGX Orin Developer Kit", "p3701-0005, MAXN")
    assert hardware["Processor"][0] == "Cortex-A78AE"
    assert hardware["GPU 0"][0] == "Orin"
    assert {fact.label: fact.value for fact in identity.software}["JetPack"] == "JetPack 6.2 (Jetson Linux 36.4.3)"


def test_a_machine_without_a_board_is_called_as_before() -> None:
    cpu = Cpu("a processor", "x86_64", 4, ())
    identity = identity_from_machine(Machine(cpu, (Gpu(0, "L4", 89, 2**34),), "13.0", "", {}))
    assert identity.device == "L4"
    assert "Board" not in [fact.label for fact in identity.hardware]
    assert "JetPack" not in [fact.label for fact in identity.software]
