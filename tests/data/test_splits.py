"""Splits by name: lists, seeds, validation from train, and pickles that want more than names."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.phantom_folders import write_phantoms

from gms_rt.data.layouts import Dataset, recognise
from gms_rt.data.names_pickle import read_plain_pickle
from gms_rt.data.splits import read_lists, split_dataset, write_split
from gms_rt.errors import GmsError, InputError, UsageError

NAMES = [f"case_{n:02d}" for n in range(10)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return recognise(write_phantoms(tmp_path_factory.mktemp("data"), 10))


def test_a_drawn_split_is_whole_and_repeats(data: Dataset) -> None:
    split = split_dataset(data, seed=3, validation=0.25)
    assert sorted(split.train + split.validation + split.test) == NAMES
    assert (len(split.train), len(split.validation), len(split.test)) == (6, 2, 2)
    assert split == split_dataset(data, seed=3, validation=0.25)
    assert split != split_dataset(data, seed=4, validation=0.25)


def test_lists_of_names_win_and_validation_comes_from_train(data: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_text(json.dumps({"source": "x", "train": NAMES[:8], "test": ["case_08.png", "case_09"]}))
    split = split_dataset(data, file=path)
    assert split.test == ("case_08", "case_09")
    assert sorted(split.train + split.validation) == NAMES[:8]
    assert len(split.validation) == 1
    assert split_dataset(data, file=path, seed=0).validation == split.validation


def test_a_written_split_reads_back(data: Dataset, tmp_path: Path) -> None:
    split = split_dataset(data, seed=1)
    write_split(tmp_path / "split.json", split)
    lists = read_lists(tmp_path / "split.json")
    assert (lists["train"], lists["validation"], lists["test"]) == (split.train, split.validation, split.test)
    again = split_dataset(data, file=tmp_path / "split.json", seed=99)
    assert (again.train, again.validation) == (split.train, split.validation)


@pytest.mark.parametrize("ending", ["pkl", "pickle"])
def test_the_official_pickle(data: Dataset, tmp_path: Path, ending: str) -> None:
    lists = {"train": {"name_list": NAMES[:7]}, "test": {"name_list": NAMES[7:]}}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / f"names.{ending}").write_bytes(pickle.dumps(lists, protocol))
        assert read_lists(tmp_path / f"names.{ending}")["test"] == tuple(NAMES[7:])


def test_the_official_layout_finds_its_pickle(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 4)
    lists = {"train": {"name_list": NAMES[:3]}, "test": {"name_list": NAMES[3:4]}}
    (tmp_path / "busi_train_test_names.pkl").write_bytes(pickle.dumps(lists))
    split = split_dataset(recognise(tmp_path))
    assert split.test == ("case_03",)
    assert split.source.startswith("busi_train_test_names.pkl")


class Command:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {MARK}",)


MARK = ""


def hostile(tmp_path: Path) -> list[bytes]:
    global MARK
    MARK = str(tmp_path / "ran")
    return [
        pickle.dumps({"train": [Command()], "test": []}),
        b"cos\nsystem\n(S'touch " + MARK.encode() + b"'\ntR.",
        b"cbuiltins\neval\n(S'open(\"" + MARK.encode() + b'","w")\'\ntR.',
        b"c__builtin__\ngetattr\n(cbuiltins\ndict\nS'__class__'\ntR.",
        b"(i__main__\nCommand\n.",
        b"Pabc\n.",
        b"(" * 100_000 + b".",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"",
        b"not a pickle at all",
    ]


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    for number, data in enumerate(hostile(tmp_path)):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(data)
        with pytest.raises(GmsError):
            read_lists(path)
        assert not (tmp_path / "ran").exists()


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_random_bytes_give_plain_values_or_one_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "random.pkl"
    path.write_bytes(data)
    try:
        value = read_plain_pickle(path)
    except InputError:
        return
    assert isinstance(
        value, (str, bytes, bytearray, int, float, bool, type(None), list, tuple, dict, set, frozenset, type)
    )


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["case_00", "absent"], "test": ["case_01"]}, "1 of 2 listed cases are not in"),
        ({"train": ["case_00", "case_01"], "test": ["case_01"]}, "listed twice: case_01"),
        ({"train": ["case_00", "case_00"], "test": ["case_01"]}, "listed twice"),
        ({"train": ["case_00"]}, "lacks a 'test' list"),
        ({"train": "case_00", "test": []}, "not a list of names"),
        ({"train": [1], "test": []}, "not a list of names"),
        ({"train": [], "test": ["case_01"]}, "no cases are left for training"),
        ({"test": ["case_01"]}, "no cases are left for training"),
    ],
)
def test_lists_that_cannot_be(data: Dataset, tmp_path: Path, lists: dict[str, object], message: str) -> None:
    path = tmp_path / "lists.json"
    path.write_text(json.dumps(lists))
    with pytest.raises(UsageError, match=message):
        split_dataset(data, file=path)
