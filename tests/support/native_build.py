"""Building C for tests: the fake runtimes and the example, with the compiler of this machine."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.trees import ROOT

NATIVE = ROOT / "gms_rt" / "native"
FLAGS = ["-std=c99", "-O1", "-D_POSIX_C_SOURCE=200809L", "-D_FILE_OFFSET_BITS=64", "-I", str(NATIVE / "include")]


@functools.cache
def scratch() -> Path:
    """A folder for what is built, one a test run: processes that share the tests share it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return Path(tempfile.mkdtemp(prefix="gms-rt-native-"))
    folder = Path(tempfile.gettempdir()) / f"gms-rt-native-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """In this block no other process of the test run builds."""
    with (scratch() / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


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
    shared = ["-fPIC", "-shared", "-fvisibility=hidden"]
    with one_at_a_time():
        if not target.exists():
            run([compiler(), *FLAGS, *shared, str(source), "-o", str(target), "-lpthread"])
    return target


@functools.cache
def installed_library() -> Path:
    """The library as `cmake --install --prefix` puts it below a folder, which was moved afterwards; or a skip."""
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("no cmake")
    compiler()
    build, first, moved = (scratch() / name for name in ("build", "first", "moved"))
    with one_at_a_time():
        if not moved.exists():
            run([cmake, "-S", str(NATIVE), "-B", str(build), "-DGMSRT_STRICT=ON", "-DCMAKE_INSTALL_LIBDIR=lib"])
            run([cmake, "--build", str(build)])
            run([cmake, "--install", str(build), "--prefix", str(first)])
            first.rename(moved)
    return moved


def pkg_config(name: str, *wanted: str) -> list[str]:
    """What pkg-config says of a package of the installed library, or a skip."""
    program = shutil.which("pkg-config")
    if program is None:
        pytest.skip("no pkg-config")
    env = {**os.environ, "PKG_CONFIG_PATH": str(installed_library() / "lib" / "pkgconfig")}
    said = subprocess.run([program, *wanted, name], env=env, capture_output=True, text=True, check=True).stdout
    return said.split()


def run(command: list[str], **options: object) -> None:
    """Run a command; its output is the failure's message."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr


def check_structures(pairs: dict[str, type[ctypes.Structure]], folder: Path) -> None:
    """Hold sizes and offsets of ctypes structures against those that the compiler gives the header's."""
    lines = ['#include "gms_rt.h"', "#include <stdio.h>", "int main(void) {"]
    expected = []
    for name, structure in pairs.items():
        lines.append(f'printf("%zu\\n", sizeof({name}));')
        expected.append(ctypes.sizeof(structure))
        for field in structure._fields_:
            lines.append(f'printf("%zu\\n", offsetof({name}, {field[0]}));')
            expected.append(getattr(structure, field[0]).offset)
    assert numbers_from_c([*lines, "return 0; }"], folder) == expected


def numbers_from_c(lines: list[str], folder: Path) -> list[int]:
    """The numbers that a C program prints, a line each."""
    source, program = folder / "numbers.c", folder / "numbers"
    source.write_text("\n".join(lines))
    run([compiler(), *FLAGS, str(source), "-o", str(program)])
    said = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    return [int(line) for line in said.split()]
