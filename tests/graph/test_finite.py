"""Weights that are not numbers are refused by name, at the build and at the export; a bound may be infinite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.graphs import FLOAT
from support.precision_graphs import tiny_model

from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.errors import ArtifactError
from gms_rt.graph.finite import check_weights
from gms_rt.graph.read import read_graph

CONV = "lmm/down.0.conv1.weight"


def spoilt(folder: Path, name: str, value: float) -> Path:
    """The tiny graph with one value of one constant replaced."""
    model = tiny_model()
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[-1] = value
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, folder / "spoilt.onnx")
    return folder / "spoilt.onnx"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_build_names_the_weight(value: float, tmp_path: Path) -> None:
    request = BuildRequest(spoilt(tmp_path, CONV, value), tmp_path / "engine", "fp32", ("cpu",))
    with pytest.raises(ArtifactError, match=f"1 of 576 values of the weight '{CONV}' are NaN or infinite") as caught:
        build_engine(request)
    assert "spoilt.onnx" in caught.value.line()
    assert not (tmp_path / "engine").exists()


def test_a_nan_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    path = spoilt(tmp_path, "input/one", float("nan"))
    with pytest.raises(ArtifactError, match="'input/one'"):
        check_weights(read_graph(path), path)


def test_a_bound_may_be_infinite(tmp_path: Path) -> None:
    model = tiny_model()
    last = model.graph.node[-1]
    assert model.graph.output[0].name in last.output
    model.graph.initializer.append(numpy_helper.from_array(np.array(np.inf, np.float32), "top"))
    taken = next(node for node in model.graph.node if node.name == "encoder/act")
    capped = onnx.helper.make_node("Clip", [taken.output[0], "", "top"], ["capped"], name="encoder/cap")
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == taken.output[0]:
                node.input[index] = "capped"
    model.graph.node.insert(list(model.graph.node).index(taken) + 1, capped)
    onnx.save(model, tmp_path / "capped.onnx")
    graph = read_graph(tmp_path / "capped.onnx")
    assert graph.dtype["top"] == FLOAT
    check_weights(graph, tmp_path / "capped.onnx")
