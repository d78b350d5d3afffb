"""Polygraphy as a second opinion: its ONNX Runtime runner against this project's engines, graph for graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.demo.bundled import demo_graph
from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.runtime.cpu import CpuRunner


def images() -> U8:
    return np.asarray(np.load(demo_graph().with_suffix(".golden.npz"))["images"], np.uint8)


def opinion(graph: Path) -> U8:
    """What Polygraphy gets out of a graph for the golden images."""
    with OnnxrtRunner(SessionFromOnnx(str(graph), providers=["cpu"])) as runner:
        return np.concatenate([runner.infer({"image": image[None]})["mask"].copy()[..., 0] for image in images()])


def test_the_bundled_graph_means_the_same_to_both() -> None:
    with CpuRunner(demo_graph()) as runner:
        ours = runner.infer(images())
    assert np.abs(ours.astype(int) - opinion(demo_graph())).max() <= 1


@pytest.mark.parametrize(("precision", "lowest"), [("fp16", 0.995), ("int8", 0.97)])
def test_typed_graphs_give_the_same_masks(precision: str, lowest: float, tmp_path: Path) -> None:
    few = {"calibration_limit": 4, "gate_limit": 24}  # the masks are compared below
    folder = build_engine(BuildRequest(out=tmp_path / "e", precision=precision, targets=("cpu",), **few)).folder
    with load(folder, device="cpu") as engine:
        ours = engine.runner.infer(images())
    theirs = opinion(folder / "model.onnx")
    assert min(metrics.dice(a >= 128, b >= 128) for a, b in zip(ours, theirs, strict=True)) >= lowest
