"""A folder in which scans keep arriving: whole files only, across restarts, one run at a time."""

from __future__ import annotations

import csv
import importlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.clock import Clock
from support.dicom_files import series
from support.infer_engine import BrightnessRunner, brightness_engine

from gms_rt.infer import InferJob, InferOptions, OutFolder, watch
from gms_rt.infer.dicom_seg import seg_available
from gms_rt.infer.summary import Summary

SETTLE = 2.0


def picture(path: Path, shade: int = 200) -> Path:
    image = np.full((40, 40), 10, np.uint8)
    image[10:20, 10:20] = shade
    Image.fromarray(image).save(path)
    return path


class Watching:
    """A watch in a thread, stopped on leaving."""

    def __init__(self, folder: Path, engine: Path, out: Path) -> None:
        self.engine = brightness_engine(engine)
        self.out = out
        self.cases: list[str] = []
        self.summary: Summary | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(folder,))

    def _run(self, folder: Path) -> None:
        with OutFolder(self.out) as held:
            job = InferJob(
                self.engine, held, InferOptions(), on_case=lambda case, rows: self.cases.append(case.source.name)
            )
            self.summary = watch(folder, job, stop=self._stop, poll=0.01, settle=SETTLE)

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def calls(self) -> int:
        runner = self.engine.runner
        assert isinstance(runner, BrightnessRunner)
        return runner.images


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The watch's clock: it stands still while a test writes, so that no file ever rests by chance."""
    clock = Clock(today=time.time())
    monkeypatch.setattr(importlib.import_module("gms_rt.infer.watch"), "time", clock)
    return clock


def until(condition: Callable[[], bool], clock: Clock | None = None) -> None:
    """Wait for something; meanwhile the time of `clock` passes."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
        if clock is not None:
            clock.sleep(SETTLE)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def listed(out: Path) -> list[str]:
    return [row["source"] for row in read(out / "cases.csv")] if (out / "cases.csv").exists() else []


def test_what_arrives_is_segmented_once_it_is_whole(tmp_path: Path, clock: Clock) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    os.utime(picture(inbox / "before.png"), (clock.today - 60, clock.today - 60))
    whole = picture(tmp_path / "x.png").read_bytes()
    with Watching(inbox, tmp_path / "engine", out) as watching:
        until(lambda: listed(out) == ["before.png"])  # it had rested before anybody looked
        with (inbox / "slow.png").open("wb") as stream:  # grows for longer than a file may rest
            for start in range(0, len(whole), max(1, len(whole) // 6)):
                stream.write(whole[start : start + max(1, len(whole) // 6)])
                stream.flush()
                looked = clock.reads
                until(lambda looked=looked: clock.reads > looked + 1)  # type: ignore[misc]
                clock.sleep(0.9 * SETTLE)
                assert "slow.png" not in watching.cases
        picture(inbox / "slow.jpg")
        until(lambda: listed(out) == ["before.png", "slow.jpg", "slow.png"], clock)
    assert sorted(p.name for p in (out / "masks").iterdir()) == ["before.png.png", "slow.jpg.png", "slow.png.png"]
    assert watching.summary is not None
    assert watching.summary.failed == 0
    assert json.loads((out / "run.json").read_text())["status"] == "done"


def test_a_file_that_became_whole_later_is_not_counted_as_failed(tmp_path: Path, clock: Clock) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    whole = picture(tmp_path / "x.png").read_bytes()
    (inbox / "slow.png").write_bytes(whole[:60])
    summary = out / "summary.json"

    def counts() -> list[int]:
        value = json.loads(summary.read_text()) if summary.exists() else {}
        return [value.get(key, -1) for key in ("sources", "cases", "failed", "segmented")]

    with Watching(inbox, tmp_path / "engine", out) as watching:
        until(lambda: counts() == [1, 1, 1, 0], clock)
        (inbox / "slow.png").write_bytes(whole)
        until(lambda: counts()[3] == 1, clock)
    assert counts() == [1, 1, 0, 1]
    assert watching.summary is not None
    assert watching.summary.failed == 0


def test_a_restart_repeats_nothing_and_takes_what_changed(tmp_path: Path, clock: Clock) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    inbox.mkdir()
    picture(inbox / "a.png")
    (inbox / "bad.png").write_bytes(b"no picture at all")
    with Watching(inbox, tmp_path / "engine", out) as first:
        until(lambda: len(listed(out)) == 2, clock)
    assert first.calls == 1
    picture(inbox / "new.png")
    with Watching(inbox, tmp_path / "engine", out) as second:
        until(lambda: len(listed(out)) == 3, clock)
        assert second.calls == 1
        before = (out / "masks/a.png.png").read_bytes()
        picture(inbox / "a.png", shade=10)
        until(lambda: (out / "masks/a.png.png").read_bytes() != before, clock)
    assert sorted(listed(out)) == ["a.png", "bad.png", "new.png"]
    assert second.cases.count("bad.png") == 0


def test_a_series_is_taken_whole_and_again_when_a_slice_comes_late(tmp_path: Path, clock: Clock) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    slices = np.full((4, 40, 40), 10, np.uint8)
    slices[:, 10:20, 10:20] = 200
    paths = series(tmp_path / "made", slices)
    inbox.mkdir()
    picture(inbox / "p.png")
    shutil.move(paths[0], inbox)  # alone it is a file like any other

    def stacks() -> list[str]:
        return [row["slices"] for row in read(out / "series.csv")] if (out / "series.csv").exists() else []

    with Watching(inbox, tmp_path / "engine", out) as watching:
        until(lambda: listed(out) == [paths[0].name, "p.png"], clock)
        assert (out / f"masks/{paths[0].name}.png").is_file()
        assert stacks() == []
        for path in paths[2:]:
            shutil.move(path, inbox)
        until(lambda: stacks() == ["3"], clock)
        assert not (out / f"masks/{paths[0].name}.png").exists()
        (case,) = (row["case"] for row in read(out / "series.csv"))
        shutil.move(paths[1], inbox)
        until(lambda: stacks() == ["4"], clock)
        assert [row["case"] for row in read(out / "series.csv")] == [case]
        (inbox / paths[3].name).unlink()  # a slice that is taken back
        until(lambda: stacks() == ["3"], clock)
    assert [row["source"] for row in read(out / "cases.csv")] == ["p.png", *(path.name for path in paths[:3])]
    assert len(list((out / "masks").iterdir())) == 4 - 3 * seg_available()
    calls = watching.calls
    with Watching(inbox, tmp_path / "engine", out) as again:
        until(lambda: json.loads((out / "summary.json").read_text())["sources_done_before"] == 2, clock)
        assert again.calls == 0
    assert calls == 1 + 1 + 3 + 4 + 3
