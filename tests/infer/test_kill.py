"""A run killed at any moment leaves whole files only, and goes on to the same bytes."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.infer_engine import brightness_engine
from support.trees import ROOT

import gms_rt
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer.journal import earlier_entries
from gms_rt.infer.measure import COLUMNS

KILLS = 20


def segment(engine: Path, scans: Path, out: Path) -> None:
    with OutFolder(out) as folder:
        opened = brightness_engine(engine, seconds=float((engine / "seconds").read_text()))
        found = find_sources([str(scans)])
        run_cases(found, InferJob(opened, folder, InferOptions(probabilities=True), workers=2), resume=True)


def serve() -> None:
    """Fork one run for each line of three paths: everything is imported, so a run's life is work that can be hit."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            segment(*map(Path, json.loads(line)))
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Server:
    """Starts runs, and kills them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, engine: Path, scans: Path, out: Path, *, kill_at: int | None = None) -> int:
        """The exit code of a run, killed as soon as so many masks are there if it has not ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path) for path in (engine, scans, out)]) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        if kill_at is not None:
            with suppress(ProcessLookupError):  # it may have ended
                while mask_count(out) < kill_at:
                    os.kill(pid, 0)
                    time.sleep(0.001)
                os.kill(pid, signal.SIGKILL)
        return int(self._process.stdout.readline())


@contextmanager
def server() -> Iterator[Server]:
    folders = [ROOT / "tests", Path(gms_rt.__file__).parents[1]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Server(process)


def scans_in(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(40):
        shape = (60 + index, 80, 3)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / f"{index:02}.png")
    pages = [Image.fromarray(rng.integers(0, 256, (50, 50), np.uint8)) for _ in range(6)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:])


def check_whole(out: Path) -> int:
    """Open every file that a person could see; returns how many there are."""
    files = [p for p in out.rglob("*") if p.is_file() and not p.name.startswith(".")]
    for path in files:
        if path.suffix == ".json":
            assert json.loads(path.read_text())
        elif path.suffix == ".csv":
            text = path.read_text()
            assert text.endswith("\n")
            assert {len(row) for row in csv.reader(text.splitlines())} == {len(COLUMNS)}
        elif path.suffix in (".png", ".jpg"):
            with Image.open(path) as image:
                image.load()
    return len(files)


def check_told(out: Path) -> int:
    """What the journal says is there is there, at its size; returns how many sources that are."""
    entries = earlier_entries(out)
    for entry in entries:
        assert entry.files
        for name, size in entry.files.items():
            assert (out / name).stat().st_size == size
    return len(entries)


def mask_count(out: Path) -> int:
    return sum(len(list((out / kind).glob("*.png"))) for kind in ("masks", "probabilities"))


def masks(out: Path) -> dict[str, bytes]:
    return {f"{kind}/{p.name}": p.read_bytes() for kind in ("masks", "probabilities") for p in (out / kind).iterdir()}


@pytest.mark.parametrize(("seconds", "kills_wanted"), [(0.004, KILLS), (0.0, KILLS // 2)])
def test_killed_runs_leave_whole_files_and_go_on_to_the_same_masks(
    tmp_path: Path, seconds: float, kills_wanted: int
) -> None:
    scans, engine, out = tmp_path / "scans", tmp_path / "engine", tmp_path / "out"
    scans_in(scans)
    brightness_engine(engine)
    (engine / "seconds").write_text(str(seconds))
    with server() as runs:
        assert runs.run(engine, scans, tmp_path / "reference") == 0
        reference = masks(tmp_path / "reference")
        assert len(reference) == 2 * 46

        chance = random.Random(20)
        kills = partial = completed = told = 0
        while kills < kills_wanted:
            code = runs.run(engine, scans, out, kill_at=mask_count(out) + chance.randrange(40))
            told += check_told(out)
            partial += 0 < (check_whole(out) if out.exists() else 0) < len(reference)
            if code == -signal.SIGKILL:
                kills += 1
                continue
            assert code == 0
            assert masks(out) == reference
            completed += 1
            out = tmp_path / f"out-{completed}"
        assert partial >= (3 if seconds else 1), "the kills hit nothing"
        assert told > 0
        assert runs.run(engine, scans, out) == 0
    check_whole(out)
    assert masks(out) == reference
    assert not list(out.rglob(".part-*"))
    table, whole = out / "cases.csv", tmp_path / "reference/cases.csv"
    assert len(table.read_text().splitlines()) == len(whole.read_text().splitlines())


if __name__ == "__main__":
    serve()
