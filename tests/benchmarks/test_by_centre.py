"""HAM10000 by centre: no lesion is tested that was trained on, and known lesions are told apart."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.benchmark_scripts import benchmark_script

from gms_rt.evaluate.case_result import CaseResult, write_cases

# Name of the picture, its lesion, the part of the archive, and its list.
_PICTURES = (
    ("a1", "a", "vidir_modern", "train"),
    ("a2", "a", "vidir_modern", "test"),  # of a lesion that is trained on
    ("b1", "b", "vidir_molemax", "train"),
    ("c1", "c", "vienna_dias", "test"),
    ("d1", "d", "rosendahl", "train"),
    ("d2", "d", "rosendahl", "test"),
    ("e1", "e", "rosendahl", "train"),
    ("f1", "f", "rosendahl", "train"),
    ("g1", "g", "rosendahl", "test"),
    ("b2", "b", "rosendahl", "train"),  # the other centre's, of a lesion that is trained on
)


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, Path]:
    for part in ("images", "masks"):
        (tmp_path / "ham" / part).mkdir(parents=True)
        for name, *_ in _PICTURES:
            Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "ham" / part / f"{name}.png")
    with (tmp_path / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["lesion_id", "image_id", "dx", "dataset"])
        table.writerows([lesion, name, "nv", part] for name, lesion, part, _ in _PICTURES)
    lists = {kind: [name for name, _, _, each in _PICTURES if each == kind] for kind in ("train", "test")}
    (tmp_path / "splits.json").write_text(json.dumps(lists))
    return {"ham": tmp_path / "ham", "metadata": tmp_path / "metadata.csv", "splits": tmp_path / "splits.json"}


def test_no_lesion_is_tested_that_was_trained_on(archive: dict[str, Path], tmp_path: Path) -> None:
    assert _run("folders", archive["ham"], archive, tmp_path / "out") == 0
    lists = json.loads((tmp_path / "out" / "vienna.json").read_text())
    assert lists == {"train": ["a1", "b1"], "test": ["c1"]}
    for part in ("images", "masks"):
        assert _names(tmp_path / "out" / "vienna" / part) == ["a1", "b1", "c1"]
        assert _names(tmp_path / "out" / "queensland" / part) == ["d1", "d2", "e1", "f1", "g1"]
    counts = json.loads((tmp_path / "out" / "centres.json").read_text())
    assert counts == {"vienna": {"train": 2, "test": 1}, "queensland": {"test": 5}}


def test_pictures_from_away_are_shown_or_judged_never_both(archive: dict[str, Path], tmp_path: Path) -> None:
    assert _run("folders", archive["ham"], archive, tmp_path / "out") == 0
    lists = json.loads((tmp_path / "out" / "queensland.json").read_text())
    assert sorted(lists["train"] + lists["test"]) == ["d1", "d2", "e1", "f1", "g1"]
    assert lists["train"] and lists["test"]
    assert not {name[0] for name in lists["train"]} & {name[0] for name in lists["test"]}  # no lesion is in both
    assert _names(tmp_path / "out" / "queensland-pictures") == sorted(lists["train"])


def test_dice_of_known_and_of_new_lesions(archive: dict[str, Path], tmp_path: Path) -> None:
    tested = {"a2": 0.9, "c1": 0.5, "d2": 0.7}
    write_cases(tmp_path, [CaseResult(name, dice_224=value) for name, value in tested.items()])
    assert _run("lesions", tmp_path, archive, tmp_path / "lesions.json") == 0
    found = json.loads((tmp_path / "lesions.json").read_text())
    assert {name: (part["cases"], part["dice"]["mean"]) for name, part in found.items()} == {
        "all": (3, pytest.approx(0.7)),
        "lesion in train": (2, pytest.approx(0.8)),  # a2, and d2, whose first picture is in the train list
        "new lesion": (1, pytest.approx(0.5)),
    }


def _names(folder: Path) -> list[str]:
    assert all(path.is_symlink() and path.exists() for path in folder.iterdir())
    return sorted(path.stem for path in folder.iterdir())


def _run(what: str, source: Path, archive: dict[str, Path], out: Path) -> int:
    words = [what, str(source), "--metadata", str(archive["metadata"]), "--splits", str(archive["splits"])]
    code: int = benchmark_script("by_centre").main([*words, "--out", str(out)])
    return code
