"""`benchmarks/time_to_dice.py`: what it counts, when it stops, and that it goes on where it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.benchmark_scripts import benchmark_script
from support.phantom_folders import write_pair, write_phantoms

pytest.importorskip("torch")
SMALL = "size=32 width=8 groups=4 multipliers=[1,2] batch=4 threads=1 save_seconds=0"
FAST, PAPER = "fast,latent_epochs=4,epochs=0,views=2", "paper,epochs=3"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return benchmark_script("time_to_dice")


def arguments(tmp_path: Path, targets: str) -> list[str]:
    data, tokenizer = write_phantoms(tmp_path / "data", 12), write_pair(tmp_path / "pair")
    given = [str(data), "--tokenizer", tokenizer, "--recipe", FAST, "--recipe", PAPER, "--targets", targets]
    given += [part for setting in SMALL.split() for part in ("--set", setting)]
    return ["time_to_dice.py", *given, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out.json")]


def test_it_trains_to_the_end_where_a_target_is_out_of_reach(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", arguments(tmp_path, "0,1.1"))
    assert script.main() == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert [len(found["recipes"][spec]["curve"]) for spec in (FAST, PAPER)] == [4, 3]
    for spec in (FAST, PAPER):
        row = found["recipes"][spec]
        seconds = [second for second, _ in row["curve"]]
        assert seconds == sorted(seconds)
        assert row["minutes_to"] == {"0": pytest.approx(seconds[0] / 60, abs=1e-3), "1.1": None}
        assert (row["encoding_seconds"] > 0) == (spec == FAST), "only cached views are encoded first"
        assert seconds[0] >= row["encoding_seconds"], "and that counts"
    assert found["ratios"]["1.1"] == {f"{PAPER} / {FAST}": None}
    encoding = (tmp_path / "work").glob("*/encoding.json")
    before = [file.read_text() for file in encoding]
    script.main()
    assert [file.read_text() for file in (tmp_path / "work").glob("*/encoding.json")] == before
    assert json.loads((tmp_path / "out.json").read_text())["recipes"] == found["recipes"], "nothing is trained twice"


def test_it_stops_when_every_target_is_reached(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "LOOK_SECONDS", 0)
    monkeypatch.setattr(sys, "argv", arguments(tmp_path, "0"))
    script.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert [len(found["recipes"][spec]["curve"]) for spec in (FAST, PAPER)] == [1, 1]

    def refuse(*_: object) -> None:
        raise AssertionError("what is done is not trained again")

    monkeypatch.setattr(script, "train", refuse)
    assert script.main() == 0


def test_ratios_compare_what_both_reached(script: ModuleType) -> None:
    rows = {"a": {"minutes_to": {"0.5": 2.0, "0.6": None}}, "b": {"minutes_to": {"0.5": 5.0, "0.6": 9.0}}}
    assert script.ratios(rows) == {"0.5": {"b / a": 2.5}, "0.6": {"b / a": None}}
