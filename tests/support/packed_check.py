"""The check script of a packed folder, run in this process."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from gms_rt.runtime.signal_stack import keep_signal_stack


def check(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """What check.py in a folder says, with that folder's own client."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "client", raising=False)
    monkeypatch.setattr(sys, "argv", ["check.py", *arguments])
    # The client is not gms-rt's: it opens OpenVINO as any program does.
    with keep_signal_stack(), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(folder / "check.py"), run_name="__main__")
    monkeypatch.delitem(sys.modules, "client", raising=False)
    return int(ended.value.code or 0)
