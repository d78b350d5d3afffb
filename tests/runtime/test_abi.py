"""What linked programs rely on: the committed list of the C library's ABI, on this processor and on 64-bit Arm.

An addition (a function, a constant, a field at the end of a structure) is written into the list:

    scripts/build-native && scripts/native-abi gms_rt/native/lib/libgms_rt.so > gms_rt/native/abi.txt

A line of the last release that changes or goes needs another `GMSRT_ABI_VERSION`, and so other names of symbols.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.native_build import NATIVE, compiler, run
from support.trees import ROOT

from gms_rt.runtime.library import ABI_VERSION, library_path

SCRIPT = ROOT / "scripts" / "native-abi"
LIST = NATIVE / "abi.txt"


def said(*arguments: object) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_abi_is_the_committed_one() -> None:
    if shutil.which("nm") is None or shutil.which("cc") is None:
        pytest.skip("no cc or no nm")
    assert said(library_path()) == LIST.read_text()


def test_every_function_of_the_header_is_exported_with_its_version_and_nothing_else() -> None:
    lines = LIST.read_text().splitlines()
    symbols = {line.removeprefix("symbol ") for line in lines if line.startswith("symbol ")}
    declared = {m[1] for m in (re.match(r"function .*?\b(gmsrt_\w+)\(", line) for line in lines) if m}
    assert symbols == {f"{name}@@GMSRT_{ABI_VERSION}" for name in declared}
    visible = set(re.findall(r"GMSRT_API [^;(]*?\b(gmsrt_\w+)\(", (NATIVE / "include" / "gms_rt.h").read_text()))
    assert visible == declared and len(declared) > 25


def test_structures_that_grow_carry_their_size() -> None:
    lines = LIST.read_text().splitlines()
    structures = {line.split()[1] for line in lines if line.startswith("struct ")}
    sized = {line.split()[1].split(".")[0] for line in lines if re.match(r"field \w+\.struct_size ", line)}
    # A sample is an element of arrays, a code a part of a class: they never grow, and the header says so.
    assert structures - sized == {"gmsrt_sample", "gmsrt_code"}
    assert all(int(line.split()[2]) == 4 for line in lines if line.startswith("type "))


@pytest.mark.parametrize("name", ["cc", "clang", "aarch64-linux-gnu-gcc"])
def test_the_committed_list_holds_for(name: str, tmp_path: Path) -> None:
    """Sizes, places and values; no program is run, so any cross compiler will do."""
    if shutil.which(name) is None:
        pytest.skip(f"no {name}")
    source = tmp_path / "asserts.c"
    source.write_text(said("--asserts"))
    run([name, "-std=c11", "-fsyntax-only", f"-I{NATIVE / 'include'}", str(source)])
    for line in ("sizeof(gmsrt_info) == ", "offsetof(gmsrt_plan, reason) == ", "GMSRT_NO_DEVICE == "):
        broken = source.read_text().replace(line, line + "1 + ", 1)
        assert broken != source.read_text()
        (tmp_path / "broken.c").write_text(broken)
        command = [name, "-std=c11", "-fsyntax-only", f"-I{NATIVE / 'include'}", str(tmp_path / "broken.c")]
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(("language", "ending"), [("-std=c99", "c"), ("-std=c++11", "cpp"), ("-std=c++17", "cpp")])
def test_a_status_that_is_not_looked_at_is_a_warning(tmp_path: Path, language: str, ending: str) -> None:
    found = compiler() if ending == "c" else shutil.which("c++")
    if found is None:
        pytest.skip("no C++ compiler")
    base = [found, language, "-c", "-Wall", "-Wextra", "-Werror", f"-I{NATIVE / 'include'}"]
    base += ["-o", str(tmp_path / "main.o")]
    source = tmp_path / f"main.{ending}"
    for call, good in (
        ("return gmsrt_infer(0, 0, 0, 0);", True),
        ("gmsrt_infer(0, 0, 0, 0); return 0;", False),
        ("gmsrt_open_cpu(0, 0, 0); return 0;", False),
        ("gmsrt_cpu_options o; gmsrt_cpu_options_init(&o, sizeof o); return 0;", True),
    ):
        source.write_text(f'#include "gms_rt.h"\nint main(void) {{ {call} }}\n')
        done = subprocess.run([*base, str(source)], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == good, done.stderr
