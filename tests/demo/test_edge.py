"""The bundled model's edge student: as good as its card says, small, and made from what lies next to it."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest

from gms_rt.artifacts import sha256_file
from gms_rt.config import read_toml
from gms_rt.demo.bundled import DEMO_RUN, EDGE_RUN, edge_graph
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import TRAINING_SEEDS, UNSEEN_SEEDS
from gms_rt.graph.count import work_from_graph
from gms_rt.graph.read import read_graph
from gms_rt.metrics import dice
from gms_rt.runtime.signal_stack import cpu_core


@pytest.fixture(scope="module")
def segment():
    """The graph on the CPU in FP32: one uint8 picture of network size in, its probabilities out."""
    compiled = cpu_core().compile_model(str(edge_graph()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: compiled(np.ascontiguousarray(image)[None])[0][0, ..., 0]


def test_it_is_small():
    assert sum(path.stat().st_size for path in EDGE_RUN.iterdir()) < 2_000_000
    assert work_from_graph(read_graph(edge_graph())).flop < 0.07e9


def test_the_graph_gives_pytorchs_probabilities(segment):
    golden = np.load(edge_graph().with_suffix(".golden.npz"))
    assert len(golden["images"]) == 6 and not golden["synthetic"]
    for image, expected in zip(golden["images"], golden["probabilities"], strict=True):
        assert np.abs(segment(image).astype(int) - expected).max() <= 1


def test_the_graph_was_made_from_the_weights_beside_it_and_they_by_the_bundled_model():
    facts = {p.key: p.value for p in onnx.load(edge_graph()).metadata_props}
    assert json.loads(facts["gms_rt.source"])["sha256"] == sha256_file(EDGE_RUN / "student.safetensors")
    about = read_toml(EDGE_RUN / "config.toml")
    assert about["teacher"]["sha256"] and about["data"]["folder"] == "phantoms"
    assert (EDGE_RUN / "classes.json").read_bytes() == (DEMO_RUN / "classes.json").read_bytes()


def test_unseen_phantoms_are_segmented(segment):
    drawn = [phantom(seed, 224, 224) for seed in UNSEEN_SEEDS]
    scores = [dice(segment(each.rgb) >= 128, each.mask) for each in drawn if each.lesions]
    assert np.mean(scores) > 0.9 and np.median(scores) > 0.94


def test_the_card_says_what_was_measured():
    told = read_toml(EDGE_RUN / "config.toml")
    parts = [told[f"held_out_{name}"] for name in ("student", "teacher", "difference")]
    assert told["held_out"]["phantoms"] == 200 and parts[0]["mean"] >= 0.93
    assert parts[1]["mean"] == read_toml(DEMO_RUN / "config.toml")["held_out"]["dice_mean"]
    expected = [one[key] for one in parts for key in ("mean", "low", "high", "median", "minimum") if key in one]
    card = (EDGE_RUN / "MODEL_CARD.md").read_text()
    expected.append(told["validation"]["dice_mean"])
    assert re.findall(r"\b\d\.\d{4}\b", card) == [f"{value:.4f}" for value in expected]
    assert "Not for clinical use" in card and f"{len(TRAINING_SEEDS):,} phantoms" in card


def test_the_run_gives_the_graphs_probabilities(segment):
    torch = pytest.importorskip("torch")
    from gms_rt.model.student_run import load_student

    image = phantom(UNSEEN_SEEDS[0], 224, 224).rgb
    expected = load_student(EDGE_RUN).segment(torch.from_numpy(image[None]))[0].numpy()
    assert np.abs(segment(image).astype(int) - expected).max() <= 1
