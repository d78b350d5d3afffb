"""An archive on several processes: the results of `infer`, each source once, whatever dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scale_runs import HOOKS, LOAD, results, setup, table
from support.trees import ROOT

from gms_rt.errors import DeviceError, GmsError, UsageError
from gms_rt.infer import OutFolder
from gms_rt.infer.journal import Entry, earlier_entries
from gms_rt.scale.chunk import Chunk, ChunkResult
from gms_rt.scale.places import find_archive
from gms_rt.scale.processes import ProcessBackend
from gms_rt.scale.run import ScaleJob, scale_cases


@pytest.fixture(autouse=True)
def _hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers heed the names of files."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(HOOKS), os.environ.get("PYTHONPATH", "")])))


def scaled(
    engine: Path, scans: Path, out: Path, *, workers: int = 1, on_chunk: Callable[..., None] | None = None, **job: Any
) -> dict[str, Any]:
    """A run with processes."""
    with OutFolder(out) as held, ProcessBackend(setup(engine, out), workers) as backend:
        return scale_cases(find_archive(str(scans)), ScaleJob(held, on_chunk=on_chunk, **job), backend)


def test_two_workers_write_what_infer_writes_even_if_one_is_killed(
    engine: Path, scans: Path, plain: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_first(result: ChunkResult, done: int, total: int) -> None:
        if not killed:
            killed.append(int(result.worker.rpartition(":")[2]))
            os.kill(killed[0], signal.SIGKILL)

    value = scaled(engine, scans, tmp_path / "out", workers=2, on_chunk=kill_first)
    assert results(tmp_path / "out") == results(plain)
    assert len(results(plain)) > 3 * 12
    assert table(tmp_path / "out") == table(plain)
    assert (value["cases"], value["failed"], value["sources"]) == (16, 1, 14)
    assert value["scale"]["workers_lost"] == 1
    assert value["scale"]["peak_mib_per_worker"] > 20
    names = [entry.source for entry in earlier_entries(tmp_path / "out")]
    assert len(names) == len(set(names)) == 14
    left = [path.name for path in (tmp_path / "out").rglob(".*")]
    assert sorted(left) == [".gms-rt-journal.jsonl", ".gms-rt-stamps.jsonl", ".gms-rt.lock"]
    assert "1 died and replaced" in value["screen"]


def test_a_file_that_ends_its_worker_fails_and_the_rest_goes_on(
    engine: Path, scans: Path, plain: Path, tmp_path: Path
) -> None:
    poisoned = tmp_path / "archive"
    shutil.copytree(scans / "a", poisoned)
    (poisoned / "poison.png").write_bytes(b"x")
    value = scaled(engine, poisoned, tmp_path / "out")
    rows = {row["source"]: row for row in table(tmp_path / "out")}
    assert "ended the process that read it" in rows["poison.png"]["error"]
    assert {row["status"] for name, row in rows.items() if name != "poison.png"} == {"ok"}
    assert (value["failed"], value["cases"]) == (1, 7)
    expected = {
        n.replace("/a/", "/"): data for n, data in results(plain).items() if "/a/" in n and n.startswith("masks")
    }
    assert {n: data for n, data in results(tmp_path / "out").items() if n.startswith("masks")} == expected


def test_a_driver_that_is_killed_goes_on_where_it_was(engine: Path, scans: Path, plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "gms_rt", "scale", "infer", str(scans), "--engine", str(engine), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HOOKS), str(ROOT)])}
    with subprocess.Popen([*command, "--workers", "1"], env=environment, stderr=subprocess.PIPE) as process:
        while not earlier_entries(out):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.kill()
    before = {entry.source for entry in earlier_entries(out)}
    assert 0 < len(before) < 14
    (scans / "a/slow000.png").touch()  # was not changed, but looks so
    fresh: list[str] = []
    value = scaled(engine, scans, out, resume=True, on_chunk=lambda r, *_: fresh.extend(e.source for e in r.entries))
    assert value["sources_done_before"] == len(before - {"a/slow000.png", "b/empty.png"})
    assert set(fresh) == {row["source"] for row in table(plain) if not row["series_uid"]} - before | {
        "a/slow000.png", "b/empty.png"
    } | {name for name in fresh if name.startswith("ct/")}  # fmt: skip
    assert results(out) == results(plain)
    assert table(out) == table(plain)


def test_workers_that_cannot_open_the_engine_say_why(scans: Path, tmp_path: Path) -> None:
    with pytest.raises(GmsError, match=r"engine\.json"):
        scaled(tmp_path / "none", scans, tmp_path / "out")


def test_a_worker_of_another_kind_refuses(engine: Path, tmp_path: Path) -> None:
    from gms_rt.scale.worker import Worker

    with pytest.raises(DeviceError, match="unlike the first worker"):
        Worker(setup(engine, tmp_path, key="another"))


class Script:
    """A backend that answers as it was told to."""

    name, workers, cores_per_worker, lost = "script", 1, 1, 0

    def __init__(self, answers: Iterator[bool]) -> None:
        self._answers = answers
        self.given: list[str] = []

    def facts(self) -> dict[str, Any]:
        return {"key": "k", "record": {}, "notice": ""}

    def results(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        for chunk in chunks:
            self.given.append(chunk.sources[0].name)
            yield ChunkResult(chunk.id, error=None if next(self._answers) else GmsError("no space left on the disk"))


@pytest.mark.parametrize(
    ("answers", "given", "ends"),
    [
        ([True, False, True, True], ["0", "1", "2", "1"], True),  # once more, after the others
        ([True, False, True, False, False], ["0", "1", "2", "1", "1"], False),  # not for ever
        ([False] * 9, ["0", "1", "2"], False),  # nothing works at all: the disk is full
    ],
)
def test_chunks_are_given_out_again_after_an_error(
    tmp_path: Path, answers: list[bool], given: list[str], ends: bool
) -> None:
    for name in "012":
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/{name}").write_bytes(b"\0" * 128 + b"DICM")
    backend = Script(iter(answers))
    with OutFolder(tmp_path / "out") as held:
        job = ScaleJob(held, retries=2)
        if ends:
            scale_cases(find_archive(str(tmp_path / "in")), job, backend)
        else:
            with pytest.raises(GmsError, match="no space left"):
                scale_cases(find_archive(str(tmp_path / "in")), job, backend)
    assert backend.given == given
    assert json.loads((tmp_path / "out/run.json").read_text())["status"] == ("done" if ends else "failed")


class Recorder(Script):
    """A backend of an engine with this hash, whose sources have no results."""

    def __init__(self, engine: str) -> None:
        super().__init__(iter(()))
        self.engine = engine

    def facts(self) -> dict[str, Any]:
        about = {"folder": f"engines/{self.engine}", "manifest_sha256": self.engine}
        return {"key": self.engine, "record": {"engine": about}, "notice": ""}

    def results(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        for chunk in chunks:
            self.given += [source.name for source in chunk.sources]
            yield ChunkResult(chunk.id, [Entry(self.engine, source.name, "", [], {}) for source in chunk.sources])


def test_another_engine_does_not_go_on_with_an_archive(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0").write_bytes(b"\0" * 128 + b"DICM")

    def go_on(engine: str, **job: Any) -> list[str]:
        backend = Recorder(engine)
        with OutFolder(tmp_path / "out") as held:
            scale_cases(find_archive(str(tmp_path / "in")), ScaleJob(held, resume=True, **job), backend)
        return backend.given

    assert go_on("a") == ["0"]
    assert go_on("a") == []
    with pytest.raises(UsageError, match=r"holds the results of another engine \(engines/a\)"):
        go_on("b")
    assert go_on("a") == []  # what it did is still there
    assert go_on("b", replace=True) == ["0"]


def test_an_interrupt_while_workers_end_leaves_none(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(timeout: float | None = None) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ProcessBackend(setup(engine, tmp_path / "out"), 1) as backend:
        backend.facts()
        (worker,) = backend._live.values()
        monkeypatch.setattr(worker.process, "wait", interrupted)
    assert worker.process.returncode is not None


def test_an_archive_without_scans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no scans"):
        find_archive(str(tmp_path))


def test_cores_are_shared_out(engine: Path, tmp_path: Path) -> None:
    backend = ProcessBackend(setup(engine, tmp_path, load=LOAD), 64)
    assert backend.cores_per_worker == max(1, len(os.sched_getaffinity(0)) // 64)
