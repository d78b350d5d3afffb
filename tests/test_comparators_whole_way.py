"""Every comparator goes the whole way at a small size: trained, evaluated, exported, built as INT8, timed.

Channels are fewer than published, so that all of it takes seconds; the code is the same. Published sizes are checked in
`tests/model/test_comparators.py`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.phantom_folders import write_pair, write_phantoms, write_vq

from gms_rt.bench.results import ColdStart, Roofline
from gms_rt.bench.run import BenchOptions, bench
from gms_rt.cli.main import run as gms_rt
from gms_rt.config import read_toml
from gms_rt.data.layouts import recognise
from gms_rt.data.splits import split_dataset
from gms_rt.demo.phantoms import phantom_images
from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.evaluate.dataset import Judge, evaluate
from gms_rt.export.fuse import graph_from_run
from gms_rt.export.options import ExportOptions
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.model.comparators.nnu_net import plan_from_nnunet
from gms_rt.model.comparators.registry import COMPARATORS, comparator_facts
from gms_rt.model.comparators.run import load_comparator
from gms_rt.model.loading import load_tokenizer
from gms_rt.precision.gate import Gate
from gms_rt.precision.images import ImageSet
from gms_rt.runtime.arithmetic import CpuArithmetic
from gms_rt.train.comparator import train_comparator
from gms_rt.train.predict import segmenter_from_run
from gms_rt.train.recipe import load_recipe
from gms_rt.train.request import ComparatorRequest

SIDE = 32
SETTINGS = [f"size={SIDE}", "epochs=8", "batch=4", "lr=1e-3", "warmup=0", "average=0", "threads=1", "validation=0.2",
            "validate_every=4"]  # fmt: skip
SEEDS = {"calibration": range(200, 202), "gate": range(300, 301)}


def narrow_plan(size: int) -> dict[str, Any]:
    """What nnU-Net plans, with fewer channels."""
    plan = plan_from_nnunet(size)
    parts = plan["architecture"]["arch_kwargs"]
    parts["features_per_stage"] = [min(16, width // 4) for width in parts["features_per_stage"]]
    return plan


# Fewer channels, and fewer scales where a model's code is the same at each: most of the time goes by the node.
DEEPLAB = {"deeplab._WIDTHS": (8, 8, 8, 8), "deeplab._BLOCKS": (1, 1, 1, 1), "deeplab._POOLED": 16}
SWIN = {"swin_unet._WIDTHS": (32, 64), "swin_unet._BLOCKS": 1}
NARROW: dict[str, dict[str, Any]] = {
    "unet": {"unet._WIDTHS": (8, 16, 16)},
    "depthwise-unet": {"depthwise_unet._WIDTHS": (8, 16)},
    "basic-unet": {"basic_unet._WIDTHS": (8, 8, 8, 8, 8, 8)},
    "multiresunet": {"multiresunet._WIDTHS": (8, 16)},
    "swin-unet": SWIN,
    "deeplabv3-mixstyle": DEEPLAB,
    "deeplabv3-dsu": DEEPLAB,
    "uctransnet": {"uctransnet._WIDTHS": (8, 16), "uctransnet._PATCHES": (16, 8), "uctransnet._LAYERS": 1},
    "acc-unet": {"acc_unet._WIDTHS": (8, 16), "acc_unet._LEVELS": (3, 1), "acc_unet._COMPILATIONS": 1},
    "nnu-net": {"nnu_net.plan_from_nnunet": narrow_plan},
    "sme-swin-unet": {**SWIN, "sme_swin_unet._LAYERS": 1, "superpixels._STEPS": 1},
    "gss": {
        "gss._WIDTHS": (8, 8, 8, 8),
        "gss._BLOCKS": (1, 1, 1, 1),
        "gss._GATHERED": 16,
        "gss._MIXED": 32,
        "gss._LAST": 32,
        "gss._HEADS": 2,
    },
    "medsegdiff-v2": {
        "medsegdiff_v2._CONDITION_WIDTHS": (8, 8, 8),
        "medsegdiff_v2._CONDITION_DROPOUT": 0.0,
        "medsegdiff_v2._WIDTH": 16,
        "medsegdiff_v2._MULTIPLIERS": (1, 1, 1),
        "medsegdiff_v2._BLOCKS": 0,  # but for the way up, which has one more
        "medsegdiff_v2._ATTENTIVE": (),
        "medsegdiff_v2._FORMER_WIDTH": 16,
        "medsegdiff_v2._TAKEN": 2,
        "spectrum_former._LAYERS": 1,
    },
    "sdseg": {
        "sdseg._WIDTH": 16,
        "sdseg._MULTIPLIERS": (1, 2),
        "sdseg._BLOCKS": 1,
        "sdseg._HEADS": 2,
        "sdseg._DROPOUT": 0.0,
    },
}


class QuickNorm(torch.nn.BatchNorm2d):
    """Batch normalisation whose running figures are right after a training of sixteen steps."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("comparators")
    write_phantoms(root / "scans", 2, (SIDE, SIDE), 300)
    return write_phantoms(root / "data", 12)


@pytest.fixture(scope="module")
def tokenizers(data: Path) -> dict[str, str]:
    """A small one of each kind that models need."""
    return {"sd-vae": write_pair(data.parent / "pair"), "vq": write_vq(data.parent / "vq")}


@pytest.fixture
def narrow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model that has fewer channels for this test."""
    name: str = request.param
    if not comparator_facts(name).installed:
        pytest.skip(f"{name} needs the package {comparator_facts(name).package}")
    for place, value in NARROW.get(name, {}).items():
        monkeypatch.setattr(f"gms_rt.model.comparators.{place}", value)
    monkeypatch.setattr("torch.nn.BatchNorm2d", QuickNorm)
    # What is asked here is whether the model goes through; on a CPU with BF16 a build compiles everything twice, and
    # the start of a fresh process and the ceilings of the machine say nothing of the model.
    plain = CpuArithmetic(fp16=False, bf16=False)
    monkeypatch.setattr("gms_rt.precision.cpu_choice.cpu_arithmetic", lambda: plain)
    not_started = ColdStart(None, None, None, None, why="not asked for")
    monkeypatch.setattr("gms_rt.bench.latency.cold_start", lambda *_, **__: not_started)
    monkeypatch.setattr("gms_rt.precision.rounding._MOST_COLUMNS", 600)
    monkeypatch.setattr("gms_rt.bench.run.roofline", lambda *_, **__: Roofline(why="not asked for"))
    return name


@pytest.mark.slow
@pytest.mark.parametrize("narrow", [facts.name for facts in COMPARATORS], indirect=True)
def test_the_whole_way(narrow: str, data: Path, tokenizers: dict[str, str], tmp_path: Path) -> None:
    run, graph, engine = tmp_path / "run", tmp_path / "way.onnx", tmp_path / "engine"
    dataset = recognise(data)
    split = split_dataset(dataset, validation=0.2)
    kind = comparator_facts(narrow).tokenizer
    frozen = None if kind is None else load_tokenizer(tokenizers[kind])
    recipe = load_recipe(comparator_facts(narrow).recipe, SETTINGS)
    outcome = train_comparator(ComparatorRequest(narrow, dataset, split, recipe, run, tokenizer=frozen))
    assert outcome.best_epoch > 0 and outcome.parameters == load_comparator(run).parameter_count
    images = phantom_images(range(500, 503), SIDE, SIDE)
    segmenter = segmenter_from_run(run)
    expected = segmenter.infer(images).astype(int)
    assert len(np.unique(expected)) > 2, "masks of one grey level compare nothing"
    cases = dataset.named(split.test)
    found = evaluate(cases, segmenter, tmp_path / "eval", Judge(gallery=0))
    assert len(found.cases) == len(cases)
    graph_from_run(run, graph, ExportOptions(SIDE, SIDE))
    same = Session(read_graph(graph)).probabilities(images).reshape(expected.shape)
    assert np.abs(same - expected).max() <= 1
    sets = {name: ImageSet(phantom_images(seeds, SIDE, SIDE), name) for name, seeds in SEEDS.items()}
    build_engine(
        BuildRequest(
            graph, engine, "int8", ("cpu",), calibration=sets["calibration"], gate_images=sets["gate"], gate=Gate(0, 0),
            calibrator="minmax",
        )
    )  # fmt: skip
    typed = read_graph(engine / "model.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in typed.nodes}
    low = Session(typed).probabilities(images).reshape(expected.shape)
    assert np.abs(low - expected).mean() < 30
    short = BenchOptions((engine,), seconds=0.05, warmup=0, rounds=1, sweep=False, layers=False, certify=False)
    assert bench(short).result.measured[0].throughput > 0


def test_by_the_command_line(data: Path, tmp_path: Path) -> None:
    run, graph, engine = tmp_path / "run", tmp_path / "way.onnx", tmp_path / "engine"
    chosen = [text for setting in SETTINGS for text in ("--set", setting)]
    started = ["train", str(data), "--model", "ege-unet", *chosen, "--out", str(run)]
    assert gms_rt(started) == 0
    assert gms_rt(started) == 2, "a run was trained over"
    assert gms_rt([*started, "--resume"]) == 0
    assert read_toml(run / "config.toml")["comparator"] == {"model": "ege-unet", "size": SIDE}
    assert gms_rt(["eval", str(data), "--run", str(run), "--gallery", "0", "--out", str(tmp_path / "eval")]) == 0
    assert json.loads((tmp_path / "eval" / "summary.json").read_text())["at_224"]["dice"]["mean"] >= 0
    assert gms_rt(["export", str(run), "--reference", "phantoms", "--out", str(graph)]) == 0
    scans = str(data.parent / "scans" / "images")
    asked = ["--precision", "int8", "--calib", str(data / "images"), "--calib-images", "4", "--gate-data", scans,
             "--gate-mean", "0", "--gate-min", "0", "--calibrator", "minmax", "--target", "cpu"]  # fmt: skip
    # 3: the certificate of a network that was trained for seconds may fail; the engine is there.
    assert gms_rt(["build", str(graph), *asked, "--out", str(engine)]) in (0, 3)
    assert json.loads((engine / "engine.json").read_text())["precision"] == "int8"
    timed = ["--seconds", "0.1", "--warmup", "0", "--rounds", "1", "--no-sweep", "--no-layers", "--no-certify"]
    assert gms_rt(["bench", "--engine", str(engine), *timed, "--out", str(tmp_path / "report.json")]) == 0
    assert gms_rt(["infer", scans, "--engine", str(engine), "--out", str(tmp_path / "masks")]) == 0
    assert len(list((tmp_path / "masks").rglob("*.png"))) >= 2


def test_the_list_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert gms_rt(["train", "--list-models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for facts in COMPARATORS:
        assert any(line.startswith(f"{facts.name} ") and str(facts.year) in line for line in lines)


def test_a_model_without_its_package_is_listed_and_says_what_to_install(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = dataclasses.replace(comparator_facts("nnu-net"), package="no_such_package")
    monkeypatch.setattr("gms_rt.model.comparators.registry.COMPARATORS", (facts,))
    assert gms_rt(["train", "--list-models"]) == 0
    listed = capsys.readouterr().out
    assert any(line.split()[:4] == ["nnu-net", "2021", "20.6", "-"] for line in listed.splitlines())
    assert "nnu-net: not installed: pip install 'gms-rt[comparators]'; the network" in listed
    asked = ["train", str(data), "--model", "nnu-net", "--set", f"size={SIDE}", "--out", str(tmp_path / "run")]
    assert gms_rt(asked) == 2
    assert "nnUNet needs the 'comparators' extra; run: pip install 'gms-rt[comparators]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_or_a_model_and_not_both(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["train", str(data), "--out", str(tmp_path / "run")]
    for more in ([], ["--model", "unet", "--tokenizer", "taesd"]):
        assert gms_rt([*asked, *more]) == 2
        assert "--tokenizer, --model" in capsys.readouterr().err
    assert gms_rt([*asked, "--model", "no-net"]) == 2
    assert "unknown model 'no-net'" in capsys.readouterr().err
    assert gms_rt([*asked, "--model", "unet", "--recipe", "fast"]) != 0
    assert "trains on latents first" in capsys.readouterr().err
