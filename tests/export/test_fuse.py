"""The fused graph equals the PyTorch pipeline, for every tokenizer, size and batch, in both CPU runtimes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.small_gms import small_gms

from gms_rt.artifacts import write_json
from gms_rt.class_lists import classes_value
from gms_rt.classes import SegmentClass
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.export.fuse import graph_from_gms, graph_from_run
from gms_rt.export.options import ExportOptions
from gms_rt.graph import write
from gms_rt.graph.graph import Graph
from gms_rt.model.gms import Gms
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.official import load_official
from gms_rt.model.run import load_run, save_run
from gms_rt.runtime.signal_stack import cpu_core

diffusers = pytest.importorskip("diffusers")
DATA = os.environ.get("GMS_RT_DATA")


def pictures(count: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (count, height, width, 3), np.uint8)
    noise[0, : height // 2] = 255  # flat parts and hard borders too
    noise[0, height // 2 :, width // 2 :] = 0
    return noise


def spread(graph: Path, gms: Gms, images: np.ndarray) -> int:
    """The largest difference to PyTorch over both runtimes, in grey levels."""
    expected = gms.segment(torch.from_numpy(images)).numpy().astype(int)
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    compiled = cpu_core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = [session.run(None, {"image": images})[0], compiled(images)[0]]
    assert all(f.shape == (*images.shape[:3], 1) and f.dtype == np.uint8 for f in found)
    return max(int(np.abs(f[..., 0] - expected).max()) for f in found)


def test_the_graph_equals_the_pipeline(exported):
    gms, graph = exported
    images = pictures(1, 48, 32)
    assert len(np.unique(gms.segment(torch.from_numpy(images)))) > 8, "the test model draws nothing"
    assert spread(graph, gms, images) <= 1


def test_layout_names_and_description(exported):
    gms, graph = exported
    model = onnx.load(graph)
    nodes = model.graph.node
    assert (nodes[0].op_type, nodes[-1].op_type) == ("Cast", "Cast")
    assert "image" in nodes[0].input and sum("image" in node.input for node in nodes) == 1
    assert {node.name.partition("/")[0] for node in nodes} == {"input", "encoder", "lmm", "decoder", "output"}
    assert len({node.name for node in nodes}) == len(nodes)
    ends = {v.name: v.type.tensor_type for v in (*model.graph.input, *model.graph.output)}
    assert {name: t.elem_type for name, t in ends.items()} == {"image": 2, "mask": 2}
    assert [d.dim_value for d in ends["image"].shape.dim] == [1, 48, 32, 3]
    assert [d.dim_value for d in ends["mask"].shape.dim] == [1, 48, 32, 1]
    assert {o.domain: o.version for o in model.opset_import}[""] == 18
    facts = {p.key: p.value for p in model.metadata_props}
    assert (facts["gms_rt.format"], facts["gms_rt.name"]) == ("1", "small")
    assert json.loads(facts["gms_rt.tokenizer"])["sha256"] == gms.tokenizer.weights_sha256()
    assert json.loads(facts["gms_rt.source"]) == {"kind": "test"}


def test_the_reference_beside_the_graph_is_pytorchs(exported):
    gms, graph = exported
    golden = np.load(graph.with_suffix(".golden.npz"))
    assert golden["images"].shape == (6, 48, 32, 3) and golden["truth"].shape == (6, 48, 32)
    assert np.array_equal(golden["probabilities"][3], gms.segment(torch.from_numpy(golden["images"][3:4]))[0])
    assert len(set(golden["names"])) == 6


def test_folding_leaves_one_channel_to_draw(exported):
    _, graph = exported
    model = onnx.load(graph)
    sizes = {t.name: list(t.dims) for t in model.graph.initializer}
    last = [n for n in model.graph.node if n.op_type == "Conv"][-1]
    assert sizes[last.input[1]][0] == 1
    behind = [n.op_type for n in model.graph.node][list(model.graph.node).index(last) + 1 :]
    assert behind[0] == "Clip" and set(behind) <= {"Clip", "Mul", "Round", "Transpose", "Reshape", "Cast"}


@pytest.mark.parametrize("opset", [18, 21])
def test_a_range_of_batches(tmp_path, opset):
    gms = small_gms("taesd")
    options = ExportOptions(32, 64, batch=(1, 3), opset=opset)
    graph = graph_from_gms(gms, tmp_path / "b.onnx", source={"kind": "test"}, options=options)
    for count in (1, 2, 3):
        assert spread(graph, gms, pictures(count, 32, 64)) <= 1


def test_large_weights_get_a_file_of_their_own(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "EXTERNAL_BYTES", 50_000)
    gms, small = exported
    graph = tmp_path / "big.onnx"
    assert write.write_graph(Graph(onnx.load(small)), graph, check=True) == [graph, tmp_path / "big.onnx.data"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
    assert graph.stat().st_size < 300_000 < (tmp_path / "big.onnx.data").stat().st_size + 300_000
    assert write.stored_bytes(graph) == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert spread(graph, gms, pictures(1, 48, 32)) <= 1


@pytest.mark.parametrize("wrong", [{"height": 50}, {"width": 0}, {"batch": (3, 1)}, {"batch": (0, 1)}, {"opset": 12}])
def test_impossible_options_are_refused(tmp_path, wrong):
    with pytest.raises(UsageError):
        graph_from_gms(small_gms("taesd"), tmp_path / "g.onnx", source={}, options=ExportOptions(**wrong))
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_comes_back_and_exports(tmp_path):
    gms = small_gms("taesd")
    gms.tokenizer.autoencoder.save_pretrained(tmp_path / "run" / "tokenizer")
    gms.tokenizer.spec = gms.tokenizer.spec.__class__(**{**vars(gms.tokenizer.spec), "source": "tokenizer"})
    save_run(tmp_path / "run", gms, {"training": {"steps": 3, "recipe": "fast"}})
    images = torch.from_numpy(pictures(2, 32, 32))
    assert torch.equal(load_run(tmp_path / "run").segment(images), gms.segment(images))
    graph = graph_from_run(tmp_path / "run", tmp_path / "g.onnx", ExportOptions(32, 32))
    facts = {p.key: p.value for p in onnx.load(graph).metadata_props}
    assert json.loads(facts["gms_rt.source"])["name"] == "run"
    assert json.loads(facts["gms_rt.tokenizer"])["source"] == "tokenizer"
    assert "gms_rt.classes" not in facts
    write_json(tmp_path / "run/classes.json", classes_value([SegmentClass("Cyst")]))
    graph = graph_from_run(tmp_path / "run", tmp_path / "g.onnx", ExportOptions(32, 32))
    facts = {p.key: p.value for p in onnx.load(graph).metadata_props}
    assert [each["name"] for each in json.loads(facts["gms_rt.classes"])] == ["Cyst"]


def test_a_run_refuses_another_tokenizer_or_other_weights(tmp_path):
    gms = small_gms("taesd")
    gms.tokenizer.autoencoder.save_pretrained(tmp_path / "tokenizer")
    gms.tokenizer.spec = gms.tokenizer.spec.__class__(**{**vars(gms.tokenizer.spec), "source": "tokenizer"})
    save_run(tmp_path, gms)
    config = (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(config.replace("width = 16", "width = 32"))
    with pytest.raises(ArtifactError, match=r"stem\.weight"):
        load_run(tmp_path)
    (tmp_path / "config.toml").write_text(config)
    with torch.no_grad():
        gms.tokenizer.autoencoder.decoder.layers[0].bias += 1
    gms.tokenizer.autoencoder.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(ArtifactError, match="have changed"):
        load_run(tmp_path)
    (tmp_path / "lmm.safetensors").unlink()
    with pytest.raises(UsageError, match=r"lmm\.safetensors"):
        load_run(tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        load_run(tmp_path / "absent")


def test_tensorrt_accepts_the_graph(exported, capfd):
    """TensorRT's parser and builder run without a GPU in the RTX flavour."""
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(exported[1].read_bytes())
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM80, 0)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None and plan.nbytes > 10_000


@pytest.mark.skipif(DATA is None, reason="GMS_RT_DATA is not set")
@pytest.mark.parametrize("name", ["vaelight", "taef2"])
def test_onnx_pairs_fuse_and_agree_on_real_pictures(tmp_path, name):
    import cv2

    tokenizer = load_tokenizer(f"onnx:{Path(DATA) / 'weights' / name}")
    official = Path(DATA) / "weights/gms-official-ham10000/best_model.pth"
    torch.manual_seed(0)
    mapper = load_official(official).mapper if name == "vaelight" else LatentMapper(LmmConfig(32, 16, (1, 2)))
    gms = Gms(tokenizer, mapper).eval()
    graph = graph_from_gms(gms, tmp_path / "pair.onnx", source={"kind": "test"}, options=ExportOptions(96, 128))
    files = sorted((Path(DATA) / "ham10000/images").iterdir())[:2]
    real = [cv2.resize(cv2.imread(str(f))[..., ::-1], (128, 96), interpolation=cv2.INTER_AREA) for f in files]
    for image in [*real, pictures(1, 96, 128)[0]]:
        assert spread(graph, gms, np.ascontiguousarray(image[None])) <= 1


def test_a_weight_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    gms = small_gms("taesd")
    name, weight = next((n, p) for n, p in gms.mapper.named_parameters() if p.ndim == 4)
    with torch.no_grad():
        weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ArtifactError, match=rf"1 of \d+ values of the weight 'mapper.{name}' are NaN or infinite"):
        graph_from_gms(gms, tmp_path / "g.onnx", source={}, options=ExportOptions(32, 32))
    assert list(tmp_path.iterdir()) == []
