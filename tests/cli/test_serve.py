"""`gms-rt serve` as a person starts it, or fails to."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from support.infer_engine import brightness_engine
from support.serve_server import write_golden

from gms_rt.cli import infer
from gms_rt.cli.main import run


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "engines/brightness"
    write_golden(folder)
    monkeypatch.setattr(infer, "load", lambda path, **_: brightness_engine(folder))
    return str(folder)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host", "0.0.0.0"], "--token-file"),
        (["--tls-cert", "c.pem"], "give both"),
        (["--token-file", "absent"], "cannot be read"),
        (["--device", "tpu"], "tpu"),
        (["--timeout", "-1"], "--timeout"),
        (["--requests", "0"], "--requests"),
        (["--threshold", "2"], "--threshold"),
    ],
)
def test_wrong_options_end_with_2(
    engine: str, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert run(["serve", engine, "--port", "0", *options]) == 2
    assert told in capsys.readouterr().err


def test_two_engines_of_one_name_are_refused(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", engine, engine, "--port", "0"]) == 2
    assert "name of two engines" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(["serve", engine, "--port", str(port)]) == 1
    assert f"127.0.0.1:{port}: cannot listen there" in capsys.readouterr().err


def test_golden_pictures_that_come_out_wrong_end_it_with_3(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_golden(Path(engine), probabilities=np.full((2, 64, 64), 200, np.uint8))
    assert run(["serve", engine, "--port", "0"]) == 3
    assert "golden pictures do not come out right" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("gms_rt.serve", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run(["serve", engine]) == 2
    assert "pip install 'gms-rt[serve]'" in capsys.readouterr().err
