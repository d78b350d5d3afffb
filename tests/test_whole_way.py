"""The whole way with nothing patched: a data set is trained on, the run becomes a graph, the graph an engine, and the
engine segments a 16-bit PNG and a DICOM file as the run itself does.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.dicom_files import dataset, save
from support.phantom_folders import write_pair, write_phantoms

from gms_rt.cli.main import run as gms_rt
from gms_rt.demo.phantoms import phantom
from gms_rt.precision.images import ImageSet
from gms_rt.scan.mask import levels_from_probability, mask_from_levels
from gms_rt.scan.reader import first_image
from gms_rt.scan.segmenter import Segmenter, prepare_image

SIDE = 32
HEIGHT, WIDTH = 90, 122  # of the scans: no multiple of the model's side


def deep_scan(seed: int) -> np.ndarray:
    """A phantom as a detector of 12 bits stores it: nearly black where its 16 bits are taken as they are."""
    return phantom(seed, HEIGHT, WIDTH).rgb.mean(axis=2).astype(np.uint16) * 16


def write_scans(folder: Path, seeds: range) -> Path:
    """16-bit PNG and DICOM by turns."""
    folder.mkdir()
    for seed in seeds:
        if seed % 2:
            save(dataset(deep_scan(seed)), folder / f"scan_{seed}.dcm")
        else:
            assert cv2.imwrite(str(folder / f"scan_{seed}.png"), deep_scan(seed))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that has learnt a little, and its graph."""
    root = tmp_path_factory.mktemp("way")
    settings = [f"size={SIDE}", "width=8", "groups=4", "multipliers=[1,2]", "batch=4", "latent_epochs=20", "epochs=8",
                "views=2", "threads=1"]  # fmt: skip
    chosen = [text for setting in settings for text in ("--set", setting)]
    data, tokenizer = write_phantoms(root / "data", 16), write_pair(root / "tokenizer")
    assert gms_rt(["train", str(data), "--tokenizer", tokenizer, *chosen, "--out", str(root / "run")]) == 0
    assert gms_rt(["export", str(root / "run"), "--out", str(root / "way.onnx")]) == 0
    return root / "run", root / "way.onnx"


def test_run_graph_engine_and_masks_agree(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from gms_rt.train.predict import predictor

    run_folder, graph = trained
    engine, out = tmp_path / "engine", tmp_path / "out"
    scans = write_scans(tmp_path / "scans", range(100, 104))
    assert gms_rt(["build", str(graph), "--precision", "fp32", "--target", "cpu", "--out", str(engine)]) == 0
    assert gms_rt(["infer", str(scans), "--engine", str(engine), "--probability", "--out", str(out)]) == 0
    predict, side = predictor(run_folder)
    run = Segmenter(predict, side, side)
    found = 0
    for scan in sorted(scans.iterdir()):
        image = first_image(scan)
        expected = run.probability(image)
        levels = cv2.imread(str(out / "probabilities" / f"{scan.stem}.png"), cv2.IMREAD_UNCHANGED)
        mask = cv2.imread(str(out / "masks" / f"{scan.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == levels.shape == (HEIGHT, WIDTH)
        assert np.abs(levels.astype(int) - levels_from_probability(expected)).max() <= 2
        sure = np.abs(expected - 0.5) > 2 / 255
        assert sure.mean() > 0.9
        assert np.array_equal(mask[sure], run(image)[sure])
        found += 0 < np.count_nonzero(mask) < mask.size
        assert np.array_equal(mask[sure], mask_from_levels(levels)[sure])
    assert found == 4, "masks that are all or nothing compare nothing"


def test_int8_is_calibrated_and_gated_on_deep_scans_as_infer_sees_them(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    engine = tmp_path / "engine"
    calibration = write_scans(tmp_path / "calibration", range(200, 206))
    gate = write_scans(tmp_path / "gate", range(300, 304))
    asked = ["--precision", "int8", "--calib", str(calibration), "--gate-data", str(gate), "--gate-mean", "0.5",
             "--gate-min", "0", "--calibrator", "minmax", "--target", "cpu", "--out", str(engine)]  # fmt: skip
    assert gms_rt(["build", str(trained[1]), *asked]) == 0
    for folder, record in (
        (calibration, json.loads((engine / "precision.json").read_text())["calibration"]),
        (gate, json.loads((engine / "engine.json").read_text())["gate"]["data"]),
    ):
        seen = [prepare_image(first_image(scan), SIDE, SIDE) for scan in sorted(folder.iterdir())]
        assert all(int(image.max()) > 200 for image in seen), "12 bits are not taken for nearly black"
        assert record == ImageSet(np.stack(seen), folder.name).record()
