"""`gms-rt infer`: files and folders of scans to masks, overlays, contours, DICOM SEG and a table."""

from __future__ import annotations

import dataclasses
import importlib.util
import threading
from pathlib import Path
from typing import Any

import click

from gms_rt.cli.console import Console
from gms_rt.cli.infer_options import infer_options, options_from_flags
from gms_rt.cli.infer_report import announce, case_reporter, end_run, frame_reporter
from gms_rt.engine.loaded import Engine
from gms_rt.engine.manifest import newest_engines
from gms_rt.engine.select import ENGINES, LoadOptions, load
from gms_rt.errors import MissingExtraError, UsageError
from gms_rt.infer import InferJob, OutFolder, find_sources, run_cases, watch, with_series
from gms_rt.infer.confidence import DEFINITION
from gms_rt.infer.dicom_seg import seg_available
from gms_rt.infer.options import BIDS
from gms_rt.infer.outputs import check_place
from gms_rt.infer.sources import FoundSources
from gms_rt.infer.tuning import tuned_process
from gms_rt.interrupts import INTERRUPTS, handle_signals
from gms_rt.runtime.device import parse_device
from gms_rt.runtime.options import GraphUse

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
@infer_options
def command(
    inputs: tuple[str, ...],
    engine: str | None,
    out: str | None,
    device: str | None,
    resume: bool,
    replace: bool,
    series: bool,
    watched: str | None,
    settle: float,
    workers: int,
    threads: int,
    quiet: bool,
    as_json: bool,
    dicom_seg: bool | None,
    trust_plans: bool,
    trust_device: bool,
    cuda_graph: GraphUse,
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
    if (dicom_seg or making["dicom_fractional"] or making["dicom_report"]) and not seg_available():
        raise MissingExtraError("writing DICOM SEG", "dicom-seg")
    if (making["nifti"] or making["layout"] == BIDS) and importlib.util.find_spec("nibabel") is None:
        raise MissingExtraError("writing NIfTI", "nifti")
    options = options_from_flags(making, dicom_seg=seg_available() if dicom_seg is None else dicom_seg)
    if options.deidentify and (options.overlays or options.overlay_video):
        console.note("overlays show the images: text that is burned into them, such as names, stays")
    hint = dicom_seg is None and not seg_available()
    watched_folder = None if watched is None else _check_watched(Path(watched), inputs)
    resolved = watched_folder and FoundSources([], watched_folder.resolve(), 0)
    found = resolved or _found(console, inputs, series)
    target = Path(out) if out else OUT / ("deidentified" if options.deidentify else _name(inputs, found))
    check_place(target, found)
    how = LoadOptions(
        device=device,
        threads=threads,
        mode="throughput",
        trust_plans=trust_plans,
        trust_device=trust_device,
        cuda_graph=cuda_graph,
    )
    with tuned_process(), OutFolder(target) as held, open_engine(console, engine, how) as opened:
        announce(console, opened, target, None if watched_folder else found, deidentify=options.deidentify)
        job = InferJob(opened, held, options, workers)
        if watched_folder is not None:
            settings = {"settle": settle, "poll": min(1.0, max(0.05, settle / 2)), "series": series, "replace": replace}
            return _watch(console, watched_folder, job, hint, settings)
        return _run(console, found, job, hint, resume=resume, replace=replace)


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


def open_engine(console: Console, engine: str | None, how: LoadOptions) -> Engine:
    """The engine asked for, the newest that fits, or the bundled demo's, built now."""
    path = engine
    if path is None and not newest_engines(ENGINES):
        from gms_rt.engine.build import build_engine
        from gms_rt.engine.request import BuildRequest

        console.note(f"there is no engine in {ENGINES}/: building the bundled demo model (FP16)")
        console.note("the demo model is for demonstration only: it was not made for your scans")
        path = str(build_engine(BuildRequest(out=ENGINES / "demo-fp16")).folder)
    return load(path, **how.keywords())


def _found(console: Console, inputs: tuple[str, ...], series: bool) -> FoundSources:
    found = find_sources(inputs)
    if not found.sources:
        raise UsageError(f"has no scans ({found.skipped} other files)", where=found.root)
    if not series:
        return found
    with tuned_process(), console.progress("looking for series", None) as bar:
        return with_series(found, lambda phase, done, total: bar.advance(1, phase))


def _run(console: Console, found: FoundSources, job: InferJob, hint: bool, *, resume: bool, replace: bool) -> int:
    try:
        with console.progress("segmenting", len(found.sources)) as bar:
            job = dataclasses.replace(job, on_case=case_reporter(console, bar, hint), on_frame=frame_reporter(bar))
            summary = run_cases(found, job, resume=resume, replace=replace)
    except KeyboardInterrupt:
        click.echo("gms-rt: interrupted; add --continue to go on from here", err=True)
        return 130
    return end_run(console, summary, job.out)


def _watch(console: Console, folder: Path, job: InferJob, hint: bool, settings: dict[str, Any]) -> int:
    stop = threading.Event()

    def end(*_: object) -> None:
        """The first request ends it after what is in flight, another at once."""
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    with handle_signals(INTERRUPTS, end):
        console.say(f"watching {folder}; Ctrl-C ends it")
        with console.progress("segmented", None) as bar:
            job = dataclasses.replace(job, on_case=case_reporter(console, bar, hint), on_frame=frame_reporter(bar))
            summary = watch(folder, job, stop=stop, **settings)
        return end_run(console, summary, job.out)
