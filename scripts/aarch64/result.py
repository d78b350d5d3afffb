"""Writes what passed in the emulated system, with versions and without timings: WORK, then the folder of results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CPUS = ("cortex-a72", "cortex-a76")
NAMED = ("numpy", "onnx", "opencv-python-headless", "openvino", "pydicom")


def tests(report: Path) -> dict[str, int]:
    """How many tests passed, and how many were skipped; none failed, or the step would have."""
    suite = re.search(r"<testsuite [^>]*>", report.read_text(encoding="utf-8"))
    assert suite, f"{report} is not a report of pytest"
    count, skipped = (int(re.search(rf' {name}="(\d+)"', suite[0])[1]) for name in ("tests", "skipped"))
    return {"passed": count - skipped, "skipped": skipped}


def versions(wheels: Path, root_name: str) -> dict[str, str]:
    """QEMU, the system inside, and the wheels that the engine depends on."""
    qemu = subprocess.run(["qemu-aarch64-static", "--version"], capture_output=True, text=True, check=True).stdout
    found = {wheel.name.split("-")[0].replace("_", "-"): wheel.name.split("-")[1] for wheel in wheels.glob("*.whl")}
    return {"qemu": qemu.splitlines()[0], "system": root_name, **{name: found[name] for name in NAMED}}


def main(work: Path, out: Path) -> None:
    """One file; a person reads it, a test checks its form."""
    results = work / "inside/results"
    system = dict(
        line.split("=", 1) for line in (work / "os-release").read_text().splitlines() if "=" in line
    )["PRETTY_NAME"].strip('"')  # fmt: skip
    boards: dict[str, Any] = {}
    for told in sorted(results.glob("board-*.json")):
        machine = json.loads(told.read_text())["machine"]
        boards[told.stem.removeprefix("board-")] = {"processor": machine["cpu"]["name"], "board": machine.get("board")}
    value = {
        "command": "scripts/check-aarch64",
        "emulated": "qemu-user; nothing here says how fast a board is",
        "versions": versions(work / "inside/wheels", system),
        "c_library": "warnings as errors, all C tests passed",
        "tests": tests(results / "tests.xml"),
        "boards": boards,
        "cpus": {cpu: json.loads((results / f"{cpu}.json").read_text())["passed"] for cpu in CPUS},
    }
    out.mkdir(parents=True, exist_ok=True)
    file = out / "result.json"
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"all passed; written to {file}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
