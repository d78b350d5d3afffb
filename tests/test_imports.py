"""Importing is cheap and the edge side runs where torch is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gms_rt

GRAPH = Path(gms_rt.__file__).parent / "demo" / "model" / "demo.onnx"
HEAVY = {"torch", "diffusers", "openvino", "onnx", "onnxruntime", "cv2", "numpy", "tensorrt", "pydicom", "rich"}
EDGE = ["infer", "scale", "bench", "parity", "inspect", "build", "demo", "data", "eval", "doctor"]
TORCH = ["train x --tokenizer sd-vae --out y", "ablate loss x --tokenizer sd-vae --out y", "export x",
         "import-official x --tokenizer sd-vae --out y", "eval x --run y --out z"]  # fmt: skip

# Hides torch as if it had never been installed.
WITHOUT_TORCH = """
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        absent = name.split(".")[0] in {"torch", "diffusers", "safetensors"}
        return None if absent else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
"""


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_loads_no_framework() -> None:
    loaded = json.loads(python("import json, sys, gms_rt; print(json.dumps(sorted(sys.modules)))"))
    assert not HEAVY & set(loaded)


def test_a_host_programs_telemetry_client_is_hidden_from_openvino_alone(tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry.py").write_text("mine = 7\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from gms_rt.telemetry import quiet_module\n"
        "quiet_module('openvino')\n"
        "assert 'openvino.tools.ovc.telemetry_stub' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
        "import openvino_telemetry\nprint(openvino_telemetry.mine)\n"
    )
    assert python(code) == "7\n"
    before = "import openvino_telemetry\n"
    assert (
        python(
            code.replace("from gms_rt", before + "from gms_rt").replace(
                " and 'openvino_telemetry' not in sys.modules", ""
            )
        )
        == "7\n"
    )


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


@pytest.mark.parametrize("line", TORCH)
def test_other_verbs_name_the_extra_that_is_missing(line: str, tmp_path: Path) -> None:
    code = WITHOUT_TORCH + f"from gms_rt.cli import main; sys.exit(main.run({line.split()!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "run: pip install 'gms-rt[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_graph_becomes_an_engine_that_segments_and_is_certified_without_torch(tmp_path: Path) -> None:
    from support.phantom_folders import write_phantoms

    graph, engine, masks = GRAPH, tmp_path / "engine", tmp_path / "masks"
    scans = write_phantoms(tmp_path / "scans", 2) / "images"
    lines = [
        ["build", str(graph), "--precision", "bf16", "--target", "cpu", "--out", str(engine)],
        ["infer", str(scans), "--engine", str(engine), "--out", str(masks)],
        ["parity", str(engine)],
    ]
    code = WITHOUT_TORCH + (
        "from gms_rt.cli import main\n"
        f"for line in {lines!r}:\n    assert main.run(line) == 0, line\n"
        "assert not {'torch', 'diffusers', 'safetensors'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(masks.rglob("*.png"))) >= 2
    assert (engine / "parity.json").is_file()


def test_all_modules_of_the_edge_side_import_without_torch() -> None:
    root = Path(gms_rt.__file__).parent
    torch_side = {"model", "train", "distill", "export"}
    names = [
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).parts[0] not in torch_side | {"native"}
    ]
    names.append("gms_rt.model.size")  # the one module of the training side that the edge uses
    assert {"gms_rt.peers.server", "gms_rt.engine.build", "gms_rt.infer.run"} <= set(names)
    code = WITHOUT_TORCH + f"import importlib\nfor name in {names}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root.parent)})


def test_versions_agree() -> None:
    import importlib.metadata

    assert importlib.metadata.version("gms-rt") == gms_rt.__version__
