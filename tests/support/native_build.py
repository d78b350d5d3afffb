"""Building C for tests: the fake runtimes and the example, with the compiler of this machine."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from support.trees import ROOT

NATIVE = ROOT / "gms_rt" / "native"
FLAGS = ["-std=c99", "-O1", "-D_POSIX_C_SOURCE=200809L", "-D_FILE_OFFSET_BITS=64", "-I", str(NATIVE / "include")]


@functools.cache
def scratch() -> Path:
    """A folder for what is built, one a test run."""
    return Path(tempfile.mkdtemp(prefix="gms-rt-native-"))


def compiler() -> str:
    """The C compiler, or a skip."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler")
    return found


@functools.cache
def fake(name: str) -> Path:
    """The shared library of tests/fake_<name>.c."""
    target = scratch() / f"libfake_{name}.so"
    source = NATIVE / "tests" / f"fake_{name}.c"
    run([compiler(), *FLAGS, "-fPIC", "-shared", "-fvisibility=hidden", str(source), "-o", str(target), "-lpthread"])
    return target


def run(command: list[str], **options: object) -> None:
    """Run a command; its output is the failure's message."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
