"""Graphs that are malformed, foreign or hostile: an error that says what is wrong, and the process goes on."""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.native_build import fake
from support.native_graphs import conv_graph, crashing_graph, mean_graph, varied_graph
from support.native_mutations import mutated

import gms_rt
from gms_rt.artifacts import sha256_file
from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.errors import ArtifactError, GmsError, UsageError
from gms_rt.runtime.binding import NativeRunner, check_graph
from gms_rt.runtime.cpu import CpuRunner
from gms_rt.runtime.library import library_path
from gms_rt.runtime.options import CpuSettings


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty memory of what was tried."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


OPEN = (
    "import sys; from pathlib import Path; from gms_rt.runtime.binding import NativeRunner; "
    "from gms_rt.runtime.options import CpuSettings\n"
    "with NativeRunner.open_cpu(Path(sys.argv[1]), CpuSettings(trial=sys.argv[2])) as r: print(r.info.height)"
)


def test_a_node_without_its_weights_is_an_error(tmp_path: Path) -> None:
    """OpenVINO 2026.4 crashes on it, and not on its error path."""
    model = onnx.load(str(conv_graph(tmp_path / "whole.onnx", size=16, width=4, depth=1)))
    del model.graph.node[3].input[1]
    onnx.save(model, str(tmp_path / "x.onnx"))
    with pytest.raises(ArtifactError, match=r"x\.onnx: OpenVINO .*on this graph"):
        NativeRunner.open_cpu(tmp_path / "x.onnx")


def test_what_crashes_openvino_is_an_error(tmp_path: Path, cache: Path) -> None:
    graph = crashing_graph(tmp_path / "x.onnx")
    check_graph(graph, trial="never")  # it is an ONNX file, and more is not asked without a trial
    died = python(OPEN, graph, "never").returncode < 0
    for _ in range(2):  # a failure is not remembered
        with pytest.raises(ArtifactError, match=r"x\.onnx") as caught:
            NativeRunner.open_cpu(graph)
    # Another OpenVINO may refuse this graph in good order.
    assert ("crashed on this graph (signal " in str(caught.value)) == died
    assert list((cache / "gms-rt" / "tried").iterdir()) == []


def test_a_tried_graph_is_remembered(tmp_path: Path, cache: Path) -> None:
    graph = mean_graph(tmp_path / "mean.onnx")
    with CpuRunner(graph) as runner:
        assert runner.infer(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 8, 8)
    (marker,) = (cache / "gms-rt" / "tried").iterdir()
    assert marker.stat().st_size == 0 and len(marker.name) == 64
    assert (cache / "gms-rt" / "tried").stat().st_mode & 0o777 == 0o700
    # The same content elsewhere is the same graph; other content and other arithmetic are not.
    shutil.copy(graph, tmp_path / "again.onnx")
    NativeRunner.open_cpu(tmp_path / "again.onnx").close()
    assert list(marker.parent.iterdir()) == [marker]
    NativeRunner.open_cpu(mean_graph(tmp_path / "other.onnx", height=16)).close()
    check_graph(mean_graph(tmp_path / "free.onnx", batch="N"), batch=2)
    assert len(list(marker.parent.iterdir())) == 3


def test_outside_weights_count_as_the_graph(tmp_path: Path, cache: Path) -> None:
    model = onnx.load(str(conv_graph(tmp_path / "whole.onnx", size=16, width=8, depth=2)))
    onnx.save(model, str(tmp_path / "x.onnx"), save_as_external_data=True, location="x.data", size_threshold=0)
    NativeRunner.open_cpu(tmp_path / "x.onnx").close()
    data = bytearray((tmp_path / "x.data").read_bytes())
    data[-1] ^= 1
    (tmp_path / "x.data").write_bytes(data)
    check_graph(tmp_path / "x.onnx")
    assert len(list((cache / "gms-rt" / "tried").iterdir())) == 2
    (tmp_path / "x.data").write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot read this graph: .*x\.data"):
        check_graph(tmp_path / "x.onnx")
    (tmp_path / "x.data").unlink()
    with pytest.raises(ArtifactError, match="copy that file too"):
        check_graph(tmp_path / "x.onnx")


def test_without_its_program_a_graph_can_only_be_trusted(tmp_path: Path) -> None:
    library = tmp_path / "alone" / "libgms_rt.so"
    library.parent.mkdir()
    shutil.copy(library_path(), library)
    graph = mean_graph(tmp_path / "mean.onnx")
    done = python(OPEN, graph, "auto", GMS_RT_LIBRARY=str(library))
    assert done.returncode == 1
    assert f"{library.parent}/gmsrt-trial is missing; copy it next to libgms_rt.so" in done.stderr
    assert python(OPEN, graph, "never", GMS_RT_LIBRARY=str(library)).stdout == "8\n"
    with pytest.raises(UsageError, match="give auto, always or never"):
        NativeRunner.open_cpu(graph, CpuSettings(trial="sometimes"))  # type: ignore[arg-type]


def test_the_program_is_never_looked_for_in_the_current_folder(tmp_path: Path) -> None:
    """The library is loaded by a relative name, then the host goes to a folder where that name is somebody else's."""
    for place in ("mine", "other"):
        (tmp_path / place / "lib").mkdir(parents=True)
    shutil.copy(library_path(), tmp_path / "mine" / "lib")
    shutil.copy(library_path().with_name("gmsrt-trial"), tmp_path / "mine" / "lib")
    foreign = tmp_path / "other" / "lib" / "gmsrt-trial"
    foreign.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\necho '0 '\n")
    foreign.chmod(0o700)
    code = (
        "import os, sys; from pathlib import Path; from gms_rt.runtime import library\n"
        "from gms_rt.runtime.binding import check_graph\n"
        "library.library_path = lambda: 'lib/libgms_rt.so'\n"
        "os.chdir(sys.argv[1] + '/mine'); library.load_library(); os.chdir(sys.argv[1] + '/other')\n"
        "check_graph(Path(sys.argv[2]), trial='always')"
    )
    done = python(code, tmp_path, mean_graph(tmp_path / "mean.onnx"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_an_openvino_that_was_found_by_a_relative_path_cannot_try_a_graph(tmp_path: Path) -> None:
    """The trial would find another one in another folder. The loader's own search path may be relative."""
    (tmp_path / "lib").mkdir()
    shutil.copy(fake("openvino"), tmp_path / "lib" / "libopenvino_c.so")
    code = (
        "import sys; from pathlib import Path; from gms_rt.runtime.binding import check_graph\n"
        "check_graph(Path(sys.argv[1]), trial='always', openvino=Path('libopenvino_c.so'))"
    )
    graph = mean_graph(tmp_path / "mean.onnx")
    done = subprocess.run(
        [sys.executable, "-c", code, str(graph)],
        env={**os.environ, "LD_LIBRARY_PATH": "lib"}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "load it by its absolute path" in done.stderr, done.stderr


def test_a_program_with_more_rights_than_its_caller_ignores_the_environment() -> None:
    """No function of the library reads the environment in another way."""
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    for file in (library_path(), library_path().with_name("gmsrt-trial")):
        told = subprocess.run(["nm", "-D", str(file)], capture_output=True, text=True, check=True).stdout
        names = {line.split()[-1].partition("@")[0] for line in told.splitlines()}
        assert "secure_getenv" in names and "getenv" not in names


def test_the_library_is_built_to_end_at_a_mistake_in_memory() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    for file in (library_path(), library_path().with_name("gmsrt-trial")):
        told = subprocess.run(["readelf", "-dlsW", str(file)], capture_output=True, text=True, check=True).stdout
        assert "NOW" in told and "GNU_RELRO" in told, file
        assert "__stack_chk_fail" in told and "_chk@" in told, file


def test_a_foreign_engine_is_an_error(tmp_path: Path) -> None:
    """A consistent engine folder around a graph that crashes OpenVINO."""
    engine = tmp_path / "engine"
    graph = conv_graph(tmp_path / "sound.onnx", size=16, depth=1)
    build_engine(BuildRequest(graph, engine, "fp32", targets=("cpu",)))
    with gms_rt.load(engine, trial="always") as opened:
        assert opened(np.zeros((5, 5), np.uint8)).shape == (5, 5)
    before = sha256_file(engine / "model.onnx")
    crashing_graph(engine / "model.onnx")
    manifest = (engine / "engine.json").read_text()
    (engine / "engine.json").write_text(manifest.replace(before, sha256_file(engine / "model.onnx")))
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        gms_rt.load(engine)


def test_a_graph_that_the_manifest_does_not_list_is_an_error(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    build_engine(BuildRequest(conv_graph(tmp_path / "sound.onnx", size=16), engine, "fp32", targets=("cpu",)))
    manifest = json.loads((engine / "engine.json").read_text())
    listed = manifest["files"]

    def refused(match: str, **changes: object) -> None:
        (engine / "engine.json").write_text(json.dumps(manifest | changes))
        with pytest.raises(ArtifactError, match=match):
            gms_rt.load(engine)
        with pytest.raises(ArtifactError, match=match):  # what a C program gets
            check_graph(engine)

    refused("engine.json does not list the graph", files={})
    refused("hash differs", files=listed | {"model.onnx": "0" * 64})
    refused("version 2", version=2)
    refused("not a gms-rt-engine file", format="gms-rt-run")
    model = onnx.load(str(conv_graph(tmp_path / "whole.onnx", size=8)))
    onnx.save(model, str(engine / "model.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    with_graph = listed | {"model.onnx": sha256_file(engine / "model.onnx")}
    refused("weights in 'w.bin', which engine.json does not list", files=with_graph)


def test_build_ends_with_a_message(tmp_path: Path) -> None:
    """The user's own graph reaches OpenVINO and onnx within the process of the build."""
    graph = crashing_graph(tmp_path / "x.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "gms_rt", "build", str(graph), "--precision", "fp32", "--out", str(tmp_path / "engine")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "x.onnx" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "engine").exists()


def test_mutated_graphs_never_end_the_process(tmp_path: Path) -> None:
    """Changes of structure and of bytes: each graph is an error, or runs here as well as in its trial."""
    files = varied_graph(tmp_path / "varied.onnx"), conv_graph(tmp_path / "conv.onnx", size=16)
    sound = [onnx.load(str(file)) for file in files]
    graph = tmp_path / "mutated.onnx"
    found: collections.Counter[str] = collections.Counter()
    for number in range(120):
        graph.write_bytes(mutated(sound[number % 2], random.Random(f"trial {number}")))
        try:
            with NativeRunner.open_cpu(graph, CpuSettings(trial="always")) as runner:
                size = (1, runner.info.height, runner.info.width)
                runner.infer(np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8))
            found["runs"] += 1
        except GmsError as error:
            assert "mutated.onnx" in str(error)
            found["crashed" if "crashed on this graph" in str(error) else "refused"] += 1
    assert found["runs"] > 0 and found["refused"] > 0 and sum(found.values()) == 120, found
