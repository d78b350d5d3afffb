"""cases.csv while a run goes on: whole lines, in order, also where the disk is full."""

from __future__ import annotations

import csv
import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.infer_engine import brightness_engine

from gms_rt.errors import GmsError
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer.measure import COLUMNS
from gms_rt.infer.tables import GrowingTable


def read(path: Path) -> list[list[str]]:
    text = path.read_text()
    assert text.endswith("\n")
    rows = list(csv.reader(text.splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert {len(row) for row in rows} == {len(COLUMNS)}
    return rows[1:]


def test_the_table_has_each_case_as_soon_as_it_is_done(tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for index in range(20):
        Image.fromarray(np.full((20, 20), 12 * index, np.uint8)).save(scans / f"{index:02}.png")
    seen = []

    def on_case(case: Any, rows: Any) -> None:
        seen.append([row[0] for row in read(out / "cases.csv")])

    with OutFolder(out) as folder:
        job = InferJob(brightness_engine(tmp_path / "engine"), folder, InferOptions(), on_case=on_case)
        run_cases(find_sources([str(scans)]), job)
    names = [f"{index:02}" for index in range(20)]
    assert len(seen) == 20
    for count, rows in enumerate(seen, 1):  # cases that were done together are in the table together
        assert rows == names[: max(count, len(rows))]


def test_a_new_table_takes_the_place_of_the_old_one_with_its_head(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("old\n")
    with GrowingTable(path, COLUMNS):
        assert read(path) == []


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "cases.csv", os.write
    room = [3000]

    def full(file: int, data: Any) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[: room[0]]
        room[0] -= len(part)
        return write(file, part)

    with GrowingTable(path, COLUMNS) as table:
        table.add([{"case": "first", "status": "ok"}])
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(GmsError, match="No space left"):
            table.add({"case": f"{index:09}", "status": "ok"} for index in range(100))
    assert room == [0]
    assert [row[0] for row in read(path)] == ["first"]
