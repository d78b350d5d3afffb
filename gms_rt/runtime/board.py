"""Which board this is: its model, module and power mode, and on a Jetson its JetPack.

A GPU's name does not tell boards apart: "Orin" is the GPU of an Orin Nano with 4 GB and of an AGX Orin with 64 GB, and
the power mode decides how much of it runs. All comes from files below `root`; only where they do not tell the mode is
nvpmodel asked. Nothing here can fail.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gms_rt.runtime.kernel_files import kernel_text

ROOT = Path("/")
_MODEL, _COMPATIBLE = "proc/device-tree/model", "proc/device-tree/compatible"
_RELEASE = "etc/nv_tegra_release"
_PACKAGES = "var/lib/dpkg/status"
_MODE, _MODES = "var/lib/nvpmodel/status", "etc/nvpmodel.conf"
# Jetson Linux (L4T) is older than the name that people use; its major version decides JetPack's.
_JETPACK = {32: 4, 34: 5, 35: 5, 36: 6, 38: 7, 39: 7}
# Any of these carries the version of the JetPack that apt installed.
_JETPACK_PACKAGES = ("nvidia-jetpack", "nvidia-jetpack-runtime", "nvidia-jetpack-dev")
# Words of a model's name that tell no boards apart.
_SAID_OF_ALL = {"nvidia", "engineering", "reference", "developer", "kit"}


@dataclass(frozen=True)
class Board:
    """What the device tree, Jetson Linux and nvpmodel say of a board."""

    model: str  # "NVIDIA Jetson AGX Orin Developer Kit"
    module: str | None = None  # NVIDIA's number of the module on it, "p3701-0005"; tells an Orin Nano's 4 from 8 GB
    l4t: str | None = None  # version of Jetson Linux, "36.4.3"; None on boards that are not a Jetson
    jetpack: str | None = None  # version of the JetPack that apt installed, "6.2"; its packages are not always there
    power_mode: str | None = None  # nvpmodel's name for the mode, "MAXN"

    @property
    def jetson(self) -> bool:
        """Whether it runs NVIDIA's Jetson Linux."""
        return self.l4t is not None

    @property
    def jetpack_major(self) -> int | None:
        """5, 6 or 7; known from Jetson Linux where JetPack's packages are not installed."""
        version = re.match(r"\d+", self.jetpack or "")
        if version:
            return int(version[0])
        return _JETPACK.get(int(self.l4t.partition(".")[0])) if self.l4t else None

    @property
    def in_words(self) -> str:
        """Model, module and mode on one line."""
        return ", ".join(filter(None, (self.model, self.module, self.power_mode)))

    @property
    def software(self) -> str | None:
        """JetPack and Jetson Linux on one line, None on a board that is not a Jetson."""
        if self.l4t is None:
            return None
        if self.jetpack:
            return f"JetPack {self.jetpack} (Jetson Linux {self.l4t})"
        major = self.jetpack_major
        return f"Jetson Linux {self.l4t}" + (f", of JetPack {major} (its packages are not installed)" if major else "")

    @property
    def short(self) -> str:
        """Model, module and mode without the words that all boards share."""
        words = [word for word in self.model.split() if word.lower() not in _SAID_OF_ALL]
        return " ".join(filter(None, (*words, self.module, self.power_mode)))


def board_from_files(root: Path = ROOT) -> Board | None:
    """The board that the files below `root` describe; None where there is no device tree and no Jetson Linux."""
    model = kernel_text(root / _MODEL)
    if model is not None and model.startswith("linux,"):  # what virtual machines write there
        model = None
    l4t = _l4t(root)
    if l4t is None:
        return Board(model) if model else None
    return Board(model or "Jetson", _module(root), l4t, _jetpack(root), power_mode(root))


def power_mode(root: Path = ROOT) -> str | None:
    """The mode that nvpmodel keeps for this board, by name; None where there is no nvpmodel or it cannot be read."""
    text = kernel_text(root / _MODES) or ""
    names: dict[str, str] = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text))
    kept = re.search(r"pmode:(\d+)", kernel_text(root / _MODE) or "")
    if kept:
        number = str(int(kept[1]))
        return names.get(number, f"mode {number}")
    return _asked_mode()


def _asked_mode() -> str | None:
    """The mode that the tool prints, where its files cannot be read, as in a container."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        run = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = re.search(r"Power Mode:\s*(\S+)", run.stdout)
    return str(said[1]) if said else None


def _l4t(root: Path) -> str | None:
    """The version in the first line of nv_tegra_release: `# R36 (release), REVISION: 4.3, GCID: …`."""
    found = re.match(r"#\s*R(\d+)\s*\(\w+\),\s*REVISION:\s*([\d.]+)", kernel_text(root / _RELEASE) or "")
    return f"{found[1]}.{found[2].strip('.')}" if found else None


def _module(root: Path) -> str | None:
    """The module's number in the first name of the device tree, `nvidia,<carrier>+<module>`; on a Xavier the kit's."""
    first = (kernel_text(root / _COMPATIBLE) or "").partition("\0")[0]
    numbers = re.findall(r"p\d{4}-\d{4}", first)
    return numbers[-1] if numbers else None


def _jetpack(root: Path) -> str | None:
    """JetPack's version from the package list, without the build number behind it."""
    text = kernel_text(root / _PACKAGES) or ""
    for name in _JETPACK_PACKAGES:
        entry = re.search(rf"^Package: {name}\n(?:.+\n)*", f"{text}\n", re.MULTILINE)
        if entry and "\nStatus: install ok installed\n" in entry[0]:
            version = re.search(r"^Version: (\d+(?:\.\d+)*)", entry[0], re.MULTILINE)
            if version:
                return version[1]
    return None
