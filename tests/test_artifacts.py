"""Whole or nothing on disk."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from gms_rt import artifacts
from gms_rt.errors import GmsError, UsageError


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


_REPLACING = """
import itertools, os, pathlib, sys
from gms_rt import artifacts

if sys.argv[2] == "without exchange":
    artifacts._renameat2 = lambda: None
for turn in itertools.count():
    with artifacts.atomic_folder(pathlib.Path(sys.argv[1])) as part:
        for name in ("a", "b"):
            (part / name).write_text(str(turn))
    os.write(1, b".")
"""


@pytest.mark.parametrize("way", ["with exchange", "without exchange"])
def test_a_kill_never_leaves_a_missing_or_mixed_folder(tmp_path: Path, way: str) -> None:
    final = tmp_path / "engine"
    for turns in range(1, 9):  # the kill comes at another moment each time, and only once work is under way
        child = subprocess.Popen([sys.executable, "-c", _REPLACING, str(final), way], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert len(child.stdout.read(turns)) == turns
        missing = 0
        for _ in range(300 * turns):
            missing += not final.exists()
        child.kill()
        child.wait()
        child.stdout.close()
        if way == "with exchange":
            assert missing == 0
        artifacts.restore_folder(final)
        a, b = ((final / name).read_text() for name in ("a", "b"))
        assert a == b


class _Stop(BaseException):
    """What no handler expects."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, _Stop, OSError])
def test_an_interrupt_while_folders_change_places_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    final = tmp_path / "engine"
    with artifacts.atomic_folder(final) as part:
        (part / "x").write_text("old")
    monkeypatch.setattr(artifacts, "_exchange", lambda one, other: False)
    rename = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.startswith(".part-") and Path(target) == final:
            assert not final.exists()
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(error), artifacts.atomic_folder(final) as part:
        (part / "x").write_text("new")
    assert (final / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["engine"]


def test_the_next_one_puts_back_what_a_killed_process_had_moved(tmp_path: Path) -> None:
    final = tmp_path / "engine"
    aside = tmp_path / ".old-engine-abc"
    (aside / "engine").mkdir(parents=True)
    (aside / "engine" / "x").write_text("old")
    with pytest.raises(RuntimeError), artifacts.atomic_folder(final):
        raise RuntimeError
    assert (final / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["engine"]
    artifacts.restore_folder(tmp_path / "absent" / "engine")


def test_what_a_working_process_has_moved_is_left_to_it(tmp_path: Path) -> None:
    aside = tmp_path / ".old-engine-abc"
    (aside / "engine").mkdir(parents=True)
    handle = os.open(aside, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    artifacts.restore_folder(tmp_path / "engine")
    assert not (tmp_path / "engine").exists()
    os.close(handle)
    artifacts.restore_folder(tmp_path / "engine")
    assert (tmp_path / "engine").is_dir()


def test_a_folder_takes_the_place_of_a_link_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "kept").write_text("")
    for exchange in (True, False):
        if not exchange:
            monkeypatch.setattr(artifacts, "_exchange", lambda one, other: False)
        (tmp_path / f"link{exchange}").symlink_to("other")
        (tmp_path / f"file{exchange}").write_text("")
        for name in (f"link{exchange}", f"file{exchange}"):
            with artifacts.atomic_folder(tmp_path / name) as part:
                (part / "x").write_text("new")
            assert not (tmp_path / name).is_symlink()
            assert (tmp_path / name / "x").read_text() == "new"
    assert (tmp_path / "other" / "kept").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fileFalse", "fileTrue", "linkFalse", "linkTrue", "other"]


def test_the_disk_has_files_and_folders_before_the_name_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, rename = os.fsync, Path.replace

    def note_sync(handle: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name.split('-')[0]}")
        sync(handle)

    def note_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    with artifacts.atomic_folder(tmp_path / "made" / "engine") as part:
        (part / "sub").mkdir()
        (part / "sub" / "x").write_text("")
    parent = tmp_path.name.split("-")[0]
    assert events == [f"sync {parent}", "sync x", "sync sub", "sync .part", "rename", "sync made"]
    events.clear()
    artifacts.write_bytes(tmp_path / "made" / "note", b"")
    assert events == ["sync .part", "rename", "sync made"]


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    artifacts.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"is a file.*choose another place"):
        artifacts.check_writable(tmp_path / "file" / "engine")


def test_a_place_that_refuses_what_its_permissions_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file server does, or /proc to the superuser; and a disk that is full."""
    for number, words in ((errno.EACCES, "cannot be written"), (errno.ENOSPC, "no space left on the disk")):
        refused = OSError(number, os.strerror(number))
        monkeypatch.setattr(os, "mkdir", Mock(side_effect=refused))
        with pytest.raises(GmsError, match=words):
            artifacts.check_writable(tmp_path / "engine")


def test_a_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):  # the superuser may write anywhere: ask as another user would
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(UsageError, match="Permission denied"):
        artifacts.check_writable(tmp_path / "engine")
