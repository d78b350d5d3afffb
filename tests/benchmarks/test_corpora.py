"""The corpora script: damage repeats, orders are told apart from garbage, and a folder goes through to a table."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from support.dicom_files import dataset, save
from support.trees import ROOT

FOLDER = ROOT / "benchmarks" / "corpora"


def script(name: str) -> ModuleType:
    """One of the script's files as a module."""
    loader = SourceFileLoader(f"corpora_{Path(name).stem}", str(FOLDER / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    before = list(sys.path)
    try:
        loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


@pytest.mark.parametrize("kind", ["truncated", "flipped", "zeroed"])
def test_damage_is_real_and_repeats(kind: str) -> None:
    damaged = script("corpus.py").damaged
    data = bytes(range(1, 256)) * 40
    spoilt = damaged(data, kind, "a.png")
    assert spoilt == damaged(data, kind, "a.png") != data
    assert spoilt != damaged(data, kind, "b.png")
    if kind == "truncated":
        assert data.startswith(spoilt) and len(spoilt) >= len(data) // 10
    else:
        assert len(spoilt) == len(data)
    if kind == "flipped":
        apart = sum(bin(a ^ b).count("1") for a, b in zip(data, spoilt, strict=True))
        assert 1 <= apart <= 8
    if kind == "zeroed":
        assert spoilt.count(0) == len(data) // 4


def test_levels_in_another_order_than_the_stored_values_are_wrong() -> None:
    judge = script("judge.py")
    stored = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.float64)
    levels = np.clip(stored / 16 - 20, 0, 255).astype(np.uint8)
    assert judge.difference(levels, stored, "ordered") == ""
    assert judge.difference(255 - levels, stored, "ordered") == "", "MONOCHROME1"
    assert "do not follow" in judge.difference(np.roll(levels, 1, axis=1), stored, "ordered")
    assert "is 40x50, not 50x40" in judge.difference(levels.T, stored, "ordered")
    stored[0, 0] = np.nan
    assert judge.difference(levels, stored, "ordered") == ""


def test_equal_means_equal_and_near_means_near() -> None:
    judge = script("judge.py")
    image = np.random.default_rng(1).integers(2, 250, (20, 30, 3), np.uint8)
    assert judge.difference(image, image, "equal") == ""
    assert judge.difference(image[..., 0], image[..., :1].repeat(3, axis=2), "equal") == ""
    assert "differ by up to 2" in judge.difference(image + np.uint8(2), image, "equal")
    assert judge.difference(image + np.uint8(2), image, "near") == ""
    assert "on average" in judge.difference(image[::-1], image, "near")


@pytest.mark.slow
def test_a_folder_goes_through_to_a_table(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    picture = np.random.default_rng(2).integers(0, 255, (60, 70, 3), np.uint8)
    assert cv2.imwrite(str(files / "good.png"), picture)
    save(dataset(np.arange(60 * 70, dtype=np.uint16).reshape(60, 70)), files / "good.dcm")
    (files / "bad.png").write_bytes(b"not a picture")
    (files / "notes.txt").write_text("nothing")
    command = [sys.executable, str(FOLDER / "run"), "--folder", str(files), "--results", str(tmp_path / "results"),
               "--work", str(tmp_path / "work")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    groups = json.loads((tmp_path / "results" / "counts.json").read_text())["groups"]
    whole = groups["files, as they are"]
    assert whole["tried"] == 3 and whole["compared"] == 2 and whole["wrong"] == {}
    assert whole["outcomes"].pop("failed") == 1
    assert sum(whole["outcomes"].values()) == 2
    assert set(groups) == {f"files, {kind}" for kind in ("as they are", "truncated", "flipped", "zeroed")}
    table = (tmp_path / "results" / "README.md").read_text()
    assert "| files, as they are | 3 |" in table and "good" not in table
