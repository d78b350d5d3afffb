"""Whether DICOM objects keep to the standard, as David Clunie's dciodvfy judges them (Debian's dicom3tools)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def needs_dciodvfy() -> None:
    """Skip the test where the tool is absent."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (apt-get install dicom3tools)")


def dicom_errors(path: Path) -> list[str]:
    """The errors that dciodvfy finds; its warnings are about what is allowed and unusual."""
    found = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace")
    said = found.stdout + found.stderr
    assert "Segmentation" in said or "SR" in said, said[:300]  # it names the kind of object that it judged
    return [line for line in said.splitlines() if line.startswith("Error")]
