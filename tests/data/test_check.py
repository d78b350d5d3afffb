"""What `gms-rt data check` and `prepare` find and write."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.phantom_folders import write_phantoms, write_picture

from gms_rt.cli.data import command
from gms_rt.data.check import check_dataset
from gms_rt.data.layouts import recognise
from gms_rt.data.prepare import prepare
from gms_rt.data.reading import read_case
from gms_rt.data.splits import split_dataset
from gms_rt.errors import CasesFailedError
from gms_rt.scan.reader import first_image


def lists(folder: Path, train: list[str], test: list[str]) -> Path:
    path = folder / "lists.json"
    path.write_text(json.dumps({"train": train, "test": test}))
    return path


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """Phantoms 0-7, of which some are wrong in one way each; 7 is a brighter copy of 0."""
    root = write_phantoms(tmp_path / "data", 8)
    (root / "masks" / "case_01.png").unlink()
    write_picture(root / "masks" / "stray.png", np.zeros((9, 9), np.uint8))
    (root / "images" / "case_02.png").write_bytes(b"\x89PNG broken")
    write_picture(root / "masks" / "case_03.png", np.full((10, 10), 255, np.uint8))
    write_picture(root / "masks" / "case_04.png", np.zeros((48, 64), np.uint8))
    copy = first_image(root / "images" / "case_00.png")
    write_picture(root / "images" / "case_07.png", np.clip(copy.astype(int) + 6, 0, 255).astype(np.uint8))
    return root


def test_every_kind_of_finding(spoiled: Path, tmp_path: Path) -> None:
    data = recognise(spoiled)
    names = [case.name for case in data.cases]
    split = split_dataset(data, file=lists(tmp_path, names[:-1], names[-1:]), validation=0)
    report = check_dataset(data, split)
    assert [Path(path).name for path in report.without_mask] == ["case_01.png"]
    assert [Path(path).name for path in report.without_image] == ["stray.png"]
    assert list(report.unreadable) == ["case_02"]
    assert report.mis_sized == {"case_03": "image 64x48, mask 10x10"}
    assert "case_04" in report.empty_masks
    assert report.problems == 4
    assert [(pair.first, pair.second, pair.crosses) for pair in report.alike] == [("case_00", "case_07", True)]
    assert report.parts == {"train": 6, "validation": 0, "test": 1}
    assert 0 < report.foreground["test"]["mean"] < 1
    for words in ("images without mask: 1", "1 across train and test", "case_00 (train) and case_07 (test)"):
        assert words in report.text()


def test_a_sound_data_set_has_no_problems(tmp_path: Path) -> None:
    data = recognise(write_phantoms(tmp_path / "data", 12))
    report = check_dataset(data, split_dataset(data))
    assert report.problems == 0
    assert report.alike == [], "different phantoms are not alike"


def test_identical_pictures_are_called_identical(tmp_path: Path) -> None:
    root = write_phantoms(tmp_path / "data", 3)
    for folder in ("images", "masks"):
        (root / folder / "copy.png").write_bytes((root / folder / "case_01.png").read_bytes())
    data = recognise(root)
    report = check_dataset(data, split_dataset(data))
    assert [(pair.first, pair.second, pair.identical) for pair in report.alike] == [("case_01", "copy", True)]


def test_check_as_a_command(spoiled: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["check", str(spoiled), "--json", "--out", str(tmp_path / "report.json")])
    assert isinstance(result.exception, CasesFailedError)
    report = json.loads(result.stdout)
    assert report["problems"] == 4 and report.pop("error")["exit_code"] == 5
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_prepare_keeps_pixels_and_names(spoiled: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain"
    result = CliRunner().invoke(command, ["prepare", str(spoiled), "--out", str(out), "--json"])
    assert isinstance(result.exception, CasesFailedError), "two cases cannot be read"
    assert set(json.loads(result.stdout)["failed"]) == {"case_02", "case_03"}
    plain = recognise(out)
    assert [case.name for case in plain.cases] == ["case_00", "case_04", "case_05", "case_06", "case_07"]
    for before, after in zip(recognise(spoiled).named(c.name for c in plain.cases), plain.cases, strict=True):
        for left, right in zip(read_case(before), read_case(after), strict=True):
            assert np.array_equal(left, right)
    split = split_dataset(plain)
    assert split.source == "split.json"
    assert sorted(split.part("all")) == [case.name for case in plain.cases]


def test_prepare_goes_on_and_resizes(tmp_path: Path) -> None:
    data = recognise(write_phantoms(tmp_path / "data", 4))
    split = split_dataset(data)
    assert prepare(data, split, tmp_path / "out").written == 4
    (tmp_path / "out" / "masks" / "case_02.png").unlink()
    again = prepare(data, split, tmp_path / "out")
    assert (again.written, again.kept) == (1, 3)
    prepare(data, split, tmp_path / "small", size=24)
    image, mask = read_case(recognise(tmp_path / "small").cases[0])
    assert image.shape == (24, 24, 3)
    assert set(np.unique(mask)) <= {0, 255}


def test_list_names_the_five_and_what_is_there(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "mine", 2)
    result = CliRunner().invoke(command, ["list", str(tmp_path), "--json"])
    values = json.loads(result.stdout)
    assert {entry["key"] for entry in values["known"]} == {"bus", "busi", "glas", "ham10000", "kvasir-instrument"}
    assert [(entry["name"], entry["cases"]) for entry in values["found"]] == [("mine", 2)]
