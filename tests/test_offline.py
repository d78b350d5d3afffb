"""No verb contacts anything unasked, and none writes outside the folders it names: every one is traced with strace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.phantom_folders import write_pair, write_phantoms, write_tokenizer

from gms_rt.cli.main import VERBS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

SMALL = "--set size=32 --set width=8 --set groups=4 --set multipliers=[1,2] --set batch=4 --set threads=1"
# In order: each uses what the ones before have written.
LINES = [
    "doctor",
    "data list",
    "data check data",
    "data prepare data --out prepared",
    f"train data --tokenizer onnx:pair {SMALL} --set latent_epochs=20 --set epochs=8 --set views=2 --out run",
    "import-official official.pth --tokenizer taesd:tokenizer --out official",
    f"ablate loss data --tokenizer taesd:tokenizer --recipe paper {SMALL} --set epochs=1 --out grid",
    "distill run --data data --budget-gflop 0.1 --set batch=4 --set threads=1 --epochs 1 --out edge",
    "export run --out run.onnx",
    "build run.onnx --precision fp32 --target cpu --out engine",
    "build run --precision int8 --calib data/images --gate-mean 0 --gate-min 0 --calibrator minmax --target cpu "
    "--out eight",
    "adopt pair/encoder.onnx --activation argmax --size 32 --out adopted.onnx",
    "inspect engine",
    "pack engine --for openvino,onnxruntime,triton,ovms,monai-bundle,holoscan,deepstream --out packed",
    "infer data/images --engine engine --out masks",
    "scale infer data/images --engine engine --workers 1 --out scaled",
    "eval data --engine engine --split all --out results",
    "eval data --run run --split all --out results-run",
    "parity engine",
    "parity verify engine/parity.json",
    "bench --engine engine --engine eight --seconds 0.5 --rounds 2 --warmup 0.05 --out bench",
    "keys create ward.key",
    "keys trust ward.key.pub",
    "sign engine --key ward.key",
    "verify engine",
    "demo --calib-images 4 --gate-images 24 --seconds 0.5 --out demo",
]
CHANGING = ("XDG_", "GMS_RT_", "CI", "HF_", "ORT_")  # variables that move folders, or that silence libraries
OWN = ("home/.cache/gms-rt", "home/.local/state/gms-rt")  # the cache and the state folder that the documents name
STATED = {
    "data": {"prepared"},
    "train": {"run"},
    "import-official": {"official"},
    "ablate": {"grid"},
    "distill": {"edge", "run"},
    "export": {"run.onnx", "run.golden.npz", "run"},
    "build": {"engine", "eight", "run"},  # a run keeps the graph that was exported from it
    "adopt": {"adopted.onnx", "adopted.golden.npz"},
    "pack": {"packed"},
    "infer": {"masks"},
    "scale": {"scaled"},
    "eval": {"results", "results-run"},
    "parity": {"engine"},
    "bench": {"bench"},
    "keys": {"ward.key", "ward.key.pub"},
    "sign": {"engine"},
    "demo": {"demo"},
}
CALLS = "connect,sendto,sendmsg,sendmmsg,open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2"


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The folder that all verbs ran in, and what each asked of the kernel."""
    import torch

    from gms_rt.model.lmm import LatentMapper, LmmConfig
    from gms_rt.model.official import official_names

    root = tmp_path_factory.mktemp("offline")
    write_phantoms(root / "data", 12)
    write_pair(root / "pair")
    write_tokenizer(root / "tokenizer")
    config = LmmConfig(width=16)
    weights = LatentMapper(config).state_dict()
    torch.save({"model": {name: weights[ours] for name, ours in official_names(config).items()}}, root / "official.pth")
    for name in ("home", "tmp"):
        (root / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(CHANGING)}
    places = {"HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    found: dict[str, str] = {}
    for line in LINES:
        trace = root / "trace"
        tracer = ["strace", "-f", "-q", "-y", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(trace)]
        command = [*tracer, sys.executable, "-m", "gms_rt", *line.split()]
        done = subprocess.run(command, cwd=root, env=kept | places, capture_output=True, text=True)
        if "ptrace" in done.stderr and "not permitted" in done.stderr:
            pytest.skip("this machine does not let strace trace")
        assert done.returncode == 0, f"{line}: {done.stderr}"
        found[line] = trace.read_text(errors="replace")
        trace.unlink()
    return root, found


def test_every_verb_is_traced() -> None:
    # serve opens a port, and what it stores is seen in tests/serve/test_safety.py.
    assert {line.split()[0] for line in LINES} == set(VERBS) - {"serve"}


@pytest.mark.parametrize("line", LINES)
def test_nothing_is_contacted(line: str, traces: tuple[Path, dict[str, str]]) -> None:
    _, found = traces
    assert "openat(" in found[line]
    assert [call for call in found[line].splitlines() if "sa_family=AF_INET" in call] == []


@pytest.mark.parametrize("line", LINES)
def test_files_are_written_in_the_stated_folders_only(line: str, traces: tuple[Path, dict[str, str]]) -> None:
    root, found = traces
    stated = [root / name for name in (*STATED.get(line.split()[0], ()), *OWN, "tmp")]
    strange = [path for path in map(Path, written_paths(found[line], root)) if not is_below(path, stated)]
    assert strange == []


def test_what_is_left_stands_in_the_stated_folders(traces: tuple[Path, dict[str, str]]) -> None:
    root, _ = traces
    assert list((root / "tmp").iterdir()) == []
    assert {path.name for path in (root / "home").iterdir()} <= {".cache", ".local"}
    assert {path.name for path in (root / "home" / ".cache").iterdir()} == {"gms-rt"}
    given = {"data", "pair", "tokenizer", "official.pth", "home", "tmp"}
    assert {path.name for path in root.iterdir()} - given == set().union(*STATED.values())


def written_paths(trace: str, root: Path) -> set[str]:
    """What was created, opened for writing or renamed to, successfully; devices and the kernel's own files aside."""
    found = set()
    for call in trace.splitlines():
        if " = -1 " in call:
            continue
        if re.search(r"\b(creat|mkdir|mkdirat|rename|renameat|renameat2)\(|O_(WRONLY|RDWR|CREAT)", call):
            folder, name = re.findall(r'(?:<([^<>]*)>, )?"((?:[^"\\]|\\.)*)"', call)[-1]
            found.add(os.path.normpath(root / folder / name))
    return {path for path in found if not path.startswith(("/dev/", "/proc/", "/sys/"))}


def is_below(path: Path, folders: list[Path]) -> bool:
    """Whether a path is one of these, in one, above one (a folder made on the way), or its temporary neighbour."""
    return any(
        path.is_relative_to(folder) or folder.is_relative_to(path) or is_neighbour(path, folder) for folder in folders
    )


def is_neighbour(path: Path, folder: Path) -> bool:
    """Files are written under a hidden name next to their final place, and take it in one step."""
    return any(
        part.parent == folder.parent and part.name.startswith(".") and part.parent.name != "home"
        for part in (path, *path.parents)
    )
