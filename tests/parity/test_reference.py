"""References from any data: scans are read as `gms-rt infer` reads them, whatever their format."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.bench_runner import SIDE, fused_graph, golden_images, native_engine, native_missing
from support.dicom_files import dataset, save

from gms_rt.cli.main import run
from gms_rt.engine.select import load
from gms_rt.errors import UsageError
from gms_rt.parity.reference import ReferenceData, golden_from_data, scans_in

pytest.importorskip("onnxruntime")
native = pytest.mark.skipif(bool(native_missing()), reason=native_missing() or "-")


def deep_scans(folder: Path) -> Path:
    """Dark 16-bit scans of discs: DICOM with and without a suffix, and PNG."""
    images, _ = golden_images(3, side=48)
    deep = images[..., 0].astype(np.uint16) * 8  # of 65,535: read as 8 bits they would be black
    save(dataset(deep[0], "CT", Modality="CT"), folder / "a.dcm")
    save(dataset(deep[1], "US"), folder / "IM0002")
    cv2.imwrite(str(folder / "c.png"), deep[2])
    (folder / "notes.txt").write_text("not a scan")
    return folder


@native
def test_parity_certifies_on_dicom_and_16_bit_scans(tmp_path, capsys):
    folder = native_engine(tmp_path / "e")
    original = fused_graph(tmp_path / "original.onnx")
    scans = deep_scans(tmp_path / "scans")
    assert run(["parity", str(folder), "--data", str(scans), "--reference", str(original)]) == 0
    certificate = json.loads((folder / "parity-scans.json").read_text())
    assert [case["name"] for case in certificate["cases"]] == ["IM0002", "a", "c"]
    assert all(case["foreground"] > 0 for case in certificate["cases"])


@native
def test_the_pixels_are_those_that_infer_segments(tmp_path, capsys):
    folder = native_engine(tmp_path / "e")
    scans = deep_scans(tmp_path / "scans")
    golden = golden_from_data(ReferenceData(scans, fused_graph(tmp_path / "original.onnx")), SIDE, SIDE)
    assert golden.images.max() > 200
    order = ["infer", str(scans), "--engine", str(folder), "--out", str(tmp_path / "out"), "--no-dicom-seg"]
    assert run(order) == 0
    with load(folder) as engine:
        produced = engine.runner.infer(golden.images)
        for name, levels in zip(golden.names, produced, strict=True):
            mask = cv2.imread(str(tmp_path / "out" / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
            assert (mask == np.where(engine.restore(levels, mask.shape) >= 0.5, 255, 0)).all(), name


def test_folders_without_scans_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="no scans"):
        scans_in(tmp_path / "empty")
    with pytest.raises(UsageError, match="not a folder"):
        scans_in(tmp_path / "absent")


def test_the_index_file_of_a_medium_is_not_a_scan(tmp_path):
    scans = deep_scans(tmp_path / "scans")
    (scans / "DICOMDIR").write_bytes((scans / "IM0002").read_bytes())
    assert list(scans_in(scans)) == ["IM0002", "a", "c"]
