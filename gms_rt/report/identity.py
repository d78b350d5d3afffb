"""Which machine and which software a report is about."""

from __future__ import annotations

import os
import platform

from gms_rt.report.model import Fact, Identity
from gms_rt.report.text import size
from gms_rt.runtime.device import Machine, probe


def identity_from_machine(machine: Machine | None = None) -> Identity:
    """This machine and its software."""
    here = machine or probe()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    board = here.board
    hardware = [Fact("Board", board.model, ", ".join(filter(None, (board.module, board.power_mode))))] if board else []
    hardware += [
        Fact("Processor", here.cpu.name, f"{here.cpu.architecture}, {here.cpu.cores} usable cores"),
        Fact("Instructions", ", ".join(here.cpu.features) or "none of note"),
        Fact("Memory", size(memory)),
    ]
    hardware += [Fact(f"GPU {g.index}", g.name, f"SM{g.sm}, {size(g.memory_bytes)}") for g in here.gpus]
    if not here.gpus:
        hardware.append(Fact("GPU", "none", here.driver_note))
    software = [Fact("System", f"{platform.system()} {platform.release()}"), Fact("Python", platform.python_version())]
    if board and board.software:
        software.append(Fact("JetPack", board.software))
    if here.driver:
        software.append(Fact("NVIDIA driver supports CUDA", here.driver))
    software += [Fact(name, version) for name, version in sorted(here.packages.items()) if version]
    return Identity(here.title, tuple(hardware), tuple(software))
