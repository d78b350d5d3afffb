"""Archives for tests of `scale`: a small real engine in a folder, scans of several kinds, and what a run leaves."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image

from gms_rt.artifacts import sha256_file
from gms_rt.engine.manifest import write_manifest
from gms_rt.engine.select import LoadOptions, load
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases, with_series
from gms_rt.infer.dicom_seg import seg_available
from gms_rt.scale.worker import WorkerSetup
from support.dicom_files import series
from support.infer_runs import blob
from support.native_graphs import mean_graph
from support.trees import ROOT, plain_manifest

SIZE = 32
HOOKS = ROOT / "tests/support/hooks"
OPTIONS = InferOptions(dicom_seg=seg_available())
LOAD = LoadOptions(device="cpu", mode="throughput", trial="never", threads=1)


def mean_engine(folder: Path) -> Path:
    """An engine folder that OpenVINO runs: a pixel's probability is its brightness."""
    folder.mkdir(parents=True)
    model = mean_graph(folder / "model.onnx", height=SIZE, width=SIZE)
    write_manifest(folder, plain_manifest("mean", SIZE, files={"model.onnx": sha256_file(model)}))
    return folder


def archive(folder: Path, count: int = 12, *, prefix: str = "") -> Path:
    """Pictures in two folders, a DICOM series, and a file that is none."""
    for index in range(count):
        path = folder / ("ab"[index % 2]) / f"{prefix}{index:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(blob(50 + index % 7, 60)).save(path)
    series(
        folder / "ct", np.stack([blob(40, 40).astype(np.int16)] * 3), SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2"
    )
    (folder / "b/empty.png").write_bytes(b"")
    return folder


def setup(engine: Path, out: Path, **changes: Any) -> WorkerSetup:
    return WorkerSetup(**({"engine": str(engine), "out": str(out), "options": OPTIONS, "load": LOAD} | changes))


def plain_run(engine: Path, scans: Path, out: Path) -> Path:
    """What `infer` makes of the same scans on its own."""
    found = with_series(find_sources([str(scans)]))
    with OutFolder(out) as held, load(engine, **LOAD.keywords()) as opened:
        run_cases(found, InferJob(opened, held, OPTIONS, workers=1))
    return out


def results(out: Path) -> dict[str, bytes]:
    """Every file that a person sees, but for what tells of the run itself; DICOM objects without their times."""
    skipped = ("run.json", "summary.json", "cases.csv", "cases.parquet")
    files = (path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(out)): _content(path) for path in files if path.name not in skipped}


def _content(path: Path) -> bytes:
    if path.suffix != ".dcm":
        return path.read_bytes()
    made = pydicom.dcmread(path)
    for name in (
        "InstanceCreationDate",
        "InstanceCreationTime",
        "SeriesDate",
        "SeriesTime",
        "ContentDate",
        "ContentTime",
    ):
        made[name].value = ""
    for equipment in made.ContributingEquipmentSequence:
        if "ContributionDateTime" in equipment:
            del equipment.ContributionDateTime
    return made.to_json().encode()


def table(out: Path) -> list[dict[str, str]]:
    """cases.csv without the seconds."""
    with (out / "cases.csv").open(newline="", encoding="utf-8") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]
