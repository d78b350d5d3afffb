"""The scripts of `benchmarks/` as modules, for tests of their functions."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from support.trees import ROOT


def benchmark_script(name: str) -> ModuleType:
    """The module of `benchmarks/NAME.py`, loaded anew."""
    known = f"benchmark_{name}"
    found = importlib.util.spec_from_file_location(known, ROOT / "benchmarks" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = sys.modules[known] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
