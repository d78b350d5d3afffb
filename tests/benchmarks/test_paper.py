"""`benchmarks/paper/run`: whole on a tiny folder, each job once, killed and started again; what its pages say."""

from __future__ import annotations

import csv
import dataclasses
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.phantom_folders import write_pair, write_phantoms
from support.trees import ROOT

from gms_rt.errors import UsageError
from gms_rt.model.comparators.registry import COMPARATORS

pytest.importorskip("torch")
SMALL = ("size=64", "width=8", "groups=4", "multipliers=[1,2]", "batch=4", "threads=1", "save_seconds=0", "epochs=1")
LACKING = "medsegdiff-v2"  # stands for a system of the tables that has no model


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script as a module; the package beside it is found as `paper`. It knows of no MedSegDiff-V2."""
    path = str(ROOT / "benchmarks" / "paper" / "run")
    before = list(sys.path)
    loader = importlib.machinery.SourceFileLoader("paper_run_script", path)
    specification = importlib.util.spec_from_loader("paper_run_script", loader)
    assert specification is not None
    sys.path.insert(0, "")  # where a script's folder stands
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    sys.path[:] = [str(ROOT / "benchmarks"), *before]
    fewer = tuple(facts for facts in COMPARATORS if facts.name != LACKING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paper.systems.COMPARATORS", fewer)
        yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the paper's data sets, and a tokenizer."""
    root = tmp_path_factory.mktemp("paper")
    write_phantoms(root / "data" / "busi", 10)
    write_phantoms(root / "data" / "bus", 5, first=20)
    names = [f"case_{number:02d}" for number in range(10)]
    (root / "data" / "splits").mkdir()
    (root / "data" / "splits" / "busi.json").write_text(json.dumps({"train": names[:7], "test": names[7:]}))
    write_pair(root / "pair")
    return root


def arguments(folder: Path, *more: str) -> list[str]:
    tokenizer = f"onnx:{folder / 'pair'}"
    given = [
        "--data",
        folder / "data",
        "--tokenizer",
        tokenizer,
        "--tokenizers",
        tokenizer,
        "--systems",
        "gms",
        "ege-unet",
        LACKING,
    ]
    given += ["--minutes", "0", "--work", folder / "work", "--out", folder / "out"]
    return [*map(str, given), *(word for setting in SMALL for word in ("--set", setting)), *more]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small convolutions lose more by sharing than they win."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made(script: ModuleType, folder: Path, one_thread: None) -> Path:
    """Everything but the ablation of tokenizers, done once."""
    tables = [word for name in ("1", "2", "3", "4", "figures", "reconstruction") for word in ("--table", name)]
    assert script.main(arguments(folder, *tables)) == 0
    return folder / "out"


def test_a_plan_says_the_hours_and_does_nothing(
    script: ModuleType, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(
        folder, "--plan", "--table", "1", "--table", "4", "--minutes", "30", "--work", str(tmp_path / "w")
    )
    assert script.main(given) == 0
    said = capsys.readouterr().out
    assert "30.0 min  train gms on busi  (by the clock)" in said
    assert "90.0 min  ablate the loss on busi  (by the clock)" in said
    assert "not possible: glas: not in" in said
    assert "not possible: MedSegDiff-V2: no such model in this program" in said
    assert said.splitlines()[-1].endswith("hours on this machine")
    assert not (tmp_path / "w").exists()


@pytest.mark.usefixtures("script")
def test_a_model_whose_package_is_missing_says_so_and_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    from paper.jobs import can_train
    from paper.systems import missing_model

    assert can_train("unet")
    assert missing_model("gms-x") == "no such model in this program"
    absent = tuple(dataclasses.replace(facts, package="no_such_package") for facts in COMPARATORS)
    monkeypatch.setattr("paper.systems.COMPARATORS", absent)
    assert not can_train("unet")
    assert missing_model("unet") == "not installed: pip install 'gms-rt[comparators]'"


def test_a_plan_by_epochs_rests_on_the_rate_that_was_measured(script: ModuleType, folder: Path, tmp_path: Path) -> None:
    from paper.jobs import training
    from paper.order import Order, folders_below
    from paper.plan import estimates, plan_text

    data = folders_below(folder / "data")
    order = Order(data, ("1",), ("gms",), tmp_path, tmp_path, minutes=0)
    job = training("gms", data["busi"], order)
    text = plan_text(estimates([job], order), [])
    assert "1000 epochs of 6 images, not known before the first epoch" in text
    assert "at least 0.0 hours" in text
    (tmp_path / "train" / "gms" / "busi").mkdir(parents=True)
    rates = "epoch,images_per_second\n1,0.4\n2,0.5\n3,0.6\n"
    (tmp_path / "train" / "gms" / "busi" / "metrics.csv").write_text(rates)
    (found,) = estimates([job], order)
    assert found.minutes == pytest.approx(6 * 1000 / 0.5 / 60)


def test_published_rows_stand_beside_what_was_run(made: Path) -> None:
    tables = json.loads((made / "tables.json").read_text())["tables"]
    rows = [(row["labels"][1], row["source"]) for row in tables["1"]["rows"]]
    assert len(rows) == 24
    assert rows[:2] == [("UNet", "published"), ("UNet", "run here")]
    by = {(row["labels"][1], row["source"]): row["cells"] for row in tables["1"]["rows"]}
    assert by["GMS", "published"][1]["dsc"] == 81.43
    bus, busi = by["GMS", "run here"]
    assert 0 <= busi["low"] <= busi["dsc"] <= busi["high"] <= 100
    assert (bus["cases"], busi["cases"]) == (1, 3)
    assert busi["minutes"] is not None
    assert by["EGE-UNet", "run here"][1]["cases"] == 3
    assert by["MedSegDiff-V2", "run here"][0]["why"] == "no such model in this program"
    assert {cell["why"] for row in tables["2"]["rows"] if row["source"] == "run here" for cell in row["cells"]} == {
        f"no data ({name} not in the folder)" for name in ("glas", "ham10000", "kvasir-instrument")
    }
    text = (made / "tables.md").read_text()
    assert "| Generative | GMS | 1.5 | published | 88.42 | 80.56 | 6.79 | 81.43 | 72.58 | 19.50 |" in text
    table = list(csv.reader((made / "table-3.csv").read_text().splitlines()))
    assert table[0][:4] == ["Model", "source", "BUSI to BUS (dataset B) dsc", "BUSI to BUS (dataset B) low"]
    assert len(table) == 1 + 2 * 14


def test_the_other_tables_are_of_the_verbs_own_results(made: Path, folder: Path) -> None:
    tables = json.loads((made / "tables.json").read_text())["tables"]
    own = json.loads((folder / "work" / "ablate-loss" / "busi" / "ablation.json").read_text())["cells"]
    rows = [row for row in tables["4"]["rows"] if row["source"] == "run here"]
    assert [row["cells"][0]["dsc"] for row in rows] == [
        round(100 * own[loss]["at_224"]["dice"]["mean"], 4) for loss in ("latent", "dice", "both")
    ]
    crossed = json.loads((folder / "work" / "cross" / "gms" / "bus-busi" / "matrix.json").read_text())["bus to busi"]
    last = next(row for row in tables["3"]["rows"] if row["labels"] == ["GMS"] and row["source"] == "run here")
    assert last["cells"][1]["dsc"] == round(100 * crossed["at_224"]["dice"]["mean"], 4)
    assert last["cells"][1]["cases"] == 10  # every case of the other folder
    found = {row["data"]: row for row in tables["reconstruction"]["rows"]}
    assert found["BUSI"]["mask_dsc"] > 80
    assert found["GlaS"]["why"].startswith("no data")


def told_parameters(made: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((made / "parameters.json").read_text())
    return told


def test_the_figures_are_drawn(made: Path) -> None:
    import cv2

    svg = (made / "parameters.svg").read_text()
    assert svg.count("<rect") == 13  # twelve bars and the ground
    assert "0.05 M (here 0.05" in svg
    assert told_parameters(made)["unet"] == {"published_millions": 14.0, "here": None}
    assert 45_000 < told_parameters(made)["ege-unet"]["here"] < 60_000
    told = json.loads((made / "figure-2.json").read_text())
    assert [row["data"] for row in told["rows"]] == ["bus", "busi"]
    sheet = cv2.imread(str(made / "figure-2.png"))[..., ::-1]
    assert sheet.shape == (28 + 2 * 230, 120 + 3 * 230, 3)
    assert ((sheet[..., 1] > 200) & (sheet[..., 0] < 80) & (sheet[..., 2] < 80)).any()  # the truth, green


def test_the_same_command_again_repeats_nothing(
    script: ModuleType, made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paper import runner

    def refuse(command: Any) -> Any:
        raise AssertionError(command)

    monkeypatch.setattr(runner, "run_verb", refuse)
    before = (made / "table-1.csv").read_text()
    assert script.main(arguments(folder, "--table", "1")) == 0
    assert (made / "table-1.csv").read_text() == before
    # Other settings would be another table.
    assert script.main(arguments(folder, "--table", "1", "--set", "lr=1e-4")) == 2


def test_what_was_cut_off_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: ModuleType
) -> None:
    from paper import runner
    from paper.jobs import Job

    commands = [("first",), ("second",), ("third",)]
    job = Job("a/b", "three", lambda done: commands[len(done)] if len(done) < 3 else None, tmp_path / "result")
    after = Job("a/c", "after it", lambda done: None, tmp_path / "result", needs="a/b")
    ran: list[str] = []
    codes = {"first": [0], "second": [130, 1, 0], "third": [0]}

    def verb(command: tuple[str, ...]) -> tuple[int, str]:
        ran.append(command[0])
        (tmp_path / "result").touch()
        code = codes[command[0]].pop(0)
        return code, "it broke" if code else ""

    monkeypatch.setattr(runner, "run_verb", verb)
    with pytest.raises(KeyboardInterrupt):
        runner.do_jobs([job, after], tmp_path, lambda text: None)
    assert runner.read_record(tmp_path, "a/b").state == "begun"
    assert runner.do_jobs([job, after], tmp_path, lambda text: None) == 2
    assert (runner.read_record(tmp_path, "a/b").why, runner.read_record(tmp_path, "a/c").why) == (
        "it broke",
        "a/b failed",
    )
    assert runner.do_jobs([job, after], tmp_path, lambda text: None) == 0
    assert ran == ["first", "second", "second", "second", "third"]
    record = runner.read_record(tmp_path, "a/b")
    assert (record.state, len(record.done), record.begun) == ("done", 3, None)


def test_a_command_that_follows_from_the_time_spent_is_the_same_when_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: ModuleType
) -> None:
    from paper import runner
    from paper.jobs import Job

    def following(done: Sequence[Any]) -> tuple[str, ...] | None:
        return None if len(done) == 2 else ("left", *(repr(each.seconds) for each in done))

    job = Job("a/b", "two", following, tmp_path / "result")
    (tmp_path / "result").touch()
    monkeypatch.setattr(runner, "run_verb", lambda command: (0, ""))
    assert runner.do_jobs([job], tmp_path, lambda text: None) == 0
    first = runner.read_record(tmp_path, "a/b")
    assert runner.do_jobs([job], tmp_path, lambda text: None) == 0  # and not: done with other settings
    assert runner.read_record(tmp_path, "a/b") == first


def test_a_verb_that_fails_says_why(folder: Path, script: ModuleType) -> None:
    from paper.runner import run_verb

    code, why = run_verb(("eval", str(folder / "data" / "busi"), "--run", str(folder / "none"), "--out", "x"))
    assert code == 2
    assert "is not a folder" in why


def test_gms_spends_its_minutes_on_views_latents_and_the_decoder(folder: Path, script: ModuleType) -> None:
    from paper.order import Order, folders_below
    from paper.systems import Done, next_training

    data = folders_below(folder / "data")
    order = Order(data, ("1",), ("gms",), folder / "w", folder / "o", minutes=10)
    run, done, seen = folder / "w" / "busi", [], []
    for seconds in (12.0, 200.0, 280.0, 90.0):
        command = next_training("gms", data["busi"], order, run, done)
        assert command is not None
        assert "--splits" in command
        seen.append({word for word in command if "=" in word})
        done.append(Done(command, seconds))
    assert next_training("gms", data["busi"], order, run, done) is None
    assert {"views=1", "epochs=0"} <= seen[0]
    assert {"views=19", "minutes=0.001"} <= seen[1]  # 4 of 10 minutes are 20 times 12 s, one of them spent
    assert {"minutes=4.8500", "epochs=0", "views=19"} <= seen[2]  # three quarters of what is left
    assert {"minutes=1.8000", "latent_epochs=0"} <= seen[3]  # the rest
    assert done[3].command[-2] == str(run) or str(run) in done[3].command
    assert all("flip=horizontal" in settings for settings in seen)
    # On large data one view is all that fits, and the measured one is used.
    slow: list[Any] = []
    for seconds, expected in ((100.0, "views=1"), (375.0, "minutes=6.2500"), (125.0, "minutes=2.0833")):
        command = next_training("gms", data["busi"], order, run, slow)
        assert command is not None and {expected, "views=1"} <= set(command)
        assert command[command.index("--cache") + 1] == str(run.parent / "busi-parts" / "one-view")
        slow.append(Done(command, seconds))
    assert next_training("gms", data["busi"], order, run, slow) is None
    other = next_training("unet", data["busi"], order, run, [])
    assert other is not None
    assert {"--model", "unet", "pixels", "minutes=10"} <= set(other) and "--tokenizer" not in other
    for system, recipe, tokenizer in (("sdseg", "diffusion", order.tokenizer), ("gss", "pixels", "vq")):
        generative = next_training(system, data["busi"], order, run, [])
        assert generative is not None and {system, recipe, "minutes=10"} <= set(generative)
        assert generative[generative.index("--tokenizer") + 1] == tokenizer


@pytest.fixture
def values() -> dict[str, Any]:
    """A comparison with numbers of nobody."""

    def row(dsc: float, low: float, high: float, **engines: Any) -> dict[str, Any]:
        return {"dsc": dsc, "low": low, "high": high, "hd95": 20.0, "hd95_all": 25.0, "why": "", "minutes": 60.0,
                "trained_parameters": 1_500_000, "engines": engines}  # fmt: skip

    rows = {
        "gms": row(75, 70, 79, fp32={"median_ms": 30.0, "megabytes": 8.0}, int8={"median_ms": 12.0, "megabytes": 2.0},
                   gate="pass, Dice to FP32 0.9970", parameters=2_000_000, flop=12e9),
        "unet": row(82, 80, 84, fp32={"median_ms": 24.0, "megabytes": 56.0}, gate="not met: no INT8 engine"),
        "ege-unet": {"dsc": None, "why": "not run"},
    }  # fmt: skip
    shared = {"gms_rt": "0.1.0", "minutes": 60.0, "machine": "a processor, 2 cores", "device": "cpu"}
    far = {"data": "bus", "why": "", "rows": {"gms": rows["gms"], "unet": {"dsc": None, "why": "not run"}}}
    data = {
        "busi": {"why": "", "rows": rows, "elsewhere": far},
        "glas": {"why": "no data (not in the folder)", "rows": {}},
    }
    return {**shared, "tokenizer": "vaelight", "settings": [], "every": 1, "data": data}


def test_the_page_says_where_gms_loses_and_what_was_not_run(values: dict[str, Any], script: ModuleType) -> None:
    from paper.compare_page import page_text

    text = page_text([values], ROOT)
    assert "| GMS | 60 min | 75.0 (70.0-79.0) | 20.0 (misses counted: 25.0) | 1.5 M (2 M) | 12 | 30.0 | 12.0 |" in text
    assert "| EGE-UNet | not run |" in text
    assert "UNet has the highest DSC, 7.0 above GMS; their 95 % intervals do not overlap." in text
    assert "GMS has the fastest engine." in text
    assert "On BUSI another model has the higher DSC for the same time." in text
    assert "Not run: no data (not in the folder)." in text
    elsewhere = text.partition("tested on every case of BUS (dataset B)")[2]
    assert "| GMS | 75.0 (70.0-79.0) | 20.0 (misses counted: 25.0) |\n| UNet | not run |  |" in elsewhere
    assert "73.9 (69.3-78.0)" in text.partition("under other conditions")[2]


def test_the_page_says_what_the_student_loses_and_gains(values: dict[str, Any], script: ModuleType) -> None:
    from paper.compare_page import page_text

    rows = values["data"]["busi"]["rows"]
    engines = {"fp32": {"median_ms": 3.0, "megabytes": 16.0}, "gate": "not met: no INT8 engine"}
    rows["student"] = {**rows["gms"], "dsc": 84.25, "engines": engines}
    text = " ".join(page_text([values], ROOT).split())
    assert "The edge student has the highest DSC, 9.2 above GMS" in text
    assert "The fastest engine is that of the edge student, 4.0 times as fast as GMS's fastest." in text
    assert "The edge student's DSC differs from its teacher's by +9.2 on BUSI" in text
    assert "in the time of one image of its teacher's fastest engine, its own does 4 on BUSI." in text
    rows["student"]["engines"] = {}  # none was built
    text = " ".join(page_text([values], ROOT).split())
    assert "The edge student's DSC differs from its teacher's by +9.2 on BUSI. An interval" in text


def test_data_sets_of_two_results_stand_under_their_own_conditions(values: dict[str, Any], script: ModuleType) -> None:
    from paper.compare_page import page_text

    told = values["data"]
    second = {**values, "minutes": 5.0, "tokenizer": "taef2", "note": "It has fewer pictures."}
    second["data"] = {"busi": told["glas"], "glas": told["busi"]}
    for both in ([values, second], [second, values]):
        text = " ".join(page_text(both, ROOT).split())
        assert "60 minutes each on a processor, 2 cores, device cpu; tokenizer of GMS: vaelight. |" in text
        assert "tokenizer of GMS: taef2. It has fewer pictures. |" in text
        assert "--datasets busi --systems gms unet ege-unet --tokenizer onnx:weights/vaelight --minutes 60" in text
        assert "--datasets glas --systems gms unet ege-unet --tokenizer onnx:weights/taef2 --minutes 5" in text
        assert "Not run" not in text and text.count("7.0 above GMS") == 2
    with pytest.raises(UsageError, match="two results have BUSI"):
        page_text([values, values], ROOT)


def test_nothing_follows_from_nothing(values: dict[str, Any], script: ModuleType) -> None:
    from paper.compare_page import page_text

    for row in values["data"]["busi"]["rows"].values():
        row.update(dsc=None, why="not run")
    assert "Nothing follows yet" in page_text([values], ROOT)


def test_the_page_in_the_docs_is_that_of_the_kept_results(script: ModuleType) -> None:
    from paper.compare_page import page_text

    files = sorted((ROOT / "benchmarks" / "results" / "paper").glob("compare*.json"))
    kept = [json.loads(path.read_text()) for path in files]
    made_with = "run: benchmarks/paper/run --page benchmarks/results/paper/compare*.json"
    assert (ROOT / "docs" / "compare.md").read_text() == page_text(kept, ROOT), made_with
