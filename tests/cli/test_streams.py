"""Standard streams that are full or closed, and requests to end: one line, the right exit code, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.trees import ROOT

from gms_rt.cli import main
from gms_rt.interrupts import END_REQUESTS, set_handlers

PROGRAM = f"{sys.executable} -m gms_rt"
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True)


@needs_full
@pytest.mark.parametrize("line", ["--help", "data list", "data list --json", "doctor --json"])
def test_a_full_disk_behind_standard_output_is_one_line(line: str, tmp_path: Path) -> None:
    done = shell(f"{PROGRAM} {line} >/dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "gms-rt: an output stream: cannot be read or written (No space left on device)\n"


@needs_full
@pytest.mark.parametrize("stream", ["2>/dev/full", "2>&-", ">/dev/full 2>&1", ">&- 2>&-"])
def test_an_error_that_nobody_can_read_keeps_its_exit_code(stream: str, tmp_path: Path) -> None:
    assert shell(f"{PROGRAM} inspect absent {stream}", tmp_path).returncode == 1
    assert shell(f"{PROGRAM} bild {stream}", tmp_path).returncode == 2


def test_closed_streams_are_no_error_and_no_file_takes_their_place(tmp_path: Path) -> None:
    done = shell(f"{PROGRAM} data check absent <&- >&- 2>&-; {PROGRAM} keys list <&- >&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    code = "from gms_rt.cli import main; main._open_standard_streams(); print(open('/dev/zero').fileno())"
    done = shell(f'{sys.executable} -c "{code}" <&- 2>&-', tmp_path)
    assert int(done.stdout) > 2


@needs_full
def test_work_goes_on_where_its_progress_cannot_be_written(tmp_path: Path) -> None:
    code = (
        "import sys; from gms_rt.cli.console import Console\n"
        "Console().note('progress'); Console(json=True).result({'done': True}, '')"
    )
    done = shell(f'{sys.executable} -c "{code}" 2>/dev/full', tmp_path)
    assert (done.returncode, done.stdout) == (0, '{\n  "done": true\n}\n')


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "a\nb"))

    monkeypatch.setattr("gms_rt.cli.main.cli.main", refuse)
    assert main.run(["data", "list"]) == 1
    line = f"gms-rt: {tmp_path}/a\\nb: cannot be read or written (Permission denied)\n"
    assert capsys.readouterr().err == line
    monkeypatch.setenv("GMS_RT_DEBUG", "1")
    with pytest.raises(PermissionError):
        main.run(["data", "list"])


WAITING = """
import signal, sys, time
from gms_rt.cli import main
if "{inherited}" == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
else:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
def wait(**_):
    print("waiting", flush=True)
    time.sleep(60)
main.cli.main = wait
sys.argv = ["gms-rt", "data", "list"]
main.main()
"""


def waiting(inherited: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WAITING.format(inherited=inherited)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    return process


@pytest.mark.parametrize("number", END_REQUESTS)
def test_a_request_to_end_ends_as_an_interrupt_does(number: signal.Signals) -> None:
    process = waiting("default")
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "gms-rt: interrupted; run the same command again to go on\n")


def test_nohup_is_heeded() -> None:
    process = waiting("ignored")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_handler_that_is_not_pythons_is_not_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # What `signal.signal` returns in a program that embeds Python; handed back to it, it is a TypeError.
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert set_handlers(END_REQUESTS, lambda *_: None) == {}
