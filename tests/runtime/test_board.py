"""Boards are told apart by what they say of themselves: model, module, power mode, JetPack."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.jetson_boards import AGX_ORIN, OLD_ORIN_NANO, ORIN_NANO, THOR, XAVIER, machine_from_files

from gms_rt.runtime.arm_cores import cores_from_cpuinfo
from gms_rt.runtime.board import Board, board_from_files, power_mode
from gms_rt.runtime.device import Cpu, Gpu, Machine, cpu_from_files, processor_name
from gms_rt.runtime.kernel_files import kernel_text


@pytest.fixture
def no_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without nvpmodel."""
    monkeypatch.setattr("gms_rt.runtime.board.shutil.which", lambda name: None)


@pytest.mark.parametrize(
    ("root", "board", "software"),
    [
        (AGX_ORIN, Board("NVIDIA Jetson AGX Orin Developer Kit", "p3701-0005", "36.4.3", "6.2", "MAXN"),
         "JetPack 6.2 (Jetson Linux 36.4.3)"),
        (ORIN_NANO, Board("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "p3767-0005", "36.4.7",
                          None, "25W"),
         "Jetson Linux 36.4.7, of JetPack 6 (its packages are not installed)"),
        (OLD_ORIN_NANO, Board("NVIDIA Orin Nano Developer Kit", "p3767-0003", "35.3.1", "5.1.1", "15W"),
         "JetPack 5.1.1 (Jetson Linux 35.3.1)"),
        (XAVIER, Board("Jetson-AGX", "p2972-0000", "35.4.1", "5.1.2", "MODE_15W"),
         "JetPack 5.1.2 (Jetson Linux 35.4.1)"),
        (THOR, Board("NVIDIA Jetson AGX Thor Developer Kit", "p3834-0008", "38.2.0", "7.0", "120W"),
         "JetPack 7.0 (Jetson Linux 38.2.0)"),
    ],
)  # fmt: skip
def test_a_board_is_read_from_its_files(root: Path, board: Board, software: str) -> None:
    assert board_from_files(root) == board
    assert board.jetson
    assert board.software == software


@pytest.mark.parametrize(("l4t", "major"), [("35.6.0", 5), ("36.4.3", 6), ("38.4.0", 7), ("39.2.0", 7), ("99.0", None)])
def test_jetson_linux_tells_which_jetpack(l4t: str, major: int | None) -> None:
    assert Board("a board", l4t=l4t).jetpack_major == major


def test_a_machine_without_a_device_tree_has_no_board(tmp_path: Path, no_tool: None) -> None:
    assert board_from_files(tmp_path) is None
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("linux,dummy-virt\0")
    assert board_from_files(tmp_path) is None
    (tmp_path / "proc/device-tree/model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    found = board_from_files(tmp_path)
    assert found == Board("Raspberry Pi 4 Model B Rev 1.4")
    assert not found.jetson
    assert found.software is None
    assert (
        Machine(Cpu("Cortex-A72", "aarch64", 4, ()), (), None, "", {}, found).name == "raspberry-pi-4-model-b-rev-1-4"
    )


def test_a_release_file_of_another_form_is_not_guessed_at(tmp_path: Path, no_tool: None) -> None:
    shutil.copytree(AGX_ORIN, tmp_path, dirs_exist_ok=True)
    (tmp_path / "etc/nv_tegra_release").write_text("something else\n")
    assert board_from_files(tmp_path) == Board("NVIDIA Jetson AGX Orin Developer Kit")


def test_boards_and_modes_with_the_same_gpu_have_other_names(tmp_path: Path) -> None:
    other_mode = shutil.copytree(AGX_ORIN, tmp_path / "board")
    (other_mode / "var/lib/nvpmodel/status").write_text("pmode:0002 fmode:fanNull\n")
    machines = [machine_from_files(root) for root in (AGX_ORIN, other_mode, ORIN_NANO)]
    assert [machine.name for machine in machines] == [
        "jetson-agx-orin-p3701-0005-maxn",
        "jetson-agx-orin-p3701-0005-mode-30w",
        "jetson-orin-nano-super-p3767-0005-25w",
    ]
    assert len({machine.title for machine in machines}) == 3
    assert machines[0].processor == "Cortex-A78AE, NVIDIA Jetson AGX Orin Developer Kit, p3701-0005, MAXN"
    assert machines[0].title == "NVIDIA Jetson AGX Orin Developer Kit, p3701-0005, MAXN"


def test_a_gpu_plugged_into_a_board_is_named_too() -> None:
    plugged = machine_from_files(AGX_ORIN, Gpu(0, "RTX A6000", 86, 2**35))
    assert plugged.name == "jetson-agx-orin-p3701-0005-maxn-rtx-a6000"


def test_the_mode_is_known_without_names_and_from_the_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tool: None
) -> None:
    (tmp_path / "var/lib/nvpmodel").mkdir(parents=True)
    (tmp_path / "var/lib/nvpmodel/status").write_text("pmode:0008\n")
    assert power_mode(tmp_path) == "mode 8"
    (tmp_path / "var/lib/nvpmodel/status").unlink()
    assert power_mode(tmp_path) is None
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Fan Mode:quiet'\necho 'NV Power Mode: MODE_50W'\necho 3\n")
    tool.chmod(0o755)
    monkeypatch.setattr("gms_rt.runtime.board.shutil.which", lambda name: str(tool))
    assert power_mode(tmp_path) == "MODE_50W"
    tool.write_text("#!/bin/sh\necho 'only root may ask'\nexit 1\n")
    assert power_mode(tmp_path) is None


@pytest.mark.parametrize(
    ("root", "name"),
    [(AGX_ORIN, "Cortex-A78AE"), (OLD_ORIN_NANO, "Cortex-A78AE"), (XAVIER, "Carmel"), (THOR, "Neoverse V3AE")],
)
def test_an_arm_processor_is_called_by_its_core(root: Path, name: str) -> None:
    found = cpu_from_files(root)
    assert found.name == name
    assert "asimdhp" in found.features


def test_servers_and_unknown_cores_have_names_too() -> None:
    line = "CPU implementer\t: {}\nCPU architecture: 8\nCPU part\t: {}\n"
    assert cores_from_cpuinfo(line.format("0x41", "0xd0c")) == "Neoverse N1"
    assert cores_from_cpuinfo(line.format("0x41", "0xd05") + line.format("0x41", "0xd41")) == "Cortex-A55 + Cortex-A78"
    assert cores_from_cpuinfo(line.format("0x41", "0xfff")) == "Arm core 0x41/0xfff"
    assert cores_from_cpuinfo("model name\t: AMD EPYC\nflags\t: avx2\n") is None
    assert cores_from_cpuinfo(line.format("odd", "odder")) is None


def test_the_runtimes_word_for_the_processor_is_kept_where_it_has_one() -> None:
    intel, arm = Cpu("kernel's name", "x86_64", 2, ()), Cpu("Cortex-A78AE", "aarch64", 12, ())
    assert processor_name("Intel(R) Xeon(R)", Machine(intel, (), None, "", {})) == "Intel(R) Xeon(R)"
    assert processor_name("ARM CPU", Machine(arm, (), None, "", {})) == "Cortex-A78AE"


def test_a_sensor_that_is_switched_off_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Python raises TypeError from `read_text` when the kernel answers EAGAIN."""

    def again(path: Path, **options: str) -> str:
        raise TypeError("can't concat NoneType to bytes")

    monkeypatch.setattr(Path, "read_text", again)
    assert kernel_text(tmp_path / "temp") is None
