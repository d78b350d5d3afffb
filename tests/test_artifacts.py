"""Whole or nothing on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gms_rt import artifacts
from gms_rt.errors import UsageError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    artifacts.write_bytes(tmp_path / "a.txt", b"old")
    with pytest.raises(RuntimeError), artifacts.atomic_path(tmp_path / "a.txt") as part:
        part.write_bytes(b"new")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_a_failed_folder_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    with artifacts.atomic_folder(tmp_path / "engine") as part:
        (part / "x").write_text("old")
    with pytest.raises(RuntimeError), artifacts.atomic_folder(tmp_path / "engine") as part:
        (part / "x").write_text("new")
        raise RuntimeError
    with artifacts.atomic_folder(tmp_path / "engine") as part:
        (part / "y").write_text("newer")
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["engine", "engine/y"]


def test_a_file_in_place_of_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        artifacts.write_bytes(tmp_path / "file" / "out.json", b"{}")


def test_a_kill_never_leaves_a_half_written_file(tmp_path: Path) -> None:
    target = tmp_path / "big.json"
    program = (
        "import sys, pathlib\nfrom gms_rt import artifacts\n"
        "for i in range(10**6): artifacts.write_bytes(pathlib.Path(sys.argv[1]), bytes([i % 251]) * 500_000)\n"
    )
    for pause in (0.05, 0.11, 0.02):
        child = subprocess.Popen([sys.executable, "-c", program, str(target)])
        while not target.exists():
            assert child.poll() is None
            time.sleep(0.01)
        time.sleep(pause)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        data = target.read_bytes()
        assert len(data) == 500_000
        assert len(set(data)) == 1
        target.unlink()


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    artifacts.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"is a file.*choose another place"):
        artifacts.check_writable(tmp_path / "file" / "engine")


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):  # the superuser may write anywhere: ask as another user would
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(UsageError, match="Permission denied"):
        artifacts.check_writable(tmp_path / "engine")
