"""`gms-rt infer`: files and folders of scans to masks, overlays, contours, DICOM SEG and a table."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import cv2

from gms_rt.cli.console import Console, Progress
from gms_rt.cli.trust_options import trust_options
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import newest_engines
from gms_rt.engine.select import ENGINES, LoadOptions, load
from gms_rt.errors import CasesFailedError, MissingExtraError, UsageError
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases, watch
from gms_rt.infer.case import ScanCase
from gms_rt.infer.confidence import DEFINITION
from gms_rt.infer.dicom_seg import seg_available
from gms_rt.infer.flips import FLIPS
from gms_rt.infer.measure import CaseRow
from gms_rt.infer.options import BIDS, FOLDERS, LAYOUTS
from gms_rt.infer.sources import FoundSources
from gms_rt.infer.summary import Summary
from gms_rt.runtime.device import parse_device
from gms_rt.scan import MAX_PIXELS

OUT = Path("gms-rt-out")

_EPILOG = f"""\b
Examples:
  gms-rt infer scans/                          the newest engine that fits, results in gms-rt-out/scans/
  gms-rt infer scans/ --continue               go on where an interrupted run stopped
  gms-rt infer a.dcm b.png --engine engines/busi-int8 --out results/
  gms-rt infer slide.tif --tile 224            a large image, tile by tile
  gms-rt infer clip.mp4 --overlay-video        masks of a video, and the video with them drawn in
  gms-rt infer --watch inbox/                  segment what arrives, until Ctrl-C
  gms-rt infer sub-*/anat/*_T1w.nii.gz --layout bids --out derivatives/gms-rt
  find . -name '*.dcm' -print0 | gms-rt infer -

Confidence: {DEFINITION}

\b
Exit codes:
  0  done
  1  failed (engine or disk)
  2  wrong usage, or another run holds the output folder
  3  on this device or runtime the engine's masks miss the gate of its certificate
  4  the engine does not fit this device
  5  some cases failed, the rest are written
"""


@click.command("infer", epilog=_EPILOG)
@click.argument("inputs", nargs=-1)
@click.option(
    "--engine", type=click.Path(), help="Engine folder  [default: the newest in engines/ that fits this device]."
)
@click.option("--out", type=click.Path(), help="Output folder  [default: gms-rt-out/ and the name of the input].")
@click.option("--device", help="Device to run on: cpu, cuda or cuda:N  [default: a GPU if the engine fits one].")
@trust_options
@click.option(
    "--threshold", type=float, default=0.5, show_default=True, help="Lowest probability that counts as foreground."
)
@click.option("--tta", is_flag=True, help="Average over flips of each image, up to four times the work.")
@click.option(
    "--flips",
    type=click.Choice(list(FLIPS)),
    help="Flips that --tta averages over; horizontal where up and down differ, as in ultrasound  [default: both].",
)
@click.option(
    "--tile", type=int, default=0, help="Segment large images in tiles of this many pixels  [default: whole images]."
)
@click.option(
    "--overlap", type=float, default=0.25, show_default=True, help="Share of a tile that overlaps its neighbours."
)
@click.option("--largest", is_flag=True, help="Keep only the largest region of each mask.")
@click.option("--fill-holes", is_flag=True, help="Fill holes inside regions of the mask.")
@click.option("--min-area", type=int, default=0, help="Remove regions with fewer pixels than this.")
@click.option("--refer-below", type=float, help="List cases with a confidence below this for a person to look at.")
@click.option(
    "--overlay/--no-overlay", default=True, show_default=True, help="Write each image with its mask drawn over it."
)
@click.option(
    "--contours/--no-contours",
    default=True,
    show_default=True,
    help="Write the outlines of each mask as polygons in JSON.",
)
@click.option(
    "--probability", is_flag=True, help="Write each probability map as PNG, 0-255; with NIfTI also as NIfTI, 0-1."
)
@click.option(
    "--dicom-seg/--no-dicom-seg",
    default=None,
    help="Write DICOM SEG for DICOM input  [default: if highdicom is installed].",
)
@click.option(
    "--nifti/--no-nifti",
    default=None,
    help="Write masks as NIfTI, with --probability also probabilities  [default: for NIfTI input].",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=FOLDERS,
    show_default=True,
    help="How masks of volumes are named: a folder for each kind of file, or a BIDS derivative.",
)
@click.option(
    "--overlay-video", is_flag=True, help="Write an MP4 with the masks drawn in, for videos and multi-frame files."
)
@click.option(
    "--continue", "resume", is_flag=True, help="Skip sources that an earlier run finished and that have not changed."
)
@click.option(
    "--watch", "watched", type=click.Path(), help="Segment what is in this folder and what arrives there, until Ctrl-C."
)
@click.option(
    "--settle",
    type=float,
    default=2.0,
    show_default=True,
    help="Seconds for which a file must not change before --watch takes it.",
)
@click.option(
    "--max-pixels",
    type=int,
    default=MAX_PIXELS,
    show_default=True,
    help="Refuse images with more pixels than this before reading them.",
)
@click.option(
    "--workers",
    type=int,
    default=0,
    help="Threads that read scans, and as many that write files  [default: one per core, at most 4].",
)
@click.option("--threads", type=int, default=0, help="CPU threads of the engine  [default: all cores].")
@click.option("--quiet", is_flag=True, help="Print only results and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON on stdout, one object per line.")
def command(
    inputs: tuple[str, ...],
    engine: str | None,
    out: str | None,
    device: str | None,
    resume: bool,
    watched: str | None,
    settle: float,
    workers: int,
    threads: int,
    quiet: bool,
    as_json: bool,
    dicom_seg: bool | None,
    trust_plans: bool,
    trust_device: bool,
    **making: Any,
) -> int:
    """Segment files and folders. Not for clinical use.

    INPUTS are images (PNG, JPEG, TIFF, BMP, WebP), DICOM, NIfTI and video files, folders (searched through), globs,
    text files that list any of these, or - for a list on standard input. Masks, overlays, contours and DICOM SEG keep
    the sources' folders and names; cases.csv has a line for every case; summary.json and run.json say what was done.

    \b
    gms-rt infer scans/
    """
    console = Console(json=as_json, quiet=quiet)
    parse_device(device)
    if workers < 0 or threads < 0:
        raise UsageError("a number of threads cannot be negative", where="--workers, --threads")
    if dicom_seg and not seg_available():
        raise MissingExtraError("writing DICOM SEG", "dicom-seg")
    if (making["nifti"] or making["layout"] == BIDS) and importlib.util.find_spec("nibabel") is None:
        raise MissingExtraError("writing NIfTI", "nifti")
    options = _options(making, seg_available() if dicom_seg is None else dicom_seg)
    hint = dicom_seg is None and not seg_available()
    watched_folder = None if watched is None else _check_watched(Path(watched), inputs)
    found = find_sources(inputs) if watched_folder is None else FoundSources([], watched_folder.resolve(), 0)
    if watched_folder is None and not found.sources:
        raise UsageError(f"has no scans ({found.skipped} other files)", where=found.root)
    target = Path(out) if out else OUT / _name(inputs, found)
    how = LoadOptions(
        device=device, threads=threads, mode="throughput", trust_plans=trust_plans, trust_device=trust_device
    )
    with _tuned(), OutFolder(target) as held, _opened(console, engine, how) as opened:
        _announce(console, opened, target, None if watched_folder else found)
        job = InferJob(opened, held, options, workers)
        if watched_folder is not None:
            return _watch(console, watched_folder, job, settle, hint)
        return _run(console, found, job, resume, hint)


def _options(making: dict[str, Any], dicom_seg: bool) -> InferOptions:
    names = {"overlay": "overlays", "probability": "probabilities"}
    return InferOptions(dicom_seg=dicom_seg, **{names.get(key, key): value for key, value in making.items()})


def _check_watched(folder: Path, inputs: tuple[str, ...]) -> Path:
    if inputs:
        raise UsageError("--watch takes one folder and no other inputs", where=inputs[0])
    if not folder.is_dir():
        raise UsageError("is not a folder", where=folder)
    return folder


def _name(inputs: tuple[str, ...], found: FoundSources) -> str:
    if len(inputs) == 1 and inputs[0].lower().endswith(".txt"):
        return Path(inputs[0]).stem
    return found.root.name or "root"


@contextmanager
def _opened(console: Console, engine: str | None, how: LoadOptions) -> Iterator[Engine]:
    """The engine asked for, the newest that fits, or the bundled demo's, built now."""
    path = engine
    if path is None and not newest_engines(ENGINES):
        from gms_rt.engine.build import build_engine
        from gms_rt.engine.request import BuildRequest

        console.note(f"there is no engine in {ENGINES}/: building the bundled demo model (FP16)")
        console.note("the demo model is for demonstration only: it was not made for your scans")
        path = str(build_engine(BuildRequest(out=ENGINES / "demo-fp16")).folder)
    with load(path, **how.keywords()) as opened:
        yield opened


def _announce(console: Console, engine: Engine, target: Path, found: FoundSources | None) -> None:
    info = engine.runner.info
    console.say(f"engine: {engine.folder} ({engine.manifest.precision}, runs as {info.execution} on {info.device})")
    console.say(f"results: {target}")
    if found is not None:
        skipped = f", {found.skipped} other files skipped" if found.skipped else ""
        console.say(f"sources: {len(found.sources)} below {found.root}{skipped}")
    if console.json:
        _event(
            "start",
            engine=str(engine.folder),
            device=info.device,
            notice=engine.notice,
            execution=info.execution,
            out=str(target),
            sources=None if found is None else len(found.sources),
        )


def _run(console: Console, found: FoundSources, job: InferJob, resume: bool, hint: bool) -> int:
    try:
        with console.progress("segmenting", len(found.sources)) as bar:
            job = dataclasses.replace(job, on_case=_reporter(console, bar, hint))
            summary = run_cases(found, job, resume=resume)
    except KeyboardInterrupt:
        click.echo("gms-rt: interrupted; add --continue to go on from here", err=True)
        return 130
    return _end(console, summary, job.out)


def _watch(console: Console, folder: Path, job: InferJob, settle: float, hint: bool) -> int:
    stop = threading.Event()
    with _stopped_by_signals(stop):
        console.say(f"watching {folder}; Ctrl-C ends it")
        with console.progress("segmented", None) as bar:
            job = dataclasses.replace(job, on_case=_reporter(console, bar, hint))
            summary = watch(folder, job, stop=stop, poll=min(1.0, max(0.05, settle / 2)), settle=settle)
        return _end(console, summary, job.out)


def _reporter(console: Console, bar: Progress, hint: bool) -> Callable[[ScanCase, list[CaseRow]], None]:
    pending = [hint]

    def report(case: ScanCase, rows: list[CaseRow]) -> None:
        if pending[0] and case.kind == "dicom":
            pending[0] = False
            console.note("DICOM SEG is not written: pip install 'gms-rt[dicom-seg]'")
        failed = [row for row in rows if row["status"] == "failed"]
        if console.json:
            for row in rows:
                _event("case", done_before=case.reused, **row)
        bar.advance(1, f"{len(rows)} frames" if case.multi and len(rows) > 1 else None)
        if failed and not console.json:
            bar.say("some failed")

    return report


def _end(console: Console, summary: Summary, folder: OutFolder) -> int:
    if console.json:
        _event("end", **summary.value())
    elif console.quiet:
        click.echo(str(folder.root))
    else:
        click.echo(summary.screen(str(folder.root)))
    if summary.failed:
        raise CasesFailedError(
            f"{summary.failed} of {summary.cases} cases failed, the rest are written",
            where=folder.root / "cases.csv",
        )
    return 0


def _event(kind: str, **values: Any) -> None:
    click.echo(json.dumps({"event": kind, **values}, ensure_ascii=True, allow_nan=False))


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and a service manager's request end a watch after what is in flight."""
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _tuned() -> Iterator[None]:
    """The process as a run wants it. Readers warn about every oddity of a file; what matters stands in cases.csv."""
    # The pipeline's own threads decode and write; OpenCV's own would only wait for the same cores.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    level = os.environ.get("OPENCV_FFMPEG_LOGLEVEL")
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = level or "-8"
    with warnings.catch_warnings():
        for module in ("PIL", "pydicom", "highdicom", "nibabel"):
            warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
        try:
            yield
        finally:
            cv2.setNumThreads(threads)
            if level is None:
                del os.environ["OPENCV_FFMPEG_LOGLEVEL"]
