"""One small engine for every host."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.precision_graphs import scenes, tiny_graph
from support.small_builds import build

from gms_rt.cli.main import run
from gms_rt.engine.golden import Golden, write_golden_file
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An FP32 engine of a small graph, with three reference pictures."""
    folder = tmp_path_factory.mktemp("engine")
    graph = tiny_graph(folder)
    images = scenes(3, seed=77)
    answers = Session(read_graph(graph)).probabilities(images)
    names = ("one", "two", "three")
    golden = Golden(images, answers, None, names, "OpenVINO FP32", "", source="three drawn scenes")
    write_golden_file(graph.with_suffix(".golden.npz"), golden)
    build(graph, folder / "tiny-fp32", "fp32", calibration=None, gate_images=None)
    return folder / "tiny-fp32"


@pytest.fixture(scope="session")
def packed(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders for the hosts that need nothing else."""
    out = tmp_path_factory.mktemp("packed")
    assert run(["pack", str(engine), "--for", "openvino,onnxruntime,triton,ovms", "--out", str(out)]) == 0
    return out
