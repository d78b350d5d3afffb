"""`benchmarks/baselines.py`: models of the stated sizes, exported so that the bench reads them as they are."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from support.trees import ROOT

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
SCRIPT = ROOT / "benchmarks" / "baselines.py"


@pytest.fixture(scope="module")
def script():
    import sys

    specification = importlib.util.spec_from_file_location("baselines_script", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["baselines_script"] = module
    specification.loader.exec_module(module)
    return module


def test_the_small_model_has_the_stated_size_and_keeps_the_picture(script):
    model = script.DepthwiseUnet().eval()
    count = sum(p.numel() for p in model.parameters())
    assert 40_000 < count < 60_000
    assert model(torch.zeros(2, 3, 64, 96)).shape == (2, 1, 64, 96)


@pytest.fixture
def one_thread():
    """Small convolutions lose more by sharing than they win."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_training_learns_and_the_exported_graph_is_the_model(script, tmp_path):
    size = 32
    cases = script.phantom_cases(range(10, 26), size)
    torch.manual_seed(0)
    model = script.DepthwiseUnet()
    effort = script.train(model, cases, steps=30, seconds=3600)
    assert effort["steps"] == 30
    # An untrained model's even guess costs ln 2 in cross entropy, and a Dice loss near one.
    assert effort["loss"] < 1.5
    script.export(model, tmp_path / "small.onnx", size)
    pixels = torch.from_numpy(cases.images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        maps = np.stack([torch.sigmoid(model.eval()(image[None]))[0, 0].numpy() for image in pixels])
    # Rounded to steps of 1/255 as a peer's answer is: a short training leaves many pixels near one half.
    dice = script._dice(np.rint(maps * 255), cases.masks)
    assert script.peer_dice(tmp_path / "small.onnx", cases) == pytest.approx(dice, abs=0.02)


def test_a_folder_is_split_once_and_for_all(script, tmp_path):
    import cv2

    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), np.full((40, 40, 3), i * 10, np.uint8))
        cv2.imwrite(str(tmp_path / "masks" / f"{i}.png"), np.full((40, 40), 255 * (i % 2), np.uint8))
    (training, test), (again, _) = (script.folder_cases(tmp_path, 32, 2) for _ in range(2))
    assert (len(training.images), len(test.images)) == (4, 2)
    assert (training.images == again.images).all()
    for images, masks in ((training.images, training.masks), (test.images, test.masks)):
        # The mask still belongs to its picture: odd ones are full.
        assert [int(m.max()) // 255 for m in masks] == [int(i.max()) // 10 % 2 for i in images]
    with pytest.raises(SystemExit):
        script.folder_cases(tmp_path, 32, 6)
