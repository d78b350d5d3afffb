"""Networks of another library, adopted: the graph answers as the model does, and every verb takes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from support.foreign_models import SIZE, export, phantom_batch, quiet, teach
from support.phantom_folders import write_phantoms
from support.serve_server import Setup, serving
from torch import nn

from gms_rt.adopt.adopt import AdoptedGraph, graph_from_foreign
from gms_rt.adopt.options import AdoptOptions
from gms_rt.cli.main import run
from gms_rt.engine.golden import read_golden
from gms_rt.engine.select import load
from gms_rt.errors import UsageError
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session

with quiet():
    nets = pytest.importorskip("monai.networks.nets")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def imagenet(images: torch.Tensor) -> torch.Tensor:
    return (images / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def grey(images: torch.Tensor) -> torch.Tensor:
    return (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True) / 255


def z_score(images: torch.Tensor) -> torch.Tensor:
    x = images / 255
    x = x - x.mean((2, 3), keepdim=True)
    return x / x.square().mean((2, 3), keepdim=True).sqrt()


def unet() -> nn.Module:
    return nets.UNet(2, 3, 1, channels=(8, 16, 32), strides=(2, 2), num_res_units=1, norm="batch")


def nnunet() -> nn.Module:
    """nnU-Net's own network, as MONAI has it."""
    return nets.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 24], norm_name="instance")


def segresnet() -> nn.Module:
    return nets.SegResNet(2, init_filters=8, in_channels=3, out_channels=3, blocks_down=(1, 1), blocks_up=(1,))


def attention_unet() -> nn.Module:
    return nets.AttentionUnet(2, 3, 1, channels=(8, 16, 32), strides=(2, 2))


# The network, what its users do to a picture, the same in our words, what foreground is in its output, its exporter.
Sort = tuple[Callable[[], nn.Module], Any, dict[str, Any], Any, dict[str, Any]]
OPEN = {"dynamic_axes": {"input": {0: "batch", 2: "height", 3: "width"}}, "input_names": ["input"]}
NEWER = {"dynamo": True, "opset_version": 18}
SORTS: dict[str, Sort] = {
    "unet": (unet, imagenet, {"activation": "sigmoid", "mean": MEAN, "std": STD}, lambda y: y, NEWER),
    "nnunet": (nnunet, grey, {"activation": "softmax"}, lambda y: y[:, 1:] - y[:, :1], {}),
    "segresnet": (
        segresnet,
        z_score,
        {"activation": "argmax", "z_score": True, "size": (SIZE, SIZE)},
        lambda y: y[:, 1:].amax(1, keepdim=True) - y[:, :1],
        OPEN,
    ),
    "attention-unet": (
        attention_unet,
        lambda images: images.flip(1) - 128,
        {"activation": "sigmoid", "mean": (128.0,), "scale": 1.0, "colour": "bgr"},
        lambda y: y,
        {},
    ),
}


class Adopted:
    """One network on its way."""

    def __init__(self, name: str, folder: Path) -> None:
        build, self.prepare, self.options, self.logit, exporter = SORTS[name]
        torch.manual_seed(0)
        self.network = teach(build(), self.prepare, self.logit)
        inputs = self.prepare(phantom_batch(range(1))[0])
        self.file = export(self.network, folder / f"{name}.onnx", tuple(inputs.shape), **exporter)
        self.scans = write_phantoms(folder / "scans", 8)
        self.found: AdoptedGraph = graph_from_foreign(
            self.file, folder / f"{name}-adopted.onnx", AdoptOptions(**self.options), reference=self.scans
        )

    def torch_levels(self, images: Any) -> Any:
        """What torch makes of the pictures; the foreground's lead is the logit of its probability."""
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
        with torch.no_grad():
            logit = self.logit(self.network(self.prepare(pixels)))
        return torch.round(torch.sigmoid(logit) * 255).to(torch.uint8)[:, 0].numpy()


@pytest.fixture(scope="module", params=SORTS)
def adopted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adopted:
    return Adopted(request.param, tmp_path_factory.mktemp(request.param))


def test_the_graph_and_its_reference_answer_as_torch_does(adopted: Adopted) -> None:
    golden = read_golden(adopted.found.golden)
    expected = adopted.torch_levels(golden.images)
    assert 0 < np.count_nonzero(expected >= 128) < expected.size  # it has learned to draw something
    assert np.abs(golden.probabilities.astype(int) - expected).max() <= 1
    graph = read_graph(adopted.found.graph)
    answers = Session(graph).probabilities(golden.images)
    assert np.abs(answers.astype(int) - expected).max() <= 1
    assert np.mean((answers >= 128) != (expected >= 128)) < 1e-3
    assert golden.origin.startswith("OpenVINO ") and golden.origin.endswith(f"FP32 of {adopted.file.name} as it came")
    assert (golden.synthetic, golden.source) == (False, "8 pictures of scans")
    assert golden.truth is not None


def test_nothing_is_left_that_a_build_would_stumble_on(adopted: Adopted) -> None:
    graph = read_graph(adopted.found.graph)
    assert all(name in graph.shape for node in graph.nodes for name in node.output)
    kinds = {node.op_type for node in graph.nodes}
    assert not kinds & {"BatchNormalization", "Identity", "Dropout", "Shape", "Constant", "If"}
    assert all(not node.doc_string and not node.metadata_props for node in graph.nodes)
    about = json.loads(graph.metadata()["gms_rt.source"])
    assert about["kind"] == "adopted" and about["activation"] == adopted.options["activation"]
    onnx.checker.check_model(str(adopted.found.graph), full_check=True)


@pytest.mark.parametrize("adopted", ["unet"], indirect=True)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_every_verb_takes_it(adopted: Adopted, precision: str, tmp_path: Path, capsys: Any) -> None:
    engine = tmp_path / "engine"
    words = ["build", str(adopted.found.graph), "--precision", precision, "--target", "cpu", "--out", str(engine)]
    calibration = write_phantoms(tmp_path / "calibration", 12, first=700_000) / "images"
    # A network taught for a moment on 64 pixels a side hangs on single pixels.
    words += ["--gate-mean", "0.9", "--gate-min", "0.7"] if precision == "int8" else []
    assert run([*words, "--calib", str(calibration), "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["certificate"]["verdict"] == "pass"
    assert built["manifest"]["source"]["graph_source"]["kind"] == "adopted"
    if precision != "int8":
        return
    assert run(["parity", str(engine), "--gate-mean", "0.9", "--gate-min", "0.7"]) == 0
    assert "OpenVINO" in json.loads((engine / "parity.json").read_text())["reference"]["what"]
    assert run(["infer", str(adopted.scans / "images"), "--engine", str(engine), "--out", str(tmp_path / "masks")]) == 0
    assert len(list((tmp_path / "masks").rglob("*.png"))) >= 8


@pytest.mark.parametrize("adopted", ["unet"], indirect=True)
def test_it_is_timed_and_served_as_any_engine_is(adopted: Adopted, tmp_path: Path, capsys: Any) -> None:
    engine, scans = tmp_path / "engine", adopted.scans / "images"
    words = ["build", str(adopted.found.graph), "--precision", "fp16", "--target", "cpu", "--out", str(engine)]
    assert run(words) == 0
    capsys.readouterr()
    words = ["bench", "--engine", str(engine), "--seconds", "0.1", "--rounds", "2", "--warmup", "0", "--no-sweep"]
    assert run([*words, "--no-layers", "--out", str(tmp_path / "report.json"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (timed,) = report["bench"]["measured"]
    assert timed["name"] == "engine" and timed["total"]["median"] > 0
    assert [each["verdict"] for each in report["parity"]] == ["pass"]

    assert run(["infer", str(scans), "--engine", str(engine), "--out", str(tmp_path / "masks")]) == 0
    one = min(scans.iterdir())
    with serving(load(engine, device="cpu"), Setup()) as server:
        assert server.ask("GET", "/v2/health/ready").status == 200
        answer = server.segment(one.read_bytes(), Accept="image/png")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert answer.body == (tmp_path / f"masks/masks/{one.stem}.png").read_bytes()


def test_the_command_line_says_what_it_wrote(adopted: Adopted, tmp_path: Path, capsys: Any) -> None:
    options = adopted.options
    words = ["adopt", str(adopted.file), "--activation", options["activation"], "--out", str(tmp_path / "g.onnx")]
    words += ["--z-score"] if options.get("z_score") else []
    words += ["--size", str(SIZE)] if "size" in options else []
    assert run([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["height"], found["width"], found["synthetic"]) == (SIZE, SIZE, True)
    assert found["largest_difference"] <= 2
    assert run(words) == 0
    assert "no certificate rests on drawn pictures" in capsys.readouterr().out


@pytest.mark.parametrize("adopted", ["nnunet"], indirect=True)
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"activation": "softmax", "size": (96, 96)}, "is 64×64"),
        ({"activation": "sigmoid"}, "--channel"),
        ({"activation": "softmax", "channels": (5,)}, "2 channels, 0 to 1"),
        ({"activation": "softmax", "channels": (0, 1)}, "not foreground"),
        ({"activation": "softmax", "mean": MEAN}, "has 1 channel"),
        ({"activation": "softmax", "batch": 2}, "say --batch 1"),
        ({"activation": "softmax", "layout": "nhwc"}, "has 64 channels"),
        ({"activation": "labels"}, "labels are one"),
        ({"activation": "softmax", "output": "other"}, "has no output 'other'"),
    ],
)
def test_what_does_not_fit_the_model_is_told(adopted: Adopted, options: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told):
        graph_from_foreign(adopted.file, tmp_path / "g.onnx", AdoptOptions(**options))
    assert not list(tmp_path.iterdir())


def test_an_adopted_graph_is_not_adopted_again(adopted: Adopted, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        graph_from_foreign(adopted.found.graph, tmp_path / "g.onnx", AdoptOptions("sigmoid"))
