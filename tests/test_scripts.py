"""The two commands of the README, as a newcomer runs them: in a clone, with nothing installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.jetson_boards import AGX_ORIN, OLD_ORIN_NANO, THOR, XAVIER
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
    done = subprocess.run(
        [clone / "scripts/demo", "--gate-images", "24", "--seconds", "1"],  # less of the same
        cwd=clone, env=CLEAN | {"PIP_COMPILE": "0"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not for clinical use" in done.stdout.lower()
    report = clone / "demo/report.html"
    assert str(report.relative_to(clone)) in done.stdout
    assert report.read_text().count("data:image/") >= 12
    assert "on 23 unseen phantoms" in done.stdout.replace("\n", " ")
    engines = json.loads(report.with_suffix(".json").read_text())["bench"]["measured"]
    assert {"demo-fp16", "demo-edge-fp16"} <= {engine["name"] for engine in engines}
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
    assert "1 passed in" in done.stdout, "the other would fail"


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


def jetpack_root(folder: Path, board: Path, *pythons: str) -> Path:
    """A board's files, with TensorRT's module where JetPack's packages put it."""
    root = shutil.copytree(board, folder)
    for python in pythons:
        module = root / "usr/lib" / python / "dist-packages/tensorrt"
        module.mkdir(parents=True)
        (module / "__init__.py").touch()
    return root


@pytest.mark.parametrize(
    ("board", "python"), [(AGX_ORIN, "python3.10"), (THOR, "python3.12"), (OLD_ORIN_NANO, "python3.8"), (XAVIER, "")]
)
def test_the_python_of_jetpacks_tensorrt_is_found(tmp_path: Path, board: Path, python: str) -> None:
    root = jetpack_root(tmp_path / "board", board, *filter(None, [python]))
    asked = ["bash", "-c", '. scripts/environment; jetpack_python "$1"', "bash", str(root)]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == python
    (root / "etc/nv_tegra_release").unlink()  # the device tree says it too
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout == done.stdout


def test_on_other_machines_no_python_is_jetpacks(tmp_path: Path) -> None:
    root = jetpack_root(tmp_path / "board", AGX_ORIN, "python3.11")
    shutil.rmtree(root / "proc")
    (root / "etc/nv_tegra_release").unlink()
    asked = ["bash", "-c", '. scripts/environment; jetpack_python "$1"', "bash", str(root)]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout == ""


def made_environment(
    folder: Path, root: Path, *, python: str, old: bool = False, blind: bool = False, asked: str = ""
) -> tuple[str, str]:
    """What `make_environment` does on a board whose Pythons are stand-ins: the venv command, and what it says.

    A stand-in notes how it was called; `python` is JetPack's, `old` says that it is older than 3.10, and `blind` that
    the environment does not see TensorRT.
    """
    tree, tools = folder / "tree", folder / "bin"
    for place in (tree / "scripts", tree / "gms_rt/native", tools):
        place.mkdir(parents=True)
    for name in ("pyproject.toml", "scripts/constraints.txt", "scripts/environment"):
        (tree / name).write_bytes((ROOT / name).read_bytes())
    (folder / "inside").write_text(f'#!/bin/sh\n[ "$1" != -c ] || exit {int(blind)}\n')
    (folder / "inside").chmod(0o755)
    for name in {"python3", python}:
        (tools / name).write_text(
            "#!/bin/sh\n"
            f'if [ "$1" = -c ]; then exit {int(old and name == python)}; fi\n'
            f'echo "{name} $*" >>{folder}/calls\n'
            'if [ "$2" = venv ]; then\n'
            '  for last; do :; done\n'
            f'  mkdir -p "$last/bin"; cp {folder}/inside "$last/bin/python"\n'
            "fi\n"
        )  # fmt: skip
        (tools / name).chmod(0o755)
    (tools / "cc").symlink_to("/bin/true")
    (tree / "make").write_text('. scripts/environment; make_environment .venv "" "$1"\n')
    done = subprocess.run(
        ["bash", "make", str(root)], cwd=tree, capture_output=True, text=True, check=True,
        env={"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **({"PYTHON": asked} if asked else {})},
    )  # fmt: skip
    return (folder / "calls").read_text(), done.stderr


def test_a_jetsons_environment_sees_jetpacks_tensorrt(tmp_path: Path) -> None:
    root = jetpack_root(tmp_path / "board", AGX_ORIN, "python3.10")
    calls, said = made_environment(tmp_path / "a", root, python="python3.10")
    assert calls == "python3.10 -m venv --system-site-packages .venv\n"
    assert "TensorRT" not in said
    _, said = made_environment(tmp_path / "c", root, python="python3.10", blind=True)
    assert "JetPack's TensorRT is installed, but the Python in .venv does not see it" in said
    calls, _ = made_environment(tmp_path / "b", root, python="python3.10", asked="python3")
    assert calls == "python3 -m venv .venv\n"  # another Python could not load the module


def test_a_jetpack_with_an_older_python_goes_without_its_tensorrt(tmp_path: Path) -> None:
    root = jetpack_root(tmp_path / "board", XAVIER, "python3.8")
    calls, said = made_environment(tmp_path / "a", root, python="python3.8", old=True)
    assert calls == "python3 -m venv .venv\n"
    assert "JetPack's TensorRT is for python3.8" in said
    assert "docs/jetson.md" in said


def test_packages_of_an_environment_come_before_the_systems(tmp_path: Path) -> None:
    """So that JetPack's older numpy and OpenCV shadow nothing."""
    made = [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(tmp_path / "venv")]
    subprocess.run(made, check=True)
    asked = [str(tmp_path / "venv/bin/python"), "-c", "import sys; print('\\n'.join(sys.path))"]
    places = subprocess.run(asked, env=CLEAN, capture_output=True, text=True, check=True).stdout.split()
    packages = [place for place in places if place.endswith(("site-packages", "dist-packages"))]
    assert packages[0].startswith(str(tmp_path / "venv"))
    assert len(packages) > 1


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
