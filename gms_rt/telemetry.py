"""Libraries that report their use to their makers are told not to, before they are imported.

- `import openvino` imports its model converter, which makes a client id in `~/intel` and looks up an analytics host. It
  does neither where the package `openvino_telemetry` cannot be imported: it then uses a stub of its own.
- ONNX Runtime (which onnxsim imports too) collects events in `~/.cache/Microsoft` and uploads them.
- Hugging Face's hub client names what calls it with each download.
- Ray reports what a cluster is and which of its libraries are used.

Every import of one of these goes through `quiet_module`; ruff refuses any other (`banned-api`). A program that uses
gms_rt as a library can import `openvino_telemetry` itself before and after: it is hidden while OpenVINO is imported.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from typing import Any

_CLIENT = "openvino_telemetry"
_IMPORTING = threading.RLock()
_SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def forbid_telemetry() -> None:
    """Switch reports off for this process and those it starts; a switch that the user has set stays as it is.

    For a program that is gms-rt's own: OpenVINO's client is hidden for good.
    """
    _set_switches()
    if "openvino" not in sys.modules:
        sys.modules[_CLIENT] = None  # type: ignore[assignment]  # Python's own way to make an import fail


def quiet_module(name: str) -> Any:
    """Import a module that would report its use, and return it."""
    if name in sys.modules:
        return sys.modules[name]
    with _IMPORTING:
        _set_switches()
        known, before = _CLIENT in sys.modules, sys.modules.get(_CLIENT)
        sys.modules[_CLIENT] = None  # type: ignore[assignment]
        try:
            return importlib.import_module(name)
        finally:
            sys.modules.pop(_CLIENT, None)
            if known:
                sys.modules[_CLIENT] = before  # type: ignore[assignment]


def _set_switches() -> None:
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
