"""Peers run in processes of their own, take the same pictures, and their masks are judged."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from support.bench_runner import SIDE, engine_folder, fused_graph, golden_images, native_engine, opener

from gms_rt.bench.against import PeerOptions, open_peers, with_dice
from gms_rt.bench.latency import TimingOptions, measure
from gms_rt.engine.golden import read_golden
from gms_rt.errors import GmsError, UsageError
from gms_rt.parity.reference import ReferenceData, golden_from_data
from gms_rt.peers.client import Peer
from gms_rt.peers.graphs import best_threads, foreground_levels
from gms_rt.peers.opened import OpenedPeer

pytest.importorskip("onnxruntime")
QUICK = TimingOptions(seconds=0.1, warmup=0, rounds=2, cold=False)


def foreign_model(path: Path, *, classes: int = 2, side: int = 16) -> Path:
    """A float N×3×H×W segmentation model of another make: bright is class one."""
    from onnx import helper
    from support.graphs import FLOAT, model_of

    weight = np.zeros((classes, 3, 1, 1), np.float32)
    weight[-1] = 20 / 3
    # Class 0 is the ground, those between never win.
    bias = np.full(classes, -30, np.float32)
    bias[0], bias[-1] = 0, -10
    ends = [("x", FLOAT, [1, 3, side, side])], [("y", FLOAT, [1, classes, side, side])]
    model = model_of([helper.make_node("Conv", ["x", "w", "b"], ["y"])], *ends, {"w": weight, "b": bias}, ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_onnx_runtime_runs_a_fused_graph_and_equals_the_reference(tmp_path):
    folder = native_engine(tmp_path / "e")
    golden = read_golden(folder / "golden.npz")
    with Peer("onnxruntime", folder / "model.onnx", "onnxruntime") as peer:
        assert (peer.info.height, peer.info.width, peer.info.execution) == (SIDE, SIDE, "f32")
        assert peer.parameters == 8 * 27 + 8
        # One grey level for another order of additions.
        assert np.abs(peer.infer(golden.images).astype(int) - golden.probabilities).max() <= 1
        assert peer.load_ms > 0
        assert peer.first_ms > 0
        assert peer.peak_bytes is None or peer.peak_bytes > 1 << 20


def test_openvino_runs_a_fused_graph_in_its_own_arithmetic(tmp_path):
    folder = native_engine(tmp_path / "e")
    golden = read_golden(folder / "golden.npz")
    with contextlib.ExitStack() as stack:
        (peer,) = open_peers(["openvino"], stack, PeerOptions(graph=folder / "model.onnx"))
        assert (peer.label, peer.info.height, peer.info.width) == ("openvino", SIDE, SIDE)
        assert peer.info.execution in ("f32", "bf16", "f16")
        assert peer.info.details["runtime"].startswith("OpenVINO 20")
        # bf16 has eight bits.
        near = 1 if peer.info.execution == "f32" else 4
        assert np.abs(peer.infer(golden.images).astype(int) - golden.probabilities).max() <= near
        assert peer.parameters == 8 * 27 + 8
        result = measure([folder], QUICK, peers=[peer], opener=opener())
        assert with_dice(result.measured[1], peer, golden).reference_dice > 0.98
        with pytest.raises(UsageError, match="no NVIDIA GPUs"):
            open_peers(["openvino"], stack, PeerOptions(graph=folder / "model.onnx", device="cuda"))


def test_a_model_can_be_given_to_either_runtime(tmp_path):
    model = foreign_model(tmp_path / "other.onnx")
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, 4:12, 4:12] = 250
    with contextlib.ExitStack() as stack:
        names = [f"openvino:{model}", f"onnxruntime:{model}", str(model)]
        peers = open_peers(names, stack, PeerOptions(threads=1))
        assert [peer.label for peer in peers] == ["other-openvino", "other-onnxruntime", "other"]
        assert [peer.info.threads for peer in peers] == [1, 1, 1]
        masks = [peer.infer(image) > 127 for peer in peers]
    assert all(np.array_equal(mask, image[..., 0] > 0) for mask in masks)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_network_for_pictures_of_any_size_gets_those_of_its_usual_one(tmp_path, runtime):
    from onnx import load, save

    model = load(foreign_model(tmp_path / "fixed.onnx"))
    for value in (model.graph.input[0], model.graph.output[0]):
        for place, name in ((0, "n"), (2, "h"), (3, "w")):
            value.type.tensor_type.shape.dim[place].dim_param = name
    save(model, tmp_path / "free.onnx")
    with Peer(runtime, tmp_path / "free.onnx", "free") as peer:
        assert (peer.info.height, peer.info.width) == (224, 224)
        assert peer.infer(np.full((1, 224, 224, 3), 250, np.uint8)).min() > 200


def test_a_small_network_gets_the_threads_that_suit_it(monkeypatch):
    def opened(milliseconds):
        def run(images):
            time.sleep(milliseconds / 1e3)
            return images[..., 0]

        return OpenedPeer(run, 8, 8, "nothing", "f32", "", 1)

    monkeypatch.setattr("gms_rt.peers.graphs.os.cpu_count", lambda: 8)
    monkeypatch.setattr("gms_rt.peers.graphs._TRIED_SECONDS", 0.05)
    asked = []

    def by(times):
        asked.clear()

        def open_with(count):
            asked.append(count)
            return opened(times[count])

        return open_with

    assert best_threads(by({0: 12, 1: 3, 4: 9})) == 1
    assert best_threads(by({0: 2, 1: 14, 4: 9})) == 0
    assert best_threads(by({0: 70})) == 0 and asked == [0]
    monkeypatch.setattr("gms_rt.peers.graphs.os.cpu_count", lambda: 1)
    assert best_threads(by({})) == 0 and asked == []


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_any_segmentation_model_can_be_a_peer_with_its_own_dice(tmp_path, classes):
    model = foreign_model(tmp_path / "other.onnx", classes=classes)
    folder = engine_folder(tmp_path / "e")
    with contextlib.ExitStack() as stack:
        peers = open_peers([str(model)], stack, PeerOptions())
        result = measure([folder], QUICK, peers=peers, opener=opener())
        row = with_dice(result.measured[1], peers[0], read_golden(folder / "golden.npz"))
    assert [m.name for m in result.measured] == ["e", "other"]
    assert row.kind == "peer"
    assert row.size == (16, 16)
    assert row.total.count >= 2
    assert row.truth_dice is not None
    assert row.truth_dice > 0.75
    assert row.reference_dice is None


def test_outputs_of_every_layout_become_foreground():
    assert foreground_levels(np.full((1, 2, 2), 0.5, np.float32)).tolist() == [[128, 128], [128, 128]]
    assert foreground_levels(np.full((1, 2, 2), 40.0, np.float32)).max() == 255
    logits = np.zeros((3, 1, 1), np.float32)
    assert foreground_levels(logits)[0, 0] == 170
    assert foreground_levels(np.zeros((2, 2), np.float32)).max() == 0


def test_wrong_peers_are_refused_in_one_sentence(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    for names, words in (
        (["nonsense"], "neither a peer nor a model"),
        (["torch-eager"], "--run"),
        (["onnxruntime"], "needs an engine"),
        ([str(tmp_path / "absent.onnx")], "not a file"),
        ([str(broken)], "ONNX Runtime cannot open"),
        ([f"openvino:{broken}"], "OpenVINO cannot open"),
        (["openvino"], "needs an engine"),
        ([f"openvino:{tmp_path / 'absent.onnx'}"], "not a file"),
    ):
        with contextlib.ExitStack() as stack, pytest.raises(UsageError, match=words):
            open_peers(names, stack, PeerOptions())


def test_a_peer_that_dies_is_reported_not_waited_for(tmp_path):
    graph = fused_graph(tmp_path / "g.onnx")
    with Peer("onnxruntime", graph, "onnxruntime") as peer:
        os.kill(peer.pid, signal.SIGKILL)
        with pytest.raises(GmsError, match="process ended"):
            peer.infer(golden_images(1)[0])


def test_a_peer_that_hangs_is_ended(tmp_path, monkeypatch):
    graph = fused_graph(tmp_path / "g.onnx")
    with Peer("onnxruntime", graph, "onnxruntime") as peer:
        monkeypatch.setattr("gms_rt.peers.client.ANSWER_SECONDS", 0.3)
        os.kill(peer.pid, signal.SIGSTOP)
        with pytest.raises(GmsError, match="gave no answer"):
            peer.infer(golden_images(1)[0])


def test_a_peer_that_breaks_down_costs_nobody_else_his_figures(tmp_path, monkeypatch):
    graph = fused_graph(tmp_path / "g.onnx")
    folder = engine_folder(tmp_path / "e")
    with contextlib.ExitStack() as stack:
        (peer,) = open_peers(["onnxruntime"], stack, PeerOptions(graph=graph))
        os.kill(peer.pid, signal.SIGKILL)
        result = measure([folder], QUICK, peers=[peer], opener=opener())
    assert [m.name for m in result.measured] == ["e"]
    assert any(
        "onnxruntime was left out in round 1: the peer's process ended by signal 9" in w for w in result.warnings
    )
    # It may already break down when it is opened; a wrong name is still the user's mistake.
    monkeypatch.setattr("gms_rt.peers.client.MODULE", "gms_rt.no_such_module")
    lost: list[str] = []
    with contextlib.ExitStack() as stack:
        assert open_peers(["onnxruntime"], stack, PeerOptions(graph=graph), lost=lost) == []
        assert "onnxruntime could not be measured" in lost[0]
        assert "No module named" in lost[0]
        with pytest.raises(UsageError, match="neither"):
            open_peers(["onnxruntime", "nonsense"], stack, PeerOptions(graph=graph), lost=lost)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A small run of random weights."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from gms_rt.model.diffusers_tokenizer import load_diffusers
    from gms_rt.model.gms import Gms
    from gms_rt.model.lmm import LatentMapper, LmmConfig
    from gms_rt.model.run import save_run

    torch.manual_seed(4)
    root = tmp_path_factory.mktemp("run")
    wide = {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3}
    tiny = diffusers.AutoencoderTiny(**wide, num_encoder_blocks=(0, 1, 1), num_decoder_blocks=(1, 1, 0))
    tiny.save_pretrained(root / "tokenizer")
    tokenizer = load_diffusers("taesd", str(root / "tokenizer"))
    save_run(root / "run", Gms(tokenizer, LatentMapper(LmmConfig(tokenizer.spec.channels, 16, (1, 2), 8))).eval())
    return root / "run"


def test_the_torch_pipeline_is_a_peer(run_folder):
    import torch

    from gms_rt.model.run import load_run

    images, _ = golden_images(2)
    with Peer("torch-channels-last", run_folder, "torch", size=(SIDE, SIDE), threads=1) as peer:
        found = peer.infer(images)
        timings = peer.bench(images, seconds=0.05, iterations=3, warmup=0)
    expected = load_run(run_folder).segment(torch.from_numpy(images)).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert len(timings.total) >= 3
    assert (timings.total > 0).all()
    # A peer's inferences follow each other without a gap.
    assert timings.total.sum() / 1e3 == pytest.approx(timings.wall_seconds)


@pytest.mark.slow
def test_a_reference_can_be_drawn_from_data_and_a_run(run_folder, tmp_path):
    import cv2
    import torch

    from gms_rt.model.run import load_run

    images, truth = golden_images(3, side=48)
    for name, stack in (("images", images), ("masks", truth)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i, picture in enumerate(stack):
            cv2.imwrite(str(tmp_path / "data" / name / f"case{i}.png"), picture)
    golden = golden_from_data(ReferenceData(tmp_path / "data", run_folder, limit=2), SIDE, SIDE)
    assert golden.names == ("case0", "case1")
    assert golden.truth is not None
    assert golden.truth.shape == golden.probabilities.shape == (2, SIDE, SIDE)
    assert "FP32" in golden.origin
    expected = load_run(run_folder).segment(torch.from_numpy(golden.images)).numpy()
    assert np.abs(golden.probabilities.astype(int) - expected).max() <= 1
    (tmp_path / "data/masks/case1.png").unlink()
    with pytest.raises(UsageError, match="no mask"):
        golden_from_data(ReferenceData(tmp_path / "data", run_folder), SIDE, SIDE)
