"""Importing is cheap and the edge side runs where torch is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gms_rt

HEAVY = {"torch", "diffusers", "openvino", "onnx", "onnxruntime", "cv2", "numpy", "tensorrt", "pydicom", "rich"}
EDGE = ["infer", "bench", "parity", "inspect", "build", "demo", "doctor"]

# Makes an import of torch fail as it does where it was never installed.
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "diffusers", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_loads_no_framework() -> None:
    loaded = json.loads(python("import json, sys, gms_rt; print(json.dumps(sorted(sys.modules)))"))
    assert not HEAVY & set(loaded)


def test_the_command_lines_help_loads_no_framework() -> None:
    code = (
        "import sys, json, contextlib, io\nfrom gms_rt.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    code = main.run(['--help'])\n"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    code_, loaded = json.loads(python(code))
    assert code_ == 0
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("verb", EDGE)
def test_edge_verbs_need_no_torch(verb: str) -> None:
    code = WITHOUT_TORCH + f"from gms_rt.cli import main; sys.exit(main.run(['{verb}', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert verb in done.stdout


def test_all_modules_of_the_edge_side_import_without_torch() -> None:
    root = Path(gms_rt.__file__).parent
    torch_side = {"model", "train", "distill", "export"}
    names = [
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).parts[0] not in torch_side | {"native"}
    ]
    assert len(names) > 30
    code = WITHOUT_TORCH + f"import importlib\nfor name in {names}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root.parent)})


def test_versions_agree() -> None:
    import importlib.metadata

    assert importlib.metadata.version("gms-rt") == gms_rt.__version__
