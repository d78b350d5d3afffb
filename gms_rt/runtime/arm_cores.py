"""Names of Arm cores. On Arm the kernel gives a core's maker and number; a name it has not, or only a placeholder."""

from __future__ import annotations

_ARM = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0C: "Neoverse N1", 0xD0D: "Cortex-A77",
    0xD0E: "Cortex-A76AE", 0xD40: "Neoverse V1", 0xD41: "Cortex-A78", 0xD42: "Cortex-A78AE", 0xD43: "Cortex-A65AE",
    0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2", 0xD49: "Neoverse N2",
    0xD4A: "Neoverse E1", 0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse V2",
    0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD83: "Neoverse V3AE", 0xD84: "Neoverse V3",
    0xD85: "Cortex-X925", 0xD87: "Cortex-A725", 0xD8E: "Neoverse N3",
}  # fmt: skip
# By the maker's number in the register MIDR_EL1, which /proc/cpuinfo calls "CPU implementer".
_CORES = {
    0x41: _ARM,
    0x46: {0x001: "A64FX"},
    0x48: {0xD01: "TaiShan V110"},
    0x4E: {0x003: "Denver 2", 0x004: "Carmel"},
    0x51: {0x001: "Oryon"},
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1a"},
}


def cores_from_cpuinfo(text: str) -> str | None:
    """The kinds of core that /proc/cpuinfo lists, in its order; None where it lists none, as on x86.

    >>> cores_from_cpuinfo("CPU implementer : 0x41\\nCPU part : 0xd42\\nCPU implementer : 0x41\\nCPU part : 0xd42")
    'Cortex-A78AE'
    """
    found: dict[str, None] = {}
    maker = None
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        try:
            if key == "CPU implementer":
                maker = int(value, 0)
            elif key == "CPU part" and maker is not None:
                part = int(value, 0)
                found[_CORES.get(maker, {}).get(part) or f"Arm core {maker:#04x}/{part:#05x}"] = None
        except ValueError:
            continue  # a line of another form
    return " + ".join(found) or None
