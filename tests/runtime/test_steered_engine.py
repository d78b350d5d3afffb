"""An engine whose CPU graph is model.xml and model.xml.bin: the C library trusts, tries and runs it as ONNX."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from support.native_build import NATIVE, compiler, installed_library, run
from support.native_engine import NativeEngine
from support.native_graphs import mean_graph
from support.precision_graphs import tiny_graph
from support.trees import ROOT

from gms_rt.artifacts import sha256_file
from gms_rt.cli import infer
from gms_rt.engine.manifest import MANIFEST, MODEL, STEERED
from gms_rt.errors import GmsError
from gms_rt.graph.openvino_ir import IrGraph, write_ir
from gms_rt.graph.read import read_graph
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.cpu import CpuRunner
from gms_rt.runtime.library import find_openvino
from gms_rt.runtime.options import CpuSettings

CONSTANTS = f"{STEERED}.bin"


def steered_engine(folder: Path, *, execution: str = "f32", keep: tuple[str, ...] = ()) -> Path:
    """An engine folder with a graph in both forms; without nodes to keep that of the mean, 32 rows of 48 pixels."""
    folder.mkdir()
    if keep:
        tiny_graph(folder).rename(folder / MODEL)
    else:
        mean_graph(folder / MODEL, height=32, width=48)
    graph = read_graph(folder / MODEL)
    write_ir(IrGraph(graph).keeping(keep), folder / STEERED)
    for stray in folder.iterdir():
        if stray.name not in (MODEL, STEERED, CONSTANTS):
            stray.unlink()
    values = json.loads((ROOT / "tests/golden/engine-v1" / MANIFEST).read_text())
    values |= {"height": graph.size[1], "width": graph.size[2], "targets": ["cpu"], "plans": [], "model": STEERED}
    values |= {"precision": "fp32" if execution == "f32" else "bf16", "execution": execution}
    (folder / MANIFEST).write_text(json.dumps(values))
    relist(folder, MODEL, STEERED, CONSTANTS)
    return folder


def relist(folder: Path, *names: str) -> None:
    """Make the manifest list these files as they are now, and no others."""
    values = json.loads((folder / MANIFEST).read_text())
    values["files"] = {name: sha256_file(folder / name) for name in names}
    (folder / MANIFEST).write_text(json.dumps(values))


def test_the_engine_calls_give_both_files_compared(tmp_path: Path) -> None:
    folder = steered_engine(tmp_path / "engine")
    with NativeEngine(folder) as engine:
        plan = engine.select(None)
        assert (plan.target, plan.file.decode(), plan.sha256.decode()) == (0, STEERED, sha256_file(folder / STEERED))
        for name in (STEERED, CONSTANTS, MODEL):
            content = (folder / name).read_bytes()
            assert engine.read(name) == content
            (folder / name).write_bytes(content + b"\n")
            with pytest.raises(Exception, match="was changed since it was built"):
                engine.read(name)
            (folder / name).write_bytes(content)


def test_constants_that_are_not_listed_changed_or_absent_are_refused(tmp_path: Path) -> None:
    folder = steered_engine(tmp_path / "engine")
    whole = (folder / CONSTANTS).read_bytes()
    (folder / CONSTANTS).write_bytes(whole + b"\0")
    with pytest.raises(GmsError, match=r"model\.xml\.bin was changed since it was built"):
        CpuRunner(folder)
    (folder / CONSTANTS).unlink()
    with pytest.raises(GmsError, match=r"model\.xml\.bin is missing"):
        CpuRunner(folder)
    (folder / CONSTANTS).write_bytes(whole)
    relist(folder, MODEL, STEERED)
    with pytest.raises(GmsError, match=r"'model\.xml\.bin', which engine\.json does not list"):
        CpuRunner(folder)
    relist(folder, MODEL, CONSTANTS)
    with pytest.raises(GmsError, match="does not list the graph"):
        CpuRunner(folder)


def test_a_trial_is_of_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passed is remembered; with other constants it is another graph, which is tried again."""
    folder = steered_engine(tmp_path / "engine", keep=("encoder/down",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    CpuRunner(folder, CpuSettings()).close()
    monkeypatch.setenv("GMS_RT_TRIAL", "/nowhere/gmsrt-trial")
    CpuRunner(folder, CpuSettings()).close()
    changed = bytearray((folder / CONSTANTS).read_bytes())
    changed[len(changed) // 2] ^= 1
    (folder / CONSTANTS).write_bytes(changed)
    relist(folder, MODEL, STEERED, CONSTANTS)
    with pytest.raises(GmsError, match="gmsrt-trial"):
        CpuRunner(folder, CpuSettings())


@pytest.mark.parametrize("execution", ["f32", "bf16"])
def test_the_examples_give_the_mask_of_infer(tmp_path: Path, execution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if execution == "bf16" and not cpu_arithmetic().bf16:
        pytest.skip("OpenVINO has no BF16 arithmetic on this CPU")
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "state"))
    keep = ("lmm/down.0.conv1", "decoder/conv_mid") if execution == "bf16" else ()
    engine = steered_engine(tmp_path / "engine", execution=execution, keep=keep)
    noise = np.random.default_rng(3).integers(0, 256, (12, 17, 3), np.uint8)
    scan = cv2.resize(noise, (130, 90), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "scan.ppm").write_bytes(b"P6\n130 90\n255\n" + scan.tobytes())
    cv2.imwrite(str(tmp_path / "scan.png"), scan[..., ::-1])
    arguments = [str(tmp_path / "scan.png"), "--engine", str(engine), "--device", "cpu", "--out", str(tmp_path / "r")]
    done = CliRunner().invoke(infer.command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (written,) = (tmp_path / "r").rglob("masks/**/*.png")
    expected = cv2.imread(str(written), cv2.IMREAD_GRAYSCALE)
    assert 0 < (expected > 0).mean() < 1

    library = installed_library()
    flags = [f"-I{library / 'include'}", f"-L{library / 'lib'}", "-lgms_rt", f"-Wl,-rpath,{library / 'lib'}"]
    for name in ("segment", "quick"):
        run([compiler(), "-std=c99", str(NATIVE / f"examples/{name}.c"), *flags, "-o", str(tmp_path / name)])
    env = {**os.environ, "GMS_RT_OPENVINO": str(find_openvino())}
    run([str(tmp_path / "segment"), str(engine), str(tmp_path / "scan.ppm"), str(tmp_path / "mask.pgm")], env=env)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "mask.pgm"), cv2.IMREAD_GRAYSCALE), expected)
    quick = [str(tmp_path / "quick"), str(engine), "130", "90"]
    said = subprocess.run(quick, input=scan.tobytes(), env=env, capture_output=True, check=True).stdout
    assert said == expected.tobytes()
