"""The two commands of the README, as a newcomer runs them: in a clone, with nothing installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.trees import copy_tree

ROOT = Path(__file__).parent.parent
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON", "GMS_RT"))}
CLEAN["PYTHON"] = getattr(sys, "_base_executable", sys.executable)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it stands, uncommitted changes included."""
    return copy_tree(tmp_path_factory.mktemp("clone") / "gms rt")  # a space, as people have


@pytest.mark.slow
def test_the_demo_command_goes_from_clone_to_report(clone: Path) -> None:
    done = subprocess.run([clone / "scripts/demo"], cwd=clone, env=CLEAN, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not for clinical use" in done.stdout.lower()
    report = clone / "demo/report.html"
    assert str(report.relative_to(clone)) in done.stdout
    assert report.read_text().count("data:image/") >= 12
    listed = subprocess.run(
        [clone / ".venv/bin/python", "-m", "pip", "list", "--format=json"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "torch" not in {package["name"] for package in json.loads(listed)}


def test_the_test_command_passes_arguments_on(tmp_path: Path) -> None:
    """`scripts/test` with this environment in place of the one it makes."""
    tree = tmp_path / "tree"
    (tree / "scripts").mkdir(parents=True)
    for name in ("test", "environment", "constraints.txt"):
        (tree / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    (tree / "scripts/test").chmod(0o755)
    (tree / "pyproject.toml").write_text(
        "[project]\nname = 'nothing'\nversion = '0'\n[project.optional-dependencies]\n"
    )
    (tree / "gms_rt/native").mkdir(parents=True)
    (tree / "test_two.py").write_text("def test_one(): assert 1\ndef test_other(): assert 0\n")
    (tree / ".venv-test/bin").mkdir(parents=True)
    (tree / ".venv-test/bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tree / ".venv-test/bin/python").chmod(0o755)
    stamp = subprocess.run(
        ["bash", "-c", "cat pyproject.toml scripts/constraints.txt scripts/environment scripts/test | cksum"],
        cwd=tree, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (tree / ".venv-test/stamp").write_text(stamp)
    done = subprocess.run(["scripts/test", "-q", "-k", "one"], cwd=tree, env=CLEAN, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 1 deselected" in done.stdout


def test_a_machine_without_a_fitting_python_is_told_so(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "cat"):
        (tmp_path / tool).symlink_to(subprocess.check_output(["which", tool], text=True).strip())
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")  # an old one fails the version check
    (tmp_path / "python3").chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "scripts/demo")], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Python 3.10 or newer is needed" in done.stderr


def test_the_check_on_arm_tells_what_it_needs_and_how_it_is_used() -> None:
    done = subprocess.run(
        [ROOT / "scripts/check-aarch64", "--help"], env=CLEAN, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "Usage: scripts/check-aarch64 [--work FOLDER]" in done.stderr
    assert "set -euo" not in done.stderr
    for script in (ROOT / "scripts/check-aarch64", ROOT / "scripts/aarch64/enter"):
        subprocess.run(["bash", "-n", script], check=True)


def test_the_check_on_arm_installs_what_the_package_needs_and_no_torch() -> None:
    pytest.importorskip("tomllib")
    printed = subprocess.run(
        [sys.executable, ROOT / "scripts/aarch64/requirements.py", ROOT / "pyproject.toml"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in ("openvino", "numpy", "pydicom", "scikit-build-core", "pytest", "highdicom"):
        assert any(line.startswith(name) for line in printed), name
    assert not any("torch" in line for line in printed)


def test_the_tests_chosen_for_arm_exist() -> None:
    for name in (ROOT / "scripts/aarch64/tests.txt").read_text().split():
        assert (ROOT / name.partition("::")[0]).exists(), name
