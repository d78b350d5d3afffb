"""The command line: help, verbs, and mistakes that end in one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from gms_rt.cli.main import VERBS, cli, run


def test_help_lists_every_verb_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)
    assert "accuracy gate not met" in text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"gms-rt {verb}" in text.split("Options")[0].split("Usage", 1)[1]
    assert "Example" in text
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    undocumented = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert undocumented == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_reports_to_machines(verb: str) -> None:
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None
    commands = [command, *getattr(command, "commands", {}).values()]
    assert [c.name for c in commands if not isinstance(c, click.Group) and "--json" not in options(c)] == []


def options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bild"], "did you mean 'build'"),
        (["--loud"], "no such option"),
        (["infer", "/absent/folder"], "/absent/folder"),
        (["build", "--precision", "fp12"], "fp12"),
        (["build", "absent.onnx", "--precision", "fp16"], "absent.onnx"),
        (["bench", "--engine", "absent"], "absent"),
        (["parity", "absent"], "absent"),
        (["inspect", "absent"], "absent"),
        (["demo", "--out", "/proc/none/here"], "/proc/none"),
    ],
)
def test_mistakes_end_in_one_line_and_no_traceback(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(arguments)
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert code in (1, 2)
    assert last.startswith("gms-rt: ")
    assert words.lower() in last.lower()
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_json_too_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "absent", "--json"]) != 0
    failure = json.loads(capsys.readouterr().out)
    assert failure["error"]["exit_code"] != 0
    assert "absent" in failure["error"]["message"]


def test_the_installed_command_answers() -> None:
    done = subprocess.run([sys.executable, "-m", "gms_rt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("gms-rt ")


def test_a_closed_pipe_is_not_an_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m gms_rt --help | head -1", shell=True, capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout
    assert done.stderr == ""
