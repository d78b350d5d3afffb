"""Whose pictures a graph's reference is of: those named, the run's own validation part, else drawn ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.phantom_folders import write_phantoms
from support.small_gms import small_gms

from gms_rt.cli.main import run
from gms_rt.data.layouts import recognise
from gms_rt.data.reference_pictures import reference_from_place, reference_from_run
from gms_rt.data.splits import Split, write_split
from gms_rt.engine.golden import Golden, read_golden
from gms_rt.errors import UsageError
from gms_rt.model.run import load_run, save_run
from gms_rt.precision.images import read_images

diffusers = pytest.importorskip("diffusers")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run with random weights that says on which data it was trained."""
    data = write_phantoms(tmp_path / "data", 30)
    names = [case.name for case in recognise(data).cases]
    gms = small_gms("taesd")
    gms.tokenizer.autoencoder.save_pretrained(tmp_path / "run" / "tokenizer")
    gms.tokenizer.spec = gms.tokenizer.spec.__class__(**{**vars(gms.tokenizer.spec), "source": "tokenizer"})
    save_run(tmp_path / "run", gms, {"training": {"size": 32}, "data": {"name": "data", "folder": str(data)}})
    write_split(
        tmp_path / "run/split.json", Split(tuple(names[:20]), tuple(names[20:27]), tuple(names[27:]), "by hand")
    )
    return tmp_path / "run"


def exported(run_folder: Path, *more: object) -> Golden:
    graph = run_folder.parent / "g.onnx"
    assert run(["export", str(run_folder), "--out", str(graph), *map(str, more)]) == 0
    return read_golden(graph.with_suffix(".golden.npz"))


def test_a_runs_own_validation_pictures_are_stored_with_pytorchs_masks(trained, capsys):
    golden = exported(trained)
    data = recognise(trained.parent / "data")
    assert golden.names == tuple(case.name for case in data.cases[20:27])
    assert (golden.synthetic, golden.source) == (False, "7 pictures of the validation part of data")
    assert "reference: 7 pictures of the validation part of data" in capsys.readouterr().out
    assert np.array_equal(golden.probabilities, load_run(trained).segment(torch.from_numpy(golden.images)).numpy())
    assert golden.truth is not None and np.count_nonzero(golden.truth) > 0 and set(np.unique(golden.truth)) <= {0, 255}
    # The same pixels as calibration and gate see, so that a picture that is named twice is known by its content.
    calibrated = read_images(trained.parent / "data/images", 32, 32)
    assert all(any(np.array_equal(image, each) for each in calibrated.images) for image in golden.images)


@pytest.mark.slow
def test_named_pictures_take_their_place(trained, tmp_path, capsys):
    folder = exported(trained, "--reference", tmp_path / "data")
    assert len(folder.images) == 24 and folder.truth is not None and not folder.synthetic, "evenly chosen of 30"
    listed = tmp_path / "some.txt"
    listed.write_text("data/images/case_03.png\ndata/images/case_01.png\n")
    some = exported(trained, "--reference", listed)
    assert (some.names, some.truth, some.synthetic) == (("case_03.png", "case_01.png"), None, False)
    plain = shutil.copytree(tmp_path / "data/images", tmp_path / "plain")
    assert reference_from_place(plain, 32, 32).truth is None, "pictures without masks serve as well"
    capsys.readouterr()
    assert exported(trained, "--reference", "phantoms").synthetic, "no picture of a patient needs to be stored"
    said = capsys.readouterr().out
    assert "reference: 6 phantoms (as asked); no certificate rests on drawn pictures" in said


def test_where_the_runs_pictures_are_not_there_phantoms_say_why(trained, tmp_path):
    def why() -> str:
        pictures = reference_from_run(trained, 32, 32)
        assert pictures.synthetic
        return pictures.source

    split = (trained / "split.json").read_text()
    (trained / "split.json").write_text(json.dumps({"train": [], "test": [], "validation": ["case_99"]}))
    assert "validation picture case_99 is not in its data" in why()
    (trained / "split.json").write_text(json.dumps({"train": [], "test": []}))
    assert "the run has no validation pictures" in why()
    (trained / "split.json").write_text(split)
    next((tmp_path / "data/images").glob("case_2[0-6].png")).write_bytes(b"not a picture")
    assert "the run's data cannot be read" in why()
    shutil.rmtree(tmp_path / "data")
    assert "the run's data cannot be read" in why()
    (trained / "config.toml").write_text("[model]\n")
    assert "the run does not say what it was trained on" in why()


def test_a_place_without_pictures_is_refused(trained, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no images"):
        reference_from_place(tmp_path / "empty", 32, 32)
    assert run(["export", str(trained), "--reference", "absent"]) == 2
    assert "absent: does not exist" in capsys.readouterr().err
