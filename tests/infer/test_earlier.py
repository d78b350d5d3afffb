"""Results of other scans are never deleted unasked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.infer_engine import brightness_engine

from gms_rt.engine.loaded import Engine
from gms_rt.errors import UsageError
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return brightness_engine(tmp_path / "engine")


def scans(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.full((20, 20), 200, np.uint8)).save(folder / f"{name}.png")
    return folder


def segment(
    engine: Engine, out: Path, *inputs: Path, resume: bool = False, replace: bool = False, threshold: float = 0.5
) -> list[str]:
    with OutFolder(out) as folder:
        job = InferJob(engine, folder, InferOptions(threshold=threshold), workers=1)
        run_cases(find_sources([str(path) for path in inputs]), job, resume=resume, replace=replace)
    return masks(out)


def masks(out: Path) -> list[str]:
    return sorted(path.stem for path in (out / "masks").iterdir())


@pytest.mark.parametrize("resume", [False, True])
def test_results_of_another_root_are_kept(resume: bool, engine: Engine, tmp_path: Path) -> None:
    one, other, out = scans(tmp_path / "A/scans", "x", "y"), scans(tmp_path / "B/scans", "x", "z"), tmp_path / "out"
    assert segment(engine, out, one) == ["x", "y"]
    table = (out / "cases.csv").read_bytes()
    with pytest.raises(UsageError, match=r"holds the results of .*A/scans; choose another .*--out, or add --replace"):
        segment(engine, out, other, resume=resume)
    assert masks(out) == ["x", "y"]
    assert (out / "cases.csv").read_bytes() == table
    assert json.loads((out / "run.json").read_text())["root"] == str(one)
    assert segment(engine, out, other, resume=resume, replace=True) == ["x", "z"]


def test_the_same_inputs_may_be_replaced_with_any_engine_and_options(engine: Engine, tmp_path: Path) -> None:
    one, out = scans(tmp_path / "scans", "x", "y"), tmp_path / "out"
    segment(engine, out, one)
    (one / "y.png").unlink()
    other = brightness_engine(tmp_path / "other")
    assert segment(other, out, one, threshold=0.6) == ["x"]
    (tmp_path / "link").symlink_to(one)
    assert segment(other, out, tmp_path / "link") == ["x"]


def test_other_inputs_below_the_same_root_delete_nothing(engine: Engine, tmp_path: Path) -> None:
    one, out = scans(tmp_path / "scans", "x", "y"), tmp_path / "out"
    segment(engine, out, one / "x.png")
    with pytest.raises(UsageError, match=r"holds results of 1 scans .*first: x\.png"):
        segment(engine, out, one / "y.png")
    # Going on keeps what is there; more inputs make it again.
    assert segment(engine, out, one / "y.png", resume=True) == ["x", "y"]
    assert segment(engine, out, one) == ["x", "y"]
    with pytest.raises(UsageError, match="among these inputs"):
        segment(engine, out, one / "y.png", resume=True, threshold=0.6)
    assert segment(engine, out, one / "y.png", replace=True) == ["y"]


def test_a_folder_without_results_is_free(engine: Engine, tmp_path: Path) -> None:
    one, other, out = scans(tmp_path / "A", "x"), scans(tmp_path / "B", "z"), tmp_path / "out"
    segment(engine, out, one)
    for name in (".gms-rt-journal.jsonl", "masks/x.png", "overlays/x.jpg", "contours/x.json"):
        (out / name).unlink()
    assert segment(engine, out, other) == ["z"]
