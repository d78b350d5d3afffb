"""Groups of files: nothing is said to be there before the disk has it, and a kill leaves whole files or none."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from support.infer_engine import brightness_engine
from support.infer_runs import pictures, pipeline_threads, rows_of

from gms_rt.errors import GmsError
from gms_rt.infer import InferJob, InferOptions, OutFolder, file_group, find_sources, run_cases
from gms_rt.infer import pipeline as stages
from gms_rt.infer.file_group import PartFile, commit_parts, part_from_bytes
from gms_rt.infer.journal import JOURNAL, earlier_entries


def note_events(monkeypatch: pytest.MonkeyPatch, events: list[str], *, syncfs: bool) -> None:
    """Write down what reaches the disk, in order."""
    sync, rename = os.fsync, os.replace

    def note_sync(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").readlink().name
        events.append(f"sync {name.split('-')[0]}")
        sync(handle)

    def note_rename(part: str, final: str) -> None:
        events.append(f"rename {Path(final).name}")
        rename(part, final)

    def note_whole(handle: int) -> int:
        events.append("sync all")
        return 0

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    monkeypatch.setattr(file_group, "_syncfs", lambda: note_whole if syncfs else None)
    monkeypatch.setattr(file_group, "_keeps_promise", lambda handle: True)
    monkeypatch.setattr(file_group, "_unwritten_bytes", lambda: 0)


@pytest.mark.parametrize("syncfs", [False, True])
def test_the_disk_has_every_file_of_a_group_before_one_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncfs: bool
) -> None:
    parts = [part_from_bytes(tmp_path / f"{folder}/{name}.png", b"x") for folder in "ab" for name in "12"]
    assert {path.name.split("-")[0] for path in tmp_path.rglob("*.png")} == {".part"}
    events: list[str] = []
    note_events(monkeypatch, events, syncfs=syncfs)
    assert commit_parts(parts) == {}
    renames = ["rename 1.png", "rename 2.png"] * 2
    assert events == [*(["sync all"] if syncfs else ["sync .part"] * 4), *renames, "sync a", "sync b"]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")) == [
        "a/1.png", "a/2.png", "b/1.png", "b/2.png",
    ]  # fmt: skip


def test_what_others_have_written_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    note_events(monkeypatch, events, syncfs=True)
    monkeypatch.setattr(file_group, "_unwritten_bytes", lambda: 1 << 30)
    commit_parts([part_from_bytes(tmp_path / name, b"x") for name in "abc"])
    assert events[:3] == ["sync .part"] * 3


def test_files_are_as_the_user_wants_new_files_to_be(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        commit_parts([part_from_bytes(tmp_path / "deep/er/a.png", b"whole")])
    finally:
        os.umask(before)
    made = tmp_path / "deep/er/a.png"
    assert (made.read_bytes(), made.stat().st_mode & 0o777) == (b"whole", 0o640)


def test_a_folder_that_another_thread_makes_meanwhile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def too_late(name: Any, *arguments: Any) -> int:
        try:
            return opened(name, *arguments)
        except FileNotFoundError:
            (tmp_path / "masks").mkdir()
            raise

    monkeypatch.setattr(os, "open", too_late)
    part = part_from_bytes(tmp_path / "masks/a.png", b"x")
    assert Path(part.part).read_bytes() == b"x"


def test_a_name_that_is_taken_by_a_folder_fails_its_file_only(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/inside").touch()
    parts = [part_from_bytes(tmp_path / name, b"x") for name in "abc"]
    failed = commit_parts(parts)
    assert [(part.final, error.errno) for part, error in failed.items()] == [(str(tmp_path / "b"), errno.EISDIR)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_leftover_with_the_same_number_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_group, "_NUMBERS", iter([7, 7, 8]))
    first, second = part_from_bytes(tmp_path / "a", b"1"), part_from_bytes(tmp_path / "a", b"2")
    assert Path(first.part).read_bytes() == b"1"
    assert Path(second.part).read_bytes() == b"2"


def test_a_case_whose_file_cannot_take_its_name_fails_and_the_rest_is_written(tmp_path: Path) -> None:
    scans, out = pictures(tmp_path / "scans", 12), tmp_path / "out"
    (out / "masks/003.png/in the way").mkdir(parents=True)
    engine = brightness_engine(tmp_path / "engine")
    with OutFolder(out) as folder:
        summary = run_cases(find_sources([str(scans)]), InferJob(engine, folder, InferOptions(), workers=2))
    assert (summary.cases, summary.failed) == (12, 1)
    (failed,) = [row for row in rows_of(out) if row["status"] == "failed"]
    assert (failed["case"], failed["error"]) == ("003", "its result cannot be written (Is a directory)")
    assert not list(out.rglob(".part-*"))


def test_nothing_is_told_before_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, out = pictures(tmp_path / "scans", 60), tmp_path / "out"
    kept: set[str] = set()
    sizes: list[int] = []

    def committing(parts: list[PartFile]) -> Any:
        failed = commit_parts(parts)
        kept.update(part.final for part in parts)
        sizes.append(len(parts))
        return failed

    def told(case: Any, rows: Any) -> None:
        assert {str(out / name) for name in case.files} <= kept
        assert case.source.name in {entry.source for entry in earlier_entries(out)}

    monkeypatch.setattr(stages, "commit_parts", committing)
    engine = brightness_engine(tmp_path / "engine")
    with OutFolder(out) as folder:
        run_cases(find_sources([str(scans)]), InferJob(engine, folder, InferOptions(), on_case=told, workers=2))
    assert len(kept) == sum(sizes) == 180
    entries = earlier_entries(out)
    assert len(entries) == 60
    assert all((out / name).stat().st_size == size for entry in entries for name, size in entry.files.items())


def test_a_disk_that_keeps_nothing_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, out = pictures(tmp_path / "scans", 20), tmp_path / "out"

    def failing(parts: list[PartFile]) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(stages, "commit_parts", failing)
    engine = brightness_engine(tmp_path / "engine")
    with OutFolder(out) as folder, pytest.raises(GmsError, match="does not keep what is written"):
        run_cases(find_sources([str(scans)]), InferJob(engine, folder, InferOptions(), workers=2))
    assert pipeline_threads() == []
    assert not list(out.rglob(".part-*"))
    assert not list(out.rglob("*.png"))
    assert (out / JOURNAL).read_bytes() == b""
