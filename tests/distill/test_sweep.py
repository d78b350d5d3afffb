"""A sweep: every size with and without the teacher, one table as JSON, as text and as a page; and students by time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from support.phantom_folders import write_pair, write_phantoms

from gms_rt.cli.distill import command
from gms_rt.cli.distill_sweep import budgets_from_text
from gms_rt.distill import speed, sweep
from gms_rt.distill.speed import TimedShape, shape_within
from gms_rt.distill.sweep import SweepRow
from gms_rt.errors import UsageError
from gms_rt.model.gms import Gms
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.run import save_run
from gms_rt.model.student import StudentShape, student_flop
from gms_rt.report.sweep import page_from_sweep

QUICK = ("--set", "batch=4", "--set", "threads=1", "--set", "warmup=0", "--set", "validation=0.2", "--epochs", "2")


@pytest.fixture(autouse=True)
def timed_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test is about how long these take."""
    monkeypatch.setattr(speed, "_ROUNDS", 2)
    monkeypatch.setattr(speed, "_SECONDS", 0.02)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/` and `run/`, a teacher with random weights for pictures of 32x32."""
    folder = tmp_path_factory.mktemp("place")
    write_phantoms(folder / "data")
    torch.manual_seed(3)
    gms = Gms(load_tokenizer(write_pair(folder / "pair")), LatentMapper(LmmConfig(4, 16, (1, 2), 8)))
    save_run(folder / "run", gms, {"training": {"size": 32}})
    return folder


def call(place: Path, out: Path, *more: str) -> str:
    given = [str(place / "run"), "--data", str(place / "data"), "--out", str(out), *QUICK, *more]
    found = CliRunner().invoke(command, given, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.slow
def test_a_sweep_is_a_whole_table(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    text = call(place, out, "--sweep", "0.003,0.005")
    values = json.loads((out / "sweep.json").read_text())
    assert (values["format"], values["cases"], values["part"]) == ("gms-rt-sweep", 4, "test")
    names = [row["name"] for row in values["rows"]]
    assert names == ["teacher", "0.003-untaught", "0.003-taught", "0.005-untaught", "0.005-taught"]
    for row in values["rows"]:
        assert row["milliseconds"] > 0 and row["megabytes"] > 0
        assert 0 <= row["dice"]["mean"] <= 1 and len(row["dice"]["interval95"]) == 2
        own = row["taught"] is not None
        assert (row["gflop"] is not None) == own and (row["dice_to_teacher"] is not None) == own
        assert (row["minus_teacher"] is not None) == own
        assert (row["minus_untaught"] is not None) == (row["taught"] is True)
        assert row["name"] in text
        if own:
            budget = float(row["name"].split("-")[0])
            assert 0 < row["gflop"] <= budget
            assert (out / row["name"] / "student.safetensors").is_file()
            assert ("[teacher]" in (out / row["name"] / "config.toml").read_text()) == row["taught"]
            assert math.isclose(
                row["minus_teacher"]["difference"],
                row["dice"]["mean"] - values["rows"][0]["dice"]["mean"],
                abs_tol=2e-6,
            )
            assert (out / "test-cases" / row["name"] / "cases.csv").is_file()
    assert values["verdict"] in text and "GFLOP" in values["verdict"]
    page = (out / "sweep.html").read_text()
    assert page == page_from_sweep(values)
    assert page.count('<g class="mark"') == 5 and "Not for clinical use" in page
    # Again, for some of the sizes: nothing is trained anew.
    before = {path: path.read_bytes() for path in out.glob("*/last.safetensors")}
    assert len(before) == 4
    again = json.loads(call(place, out, "--sweep", "0.003", "--json"))
    assert [row["dice"] for row in again["rows"]] == [row["dice"] for row in values["rows"][:3]]
    assert {path: path.read_bytes() for path in out.glob("*/last.safetensors")} == before


def row(name: str, interval: tuple[float, float]) -> SweepRow:
    helped = {"difference": sum(interval) / 2, "interval95": list(interval), "wilcoxon_p": 0.01}
    return SweepRow(name, 1.0, True, 1.0, 1.0, 0.9, None, None, None, helped)


def test_the_verdict_says_where_the_teacher_helped() -> None:
    rows = [row("0.25-taught", (0.01, 0.02)), row("0.5-taught", (-0.02, -0.01)), row("1-taught", (-0.01, 0.01))]
    assert sweep._verdict(rows) == (
        "the teacher helped at 0.25 GFLOP; the teacher did harm: the untaught student is better at 0.5 GFLOP; "
        "no difference is seen between taught and untaught at 1 GFLOP"
    )


def test_the_largest_student_within_a_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that takes a millisecond for a GFLOP."""

    def timed(shape: StudentShape) -> TimedShape:
        return TimedShape(shape, student_flop(shape) / 1e9, student_flop(shape) / 1e9)

    monkeypatch.setattr(speed, "timed_shape", timed)
    tried: list[TimedShape] = []
    found = shape_within(1.0, 224, tried.append)
    assert 0.8 < found.milliseconds <= 1.0
    assert len(tried) < 8
    with pytest.raises(UsageError, match=r"the smallest student takes 0\.\d+ ms here, more than 0.001 ms"):
        shape_within(0.001, 224)


def test_a_student_is_timed_on_this_machine() -> None:
    timed = speed.timed_shape(StudentShape(size=32, width=16, blocks=(1, 0, 0), merge_blocks=0))
    assert timed.milliseconds > 0 and timed.gflop > 0


@pytest.mark.parametrize("text", ["", "a", "0.5,-1", "0"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a list of sizes"):
        budgets_from_text(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sweep", "1", "--budget", "2ms"), "say the size in two ways"),
        (("--budget-gflop", "0"), "is not a budget"),
        (("--budget", "2"), "'2' is not a time"),
        (("--sweep", "1,1"), "each once"),
        (("--sweep", "0.003", "--no-teacher"), "with and without a teacher"),
        (("--budget-gflop", "0.0001"), "fits"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_training(
    place: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    given = [str(place / "run"), "--data", str(place / "data"), "--out", str(tmp_path / "out"), *options]
    found = CliRunner().invoke(command, given)
    assert words in str(found.exception)
    assert not (tmp_path / "out").exists()


def test_one_student_by_the_command_line(place: Path, tmp_path: Path) -> None:
    values = json.loads(call(place, tmp_path / "one", "--budget-gflop", "0.003", "--no-teacher", "--json"))
    assert values["taught"] is False and 0 < values["gflop"] <= 0.003
    assert values["epochs"] == 2 and 0 <= values["validation_dice"] <= 1
    text = call(place, tmp_path / "two", "--budget-gflop", "0.003", "--init", str(tmp_path / "one"))
    assert "taught" in text and f"gms-rt eval {place / 'data'} --run {tmp_path / 'two'}" in text
