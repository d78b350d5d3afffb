"""Energy of a Jetson module from tegrastats; which rails make up the module depends on the board.

A rail reads `NAME now/average`, in milliwatts, with or without the unit; JetPack 7.2 adds the peak. Boards with a rail
for the whole input name it; on the others the rails that do not feed each other are added.
"""

from __future__ import annotations

import re
import subprocess

from gms_rt.bench.energy import PowerMeter

_SAMPLE_MS = 100

_RAIL = re.compile(r"(?<![\w@])([A-Z][A-Z0-9_]*) (-?\d+)(?:mW)?/-?\d+(?:mW)?(?:/-?\d+(?:mW)?)?(?= |$)")
# In the order in which they decide: VDD_IN is on Orin NX and Nano, Xavier NX and TX2, POM_5V_IN on Nano and TX1, VIN on
# Thor; AGX Orin, Thor without its carrier's monitor, and AGX Xavier have no rail for the whole.
_MODULES = (
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("VIN",),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)


class TegraMeter(PowerMeter):
    """Samples of tegrastats, the only source on Jetson."""

    source = "tegrastats (module)"

    def __init__(self, tool: str) -> None:
        super().__init__()
        self.tool = tool
        self._process: subprocess.Popen[str] | None = None

    def close(self) -> None:
        """End tegrastats and the thread."""
        self._ended.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        super().close()

    def _collect(self) -> None:
        command = [self.tool, "--interval", str(_SAMPLE_MS)]
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except OSError as error:
            self.trouble = f"it cannot be started ({error.strerror})"
            return
        self._process = process
        if self._ended.is_set():  # closed while it was being started
            process.terminate()
        last = ""
        with process:
            for line in process.stdout or ():
                last = line.strip() or last
                watts = module_watts(line)
                if watts is not None:
                    self.source = f"tegrastats ({' + '.join(module_rails(line))})"
                    self._note(watts)
        if not self._ended.is_set():
            self.trouble = f"it ended with status {process.returncode} ({last[-80:] or 'no word'})"
        elif not self.samples:
            self.trouble = "no line names the module's rails"


def module_rails(line: str) -> tuple[str, ...]:
    """The rails of this board that add up to its module, empty where none is known.

    >>> module_rails("RAM 2/7MB VDD_IN 5120mW/5000mW VDD_CPU_GPU_CV 800mW/790mW VDD_SOC 1400mW/1400mW")
    ('VDD_IN',)
    """
    found = rails(line)
    return next((names for names in _MODULES if all(name in found for name in names)), ())


def module_watts(line: str) -> float | None:
    """The module's draw, None where the line has no rail that adds up to it.

    >>> module_watts("VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 4968mW/5048mW")
    22.43
    """
    names, found = module_rails(line), rails(line)
    return sum(found[name] for name in names) / 1000 if names else None


def rails(line: str) -> dict[str, int]:
    """Every power rail of a line with its present milliwatts.

    >>> rails("RAM 1903/3964MB (lfb 2x4MB) EMC_FREQ 0%@204 POM_5V_IN 2500/2480 POM_5V_GPU 40/40")
    {'POM_5V_IN': 2500, 'POM_5V_GPU': 40}
    """
    return {name: int(now) for name, now in _RAIL.findall(line)}
