"""The bundled demonstration model and samples: as good as the card says, small, and made by this project's code."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import onnx
import pydicom
import pytest

from gms_rt.artifacts import sha256_file
from gms_rt.config import read_toml
from gms_rt.demo.bundled import DEMO_RUN, demo_graph, samples
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import UNSEEN_SEEDS
from gms_rt.metrics import dice
from gms_rt.runtime.signal_stack import cpu_core
from gms_rt.scan.reader import first_image

SAMPLES = samples()


@pytest.fixture(scope="module")
def segment():
    """The bundled graph on the CPU in FP32: one uint8 picture of network size in, its probabilities out."""
    compiled = cpu_core().compile_model(str(demo_graph()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: compiled(np.ascontiguousarray(image)[None])[0][0, ..., 0]


def test_it_is_small():
    total = sum(f.stat().st_size for f in DEMO_RUN.rglob("*") if f.suffix in (".safetensors", ".onnx"))
    assert total <= 8 * 2**20
    assert sum(sample.scan.stat().st_size for sample in SAMPLES) < 3 * 2**20


def test_the_graph_gives_pytorchs_probabilities(segment):
    golden = np.load(demo_graph().with_suffix(".golden.npz"))
    assert len(golden["images"]) == 8
    for image, expected, truth, name in zip(
        *(golden[k] for k in ("images", "probabilities", "truth", "names")), strict=True
    ):
        drawn = phantom(int(str(name).removeprefix("phantom-")), 224, 224)
        assert np.array_equal(drawn.mask, truth)
        assert np.abs(segment(image).astype(int) - expected).max() <= 1


def test_the_graph_was_made_from_the_weights_beside_it():
    model = onnx.load(demo_graph())
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    facts = {p.key: p.value for p in model.metadata_props}
    assert json.loads(facts["gms_rt.source"])["sha256"] == sha256_file(DEMO_RUN / "lmm.safetensors")
    tokenizer = json.loads((DEMO_RUN / "tokenizer.json").read_text())
    assert json.loads(facts["gms_rt.tokenizer"])["sha256"] == tokenizer["sha256"]
    assert tokenizer["source"] == "tokenizer"


def test_unseen_phantoms_are_segmented(segment):
    scores = []
    for seed in UNSEEN_SEEDS:
        drawn = phantom(seed, 224, 224)
        if drawn.lesions:
            scores.append(dice(segment(drawn.rgb) >= 128, drawn.mask))
    assert np.mean(scores) > 0.9 and np.median(scores) > 0.94


def test_the_card_says_what_was_measured():
    measured = read_toml(DEMO_RUN / "config.toml")["held_out"]
    assert measured["phantoms"] == 200
    assert measured["dice_mean"] >= 0.93 and measured["round_trip_mean"] >= 0.985
    card = (DEMO_RUN / "MODEL_CARD.md").read_text()
    numbers = [float(n) for n in re.findall(r"\b\d\.\d{4}\b", card)]
    assert numbers == [
        measured[k] for k in ("dice_mean", "dice_median", "dice_minimum", "round_trip_mean", "round_trip_minimum")
    ]
    assert "Not for clinical use" in card


def test_the_run_gives_the_graphs_probabilities(segment):
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from gms_rt.model.run import load_run

    image = phantom(UNSEEN_SEEDS[0], 224, 224).rgb
    expected = load_run(DEMO_RUN).segment(torch.from_numpy(image[None]))[0].numpy()
    assert np.abs(segment(image).astype(int) - expected).max() <= 1


def stored_pixels(scan):
    """The pixels of a scan as they are stored."""
    return pydicom.dcmread(scan).pixel_array if scan.suffix == ".dcm" else cv2.imread(str(scan), cv2.IMREAD_UNCHANGED)


def test_samples_cover_what_archives_hold():
    assert len(SAMPLES) >= 12
    assert {sample.scan.suffix for sample in SAMPLES} >= {".png", ".jpg", ".tif", ".bmp", ".dcm"}
    sizes = []
    for sample in SAMPLES:
        truth = cv2.imread(str(sample.truth), cv2.IMREAD_UNCHANGED)
        image = stored_pixels(sample.scan)
        assert image.shape[:2] == truth.shape
        assert set(np.unique(truth)) == {0, 255}
        sizes.append(truth.shape)
        if "sixteen" in sample.scan.stem:
            assert image.dtype == np.uint16 and image.max() > 255
    assert min(max(size) for size in sizes) == 200 and max(max(size) for size in sizes) == 2000
    assert any(h > w for h, w in sizes) and any(w > h for h, w in sizes)


def test_dicom_samples_are_ultrasound_frames_of_nobody():
    frames = [pydicom.dcmread(sample.scan) for sample in SAMPLES if sample.scan.suffix == ".dcm"]
    assert {f.PhotometricInterpretation for f in frames} == {"MONOCHROME2", "RGB"}
    for frame in frames:
        assert frame.file_meta.MediaStorageSOPClassUID == pydicom.uid.UltrasoundImageStorage == frame.SOPClassUID
        assert (frame.PatientName, frame.PatientID) == ("PHANTOM", "PHANTOM")
        region = frame.SequenceOfUltrasoundRegions[0]
        assert float(frame.PixelSpacing[0]) == pytest.approx(10 * region.PhysicalDeltaY)
        assert region.RegionLocationMaxX1 == frame.Columns - 1


def test_most_samples_are_segmented_well(segment):
    scores = []
    for sample in SAMPLES:
        truth = first_image(sample.truth)[..., 0]
        probability = segment(cv2.resize(first_image(sample.scan), (224, 224), interpolation=cv2.INTER_AREA))
        scores.append(dice(cv2.resize(probability, truth.shape[::-1]) >= 128, truth))
    assert np.median(scores) > 0.9
