"""`gms-rt train` and `gms-rt ablate` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.phantom_folders import write_phantoms, write_tokenizer

from gms_rt.class_lists import classes_from_run
from gms_rt.classes import SegmentClass
from gms_rt.cli import ablate, train
from gms_rt.config import read_toml
from gms_rt.errors import DeviceError, UsageError
from gms_rt.model.run import load_run

SMALL = [
    *("--set", "size=32", "--set", "width=8", "--set", "groups=4", "--set", "multipliers=[1,2]", "--set", "batch=4"),
    *("--set", "epochs=1", "--set", "threads=1"),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_train_says_what_it_does_and_what_comes_next(tmp_path: Path, tokenizer: str) -> None:
    data = write_phantoms(tmp_path / "data", 12)
    fast = ["--set", "latent_epochs=2", "--set", "views=2"]
    (tmp_path / "classes.toml").write_text("[[class]]\nname = 'Cyst'\n")
    named = ["--classes", str(tmp_path / "classes.toml")]
    arguments = [str(data), "--tokenizer", tokenizer, *SMALL, *fast, *named, "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(train.command, arguments)
    assert done.exit_code == 0, done.output
    assert "9 cases train, 1 validate, 2 are kept for the test" in done.output
    assert f"next: gms-rt eval {data} --run {tmp_path / 'run'}" in done.output
    assert classes_from_run(tmp_path / "run") == (SegmentClass("Cyst"),)
    assert isinstance(CliRunner().invoke(train.command, arguments).exception, UsageError)
    again = CliRunner().invoke(train.command, [*arguments, "--resume", "--json"])
    assert json.loads(again.stdout)["epochs"] == 3


def test_fine_tuning_takes_the_shape_of_the_run_it_starts_from(tmp_path: Path, tokenizer: str) -> None:
    data = write_phantoms(tmp_path / "data", 12)
    common = [str(data), "--tokenizer", tokenizer, "--recipe", "paper"]
    first = [*common, *SMALL, "--out", str(tmp_path / "first")]
    assert CliRunner().invoke(train.command, first).exit_code == 0
    init = ["--init", str(tmp_path / "first"), "--set", "size=32", "--set", "epochs=1", "--set", "threads=1"]
    done = CliRunner().invoke(train.command, [*common, *init, "--out", str(tmp_path / "tuned")])
    assert done.exit_code == 0, done.output
    assert load_run(tmp_path / "tuned").mapper.config == load_run(tmp_path / "first").mapper.config
    wider = [*common, *init, "--set", "width=16", "--out", str(tmp_path / "wider")]
    assert isinstance(CliRunner().invoke(train.command, wider).exception, UsageError)


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path, tokenizer: str) -> None:
    data = write_phantoms(tmp_path / "data", 4)
    done = CliRunner().invoke(
        train.command, [str(data), "--tokenizer", tokenizer, "--device", "cuda:99", "--out", str(tmp_path / "run")]
    )
    assert isinstance(done.exception, DeviceError)


def test_the_loss_grid_sets_the_papers_table_beside(tmp_path: Path, tokenizer: str) -> None:
    data = write_phantoms(tmp_path / "busi", 8)
    arguments = ["loss", str(data), "--tokenizer", tokenizer, "--recipe", "paper", *SMALL, "--out", str(tmp_path / "g")]
    done = CliRunner().invoke(ablate.command, arguments)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    labels = [line[0] for line in lines if line and line[0] in ("latent", "dice", "both")]
    assert labels == ["latent", "dice", "both"]
    assert ["published", "(paper,", "table", "4)", "80.25", "-", "71.26", "-", "21.57", "-"] in lines
    cells = json.loads((tmp_path / "g" / "ablation.json").read_text())["cells"]
    assert all(cell["cases"]["all"] == 2 for cell in cells.values())


def test_the_loss_grid_refuses_steps_that_learn_the_same_in_every_cell(tmp_path: Path, tokenizer: str) -> None:
    data = write_phantoms(tmp_path / "busi", 8)
    arguments = ["loss", str(data), "--tokenizer", tokenizer, "--recipe", "fast", *SMALL, "--out", str(tmp_path / "g")]
    done = CliRunner().invoke(ablate.command, arguments)
    assert isinstance(done.exception, UsageError)
    assert "300 of its 301 epochs learn from latents alone" in str(done.exception)
    assert "--set latent_epochs=0 --set epochs=301" in str(done.exception)
    assert not (tmp_path / "g").exists()
    done = CliRunner().invoke(ablate.command, [*arguments, "--set", "latent_epochs=0", "--set", "views=2"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "g" / "latents" / "index.json").is_file(), "one cache for all cells"
    assert not list((tmp_path / "g").glob("*/latents"))
    losses = {read_toml(run)["training"]["loss"] for run in (tmp_path / "g").glob("*/config.toml")}
    assert losses == {"latent", "dice", "both"}


def test_the_tokenizer_grid_needs_two(tmp_path: Path, tokenizer: str) -> None:
    done = CliRunner().invoke(
        ablate.command, ["tokenizer", str(tmp_path), "--tokenizer", tokenizer, "--out", str(tmp_path / "g")]
    )
    assert isinstance(done.exception, UsageError)
