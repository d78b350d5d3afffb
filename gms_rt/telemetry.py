"""Libraries that report their use to their makers are told not to, before they are imported.

- `import openvino` imports its model converter, which makes a client id in `~/intel` and looks up an analytics host. It
  does neither where the package `openvino_telemetry` cannot be imported: it then uses a stub of its own.
- ONNX Runtime (which onnxsim imports too) collects events in `~/.cache/Microsoft` and uploads them.
- Hugging Face's hub client names what calls it with each download.

Every import of one of these goes through `quiet_module`; ruff refuses any other (`banned-api`).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

_SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def forbid_telemetry() -> None:
    """Switch reports off for this process and those it starts; a switch that the user has set stays as it is."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's own way to make an import fail


def quiet_module(name: str) -> Any:
    """Import a module that would report its use, and return it."""
    forbid_telemetry()
    return importlib.import_module(name)
