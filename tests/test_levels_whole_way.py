"""A model with levels goes the whole way: trained, exported, built in every precision, evaluated, ablated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.phantom_folders import write_deep_pair, write_phantoms

from gms_rt.cli.main import run as gms_rt
from gms_rt.demo.phantoms import phantom
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.runtime.arithmetic import cpu_arithmetic

SIDE = 32
SETTINGS = [f"size={SIDE}", "width=8", "groups=4", "multipliers=[1,2]", "batch=4", "latent_epochs=20", "epochs=8",
            "views=2", "threads=1", "levels=[1,2]", "pooling=both"]  # fmt: skip


def chosen(settings: list[str]) -> list[str]:
    return [text for setting in settings for text in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with levels that has learnt a little, and its graph."""
    root = tmp_path_factory.mktemp("way")
    data, tokenizer = write_phantoms(root / "data", 16), write_deep_pair(root / "tokenizer")
    assert gms_rt(["train", str(data), "--tokenizer", tokenizer, *chosen(SETTINGS), "--out", str(root / "run")]) == 0
    assert gms_rt(["export", str(root / "run"), "--out", str(root / "way.onnx")]) == 0
    return root / "run", root / "way.onnx"


def pictures(count: int = 6) -> np.ndarray:
    return np.stack([phantom(seed, SIDE, SIDE).rgb for seed in range(500, 500 + count)])


def test_the_encoder_is_in_the_graph_once_and_the_statistics_are_in_its_convolutions(
    trained: tuple[Path, Path],
) -> None:
    from gms_rt.train.predict import segmenter_from_run

    run, graph = trained
    nodes = onnx.load(graph).graph.node
    inside = [n.op_type for n in nodes if n.name.startswith(("input/", "encoder/"))]
    assert [inside.count(kind) for kind in ("Conv", "Relu", "AveragePool", "MaxPool")] == [3, 2, 2, 2]
    levels = [n.output[0] for n in nodes if n.op_type == "Concat" and n.name.startswith("encoder/")]
    readers = [n for n in nodes if set(n.input) & set(levels)]
    assert [(n.op_type, n.name.partition("/")[0], len(n.input)) for n in readers] == [("Conv", "lmm", 3)] * 2
    images = pictures()
    expected = segmenter_from_run(run).infer(images)
    found = Session(read_graph(graph)).probabilities(images)
    assert np.abs(found.reshape(expected.shape).astype(int) - expected).max() <= 1
    assert 0.02 < np.mean(expected >= 128) < 0.98, "masks that are all or nothing compare nothing"


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_it_builds_in_every_precision(trained: tuple[Path, Path], tmp_path: Path, precision: str) -> None:
    if precision == "bf16" and not cpu_arithmetic().bf16:
        pytest.skip("this processor has no BF16")
    gate = write_phantoms(tmp_path / "gate", 6, (SIDE, SIDE), 300) / "images"
    engine = tmp_path / "engine"
    asked = ["--precision", precision, "--gate-data", str(gate), "--gate-mean", "0.9", "--gate-min", "0.5",
             "--target", "cpu", "--out", str(engine)]  # fmt: skip
    if precision == "int8":
        asked += ["--calib", str(write_phantoms(tmp_path / "calibration", 6, (SIDE, SIDE), 200) / "images")]
    assert gms_rt(["build", str(trained[1]), *asked]) == 0
    manifest = json.loads((engine / "engine.json").read_text())
    assert manifest["gate"]["passed"]
    images = pictures()
    reference = Session(read_graph(trained[1])).probabilities(images).astype(int)
    found = Session(read_graph(engine / "model.onnx")).probabilities(images)
    assert np.mean((found >= 128) != (reference >= 128)) < 0.05
    assert (gms_rt(["infer", str(gate), "--engine", str(engine), "--out", str(tmp_path / "out")])) == 0


def test_it_is_evaluated_and_ablated(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run = trained[0]
    data = run.parent / "data"
    assert gms_rt(["eval", str(data), "--run", str(run), "--out", str(tmp_path / "eval")]) == 0
    assert json.loads((tmp_path / "eval" / "summary.json").read_text())["at_224"]["dice"]["mean"] > 0.3
    short = ["latent_epochs=0", "epochs=1"]  # cells of this table differ in `epochs` alone
    tokenizer = f"onnx:{run.parent / 'tokenizer'}"
    asked = [
        "--tokenizer",
        tokenizer,
        "--recipe",
        "fast",
        *chosen([*SETTINGS, *short]),
        "--out",
        str(tmp_path / "grid"),
    ]
    assert gms_rt(["ablate", "loss", str(data), *asked]) == 0
    assert json.loads((tmp_path / "grid" / "ablation.json").read_text())["cells"].keys() == {"latent", "dice", "both"}
