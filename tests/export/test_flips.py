"""A graph that averages over flips by itself computes what PyTorch and `infer --tta` do, of every kind of model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.phantom_folders import write_picture
from support.small_gms import small_gms

from gms_rt.cli.main import run as gms_rt
from gms_rt.demo.phantoms import phantom_images
from gms_rt.engine.build import build_engine
from gms_rt.engine.manifest import read_manifest
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.errors import UsageError
from gms_rt.export.comparator import graph_from_comparator
from gms_rt.export.fuse import graph_from_gms
from gms_rt.export.options import ExportOptions
from gms_rt.export.student import graph_from_student
from gms_rt.graph.count import work_from_file
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.infer.options import InferOptions
from gms_rt.infer.predict import Predictor
from gms_rt.model.comparators.network import Comparator
from gms_rt.model.comparators.registry import comparator_facts
from gms_rt.model.student import Student, StudentShape
from gms_rt.scan.flips import mean_over_flips

SIDE = 64


def small(kind: str) -> tuple[object, object]:
    """A model of a kind with weights that answer differently in every direction, and its exporter."""
    torch.manual_seed(3)
    if kind == "gms":
        return small_gms("taesd"), graph_from_gms
    if kind == "comparator":
        return Comparator(comparator_facts("ege-unet"), SIDE).eval(), graph_from_comparator
    return Student(StudentShape(SIDE, 16, (1, 1, 1))).eval(), graph_from_student


def averaged(model, images, flips):
    def infer(views):
        return model.segment(torch.from_numpy(np.ascontiguousarray(views))).numpy()

    return np.rint(mean_over_flips(infer, images, flips))


@pytest.mark.parametrize(
    ("kind", "flips"),
    [("gms", "horizontal"), ("student", "quarter-turns"), ("comparator", "both")],
)
def test_the_graph_gives_the_mean_over_its_views(tmp_path: Path, kind: str, flips: str) -> None:
    model, exporter = small(kind)
    options = ExportOptions(SIDE, SIDE, flips=flips)
    out = exporter(model, tmp_path / "g.onnx", source={"kind": "test"}, options=options)
    images = phantom_images(range(400, 403), SIDE, SIDE)
    graph = read_graph(out)
    assert graph.size == (1, SIDE, SIDE)
    found = Session(graph).probabilities(images).astype(int)
    assert np.abs(found - averaged(model, images, flips)).max() <= 1
    plain = model.segment(torch.from_numpy(images)).numpy().astype(int)
    assert np.abs(found - plain).max() > 1, "every view has the same mask, so that nothing is tested"
    golden = np.load(tmp_path / "g.golden.npz")
    assert np.array_equal(golden["probabilities"], averaged(model, golden["images"], flips))


def test_a_range_of_batches_stays_one(tmp_path: Path) -> None:
    model, exporter = small("student")
    options = ExportOptions(SIDE, 96, batch=(1, 3), flips="both")
    out = exporter(model, tmp_path / "g.onnx", source={"kind": "test"}, options=options)
    images = phantom_images(range(400, 403), SIDE, 96)
    expected = averaged(model, images, "both")
    for batch in (1, 3):
        graph = read_graph(out, batch=batch)
        assert graph.size == (batch, SIDE, 96)
        assert np.abs(Session(graph).probabilities(images).astype(int) - expected).max() <= 1
    engine = tmp_path / "engine"
    build_engine(BuildRequest(out, engine, "fp32", ("cpu",)))
    with load(engine) as opened:
        assert np.abs(opened.runner.infer(images).astype(int) - expected).max() <= 1


def test_the_work_is_that_of_all_views(tmp_path: Path) -> None:
    model, exporter = small("student")
    flop = {}
    for flips in (None, "horizontal", "both"):
        out = exporter(model, tmp_path / f"{flips}.onnx", source={}, options=ExportOptions(SIDE, SIDE, flips=flips))
        flop[flips] = work_from_file(out).flop
    assert flop["horizontal"] == pytest.approx(2 * flop[None], rel=0.02)
    assert flop["both"] == pytest.approx(4 * flop[None], rel=0.02)


def test_quarter_turns_need_a_square(tmp_path: Path) -> None:
    model, exporter = small("student")
    with pytest.raises(UsageError, match="quarter turns need a square input"):
        exporter(model, tmp_path / "g.onnx", source={}, options=ExportOptions(64, 96, flips="quarter-turns"))
    with pytest.raises(UsageError, match="unknown flips"):
        exporter(model, tmp_path / "g.onnx", source={}, options=ExportOptions(64, 64, flips="sideways"))
    assert not (tmp_path / "g.onnx").exists()


def test_an_engine_of_it_says_so_and_is_not_averaged_twice(tmp_path: Path, capsys) -> None:
    from gms_rt.model.student_run import save_student

    model, _ = small("student")
    save_student(tmp_path / "run", model)
    graph = tmp_path / "edge.onnx"
    assert gms_rt(["export", str(tmp_path / "run"), "--flips", "horizontal", "--out", str(graph)]) == 0
    pictures = tmp_path / "pictures"
    for number, image in enumerate(phantom_images(range(8), SIDE, SIDE)):
        write_picture(pictures / f"{number}.png", image)
    built = ["build", str(graph), "--precision", "int8", "--target", "cpu", "--out", str(tmp_path / "engine")]
    assert gms_rt([*built, "--calib", str(pictures), "--gate-mean", "0", "--gate-min", "0"]) == 0
    assert read_manifest(tmp_path / "engine").flips == "horizontal"
    capsys.readouterr()
    assert gms_rt(["inspect", str(tmp_path / "engine")]) == 0
    assert "averages over flips: horizontal" in capsys.readouterr().out
    with load(tmp_path / "engine") as engine:
        Predictor(engine, InferOptions())
        with pytest.raises(UsageError, match="averages over flips by itself"):
            Predictor(engine, InferOptions(tta=True))
