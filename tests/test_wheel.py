"""What users install: one wheel for every Python, with the library, the model and the samples, and no more."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.trees import copy_tree

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the tracked files alone, as from a clean clone."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    copy_tree(source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(out), str(source)], check=True
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_one_wheel_serves_every_python(wheel: Path) -> None:
    assert re.fullmatch(r"gms_rt-[\d.]+-py3-none-\w+\.whl", wheel.name)
    assert "any" not in wheel.name


@pytest.mark.slow
def test_the_wheel_holds_what_a_device_needs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        size = sum(info.file_size for info in archive.infolist())
        mode = archive.getinfo("gms_rt/native/lib/gmsrt-trial").external_attr >> 16
    assert mode & 0o111 == 0o111  # installers keep it
    for needed in (
        "gms_rt/native/lib/libgms_rt.so",
        "gms_rt/native/lib/gmsrt-trial",
        "gms_rt/native/include/gms_rt.h",
        "gms_rt/demo/model/demo.onnx",
        "gms_rt/demo/model/classes.json",
        "gms_rt/demo/model/MODEL_CARD.md",
        "gms_rt/demo/edge/demo-edge.onnx",
        "gms_rt/demo/edge/MODEL_CARD.md",
        "gms_rt/py.typed",
        "gms_rt/report/page.css",
    ):
        assert needed in names
    assert "gms_rt/demo/edge/student.safetensors" not in names  # its graph is enough
    assert sum("demo/samples/" in name for name in names) >= 12
    foreign = [n for n in names if not n.startswith(("gms_rt/", "gms_rt-"))]
    assert foreign == []
    assert not [n for n in names if "/tests/" in n or n.endswith((".pyc", ".o")) or "__pycache__" in n]
    assert size < 16_000_000


@pytest.mark.slow
def test_the_installed_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, away from the tree: the library loads and the bundled files are found."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import gms_rt, pathlib\n"
        "assert pathlib.Path(gms_rt.__file__).is_relative_to(sys.argv[1])\n"
        "from gms_rt.demo.bundled import demo_graph; assert demo_graph().is_relative_to(sys.argv[1])\n"
        "from gms_rt.runtime.library import load_library; print(load_library().gmsrt_version().decode())"
    )
    # Without the site module, so that an editable install of the tree stays out of it.
    libraries = str(Path(np.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(tmp_path), libraries], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"\d+\.\d+", done.stdout)
