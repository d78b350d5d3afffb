"""`gms-rt scale`: archives, on many workers of one machine or of a cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import IO, Any

import click

from gms_rt.cli.console import Console, Progress
from gms_rt.cli.infer_options import archive_options, options_from_flags
from gms_rt.cli.trust_options import trust_options
from gms_rt.engine.select import LoadOptions
from gms_rt.errors import CasesFailedError, MissingExtraError, UsageError
from gms_rt.infer import OutFolder
from gms_rt.infer.dicom_seg import seg_available
from gms_rt.infer.outputs import check_place
from gms_rt.infer.tuning import tuned_process
from gms_rt.runtime.device import parse_device
from gms_rt.scale.chunk import ChunkResult
from gms_rt.scale.places import Archive, find_archive
from gms_rt.scale.processes import ProcessBackend
from gms_rt.scale.run import ScaleJob, scale_cases
from gms_rt.scale.worker import WorkerSetup

_EPILOG = """\b
Examples:
  gms-rt scale infer archive/ --engine engines/ct --out masks/ --workers 8
  gms-rt scale infer archive/ --engine engines/ct --out masks/ --continue
  gms-rt scale infer /nfs/ct --engine /nfs/engines/ct --out /nfs/masks --backend ray --address auto
  gms-rt scale infer s3://hospital/ct --engine engines/ct --out masks/ --readers 16

\b
Exit codes:
  0  done
  1  failed (engine, disk, or workers that cannot start)
  2  wrong usage, or another run holds the output folder
  3  on this device or runtime the engine's masks miss the gate of its certificate
  4  the engine does not fit a worker's device
  5  some cases failed, the rest are written
  130  interrupted; --continue goes on from there
"""


@click.group("scale")
def command() -> None:
    """Segment an archive with many workers or a cluster. Not for clinical use.

    \b
    Examples:
      gms-rt scale infer archive/ --engine engines/ct --out masks/ --workers 8
      gms-rt scale infer /nfs/ct --engine /nfs/engines/ct --out /nfs/masks --backend ray --address auto
    """


@command.command("infer", epilog=_EPILOG)
@click.argument("source")
@click.option("--engine", required=True, type=click.Path(), help="Engine folder, at the same place for all workers.")
@click.option("--out", required=True, type=click.Path(), help="Output folder, at the same place for all workers.")
@click.option(
    "--backend",
    type=click.Choice(["processes", "ray"]),
    default="processes",
    show_default=True,
    help="Workers as processes of this machine, or as actors of a Ray cluster.",
)
@click.option(
    "--address",
    help="Of --backend ray: auto for the cluster that this machine belongs to, ray://HOST:PORT for another  [default: "
    "a cluster of this machine alone, for this run].",
)
@click.option("--workers", type=int, default=0, help="Workers, each with an engine  [default: one per two cores].")
@click.option(
    "--gpus-per-worker",
    type=float,
    default=0.0,
    help="Share of a GPU for each worker, 0.5 for two workers per GPU  [default: none, workers use the CPU].",
)
@click.option(
    "--readers", type=int, default=0, help="Threads of each worker that read scans  [default: as infer; 8 for a URL]."
)
@click.option(
    "--retries",
    type=int,
    default=3,
    show_default=True,
    help="Times that scans are given out again after an error of an engine or a disk.",
)
@trust_options
@archive_options
@click.option("--quiet", is_flag=True, help="Print only results and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON on stdout, one object per line.")
def infer_command(
    source: str,
    engine: str,
    out: str,
    backend: str,
    address: str | None,
    workers: int,
    gpus_per_worker: float,
    readers: int,
    retries: int,
    trust_plans: bool,
    trust_device: bool,
    resume: bool,
    replace: bool,
    series: bool,
    quiet: bool,
    as_json: bool,
    dicom_seg: bool | None,
    **making: Any,
) -> int:
    """Segment an archive as `gms-rt infer` does, with many workers. Not for clinical use.

    SOURCE is a folder, file, glob or list as `gms-rt infer` takes them, or a URL of a file system that fsspec knows
    (s3://bucket/folder). Masks and tables are those of `gms-rt infer`; cases.parquet holds the rows of cases.csv with
    types, where pyarrow is installed. A worker that dies is replaced; a scan that ends its worker fails, and the others
    go on. Ended in any way, the run goes on with --continue.
    """
    console = Console(json=as_json, quiet=quiet)
    if min(workers, readers, retries) < 0 or gpus_per_worker < 0:
        raise UsageError("cannot be negative", where="--workers, --readers, --retries, --gpus-per-worker")
    if address is not None and backend != "ray":
        raise UsageError("belongs to --backend ray", where="--address")
    if (dicom_seg or making["dicom_fractional"] or making["dicom_report"]) and not seg_available():
        raise MissingExtraError("writing DICOM SEG", "dicom-seg")
    if making["nifti"] and importlib.util.find_spec("nibabel") is None:
        raise MissingExtraError("writing NIfTI", "nifti")
    options = options_from_flags(making, dicom_seg=seg_available() if dicom_seg is None else dicom_seg)
    archive = _found(console, source, series)
    target = Path(out).absolute()
    check_place(target, archive.found)
    device = "cuda" if gpus_per_worker else "cpu"
    parse_device(device)
    setup = WorkerSetup(
        engine=str(Path(engine).absolute()),
        out=str(target),
        options=options,
        load=LoadOptions(device=device, mode="throughput", trust_plans=trust_plans, trust_device=trust_device),
        url=archive.url,
        readers=readers,
    )
    events = sys.stdout
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(OutFolder(target))
        who: Any
        if backend == "ray":
            from gms_rt.scale.ray_data import RayBackend

            stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray prints what its nodes say
            who = stack.enter_context(RayBackend(setup, workers, gpus_per_worker, address))
        else:
            who = stack.enter_context(ProcessBackend(setup, workers, gpus_per_worker))
        with console.progress("segmenting", len(archive.found.sources)) as bar:
            reporter = _Reporter(console, bar, out, events)
            job = ScaleJob(held, options.refer_below, resume, replace, retries, reporter.start, reporter.chunk)
            try:
                value = scale_cases(archive, job, who)
            except KeyboardInterrupt:
                click.echo("gms-rt: interrupted; add --continue to go on from here", err=True)
                return 130
    return _end(console, value, out)


def _found(console: Console, source: str, series: bool) -> Archive:
    with tuned_process(), console.progress("looking for scans", None) as bar:
        return find_archive(source, series=series, on_progress=lambda phase, done, total: bar.advance(1, phase))


class _Reporter:
    """What is told while a run goes on."""

    def __init__(self, console: Console, bar: Progress, out: str, events: IO[str]) -> None:
        self._console, self._bar, self._out = console, bar, out
        self._events = events
        self._failed = 0

    def start(self, sources: int, reused: int, facts: dict[str, Any]) -> None:
        """The first worker is ready."""
        device = facts["record"]["device"]
        engine = facts["record"]["engine"]
        self._console.say(f"engine: {engine['folder']} (runs as {device['execution']} on {device['device']})")
        self._console.say(f"results: {self._out}")
        self._console.say(f"sources: {sources}" + (f", {reused} of them done before" if reused else ""))
        if facts["notice"]:
            self._console.note(facts["notice"])
        if self._console.json:
            values = {"engine": engine["folder"], "device": device["device"], "execution": device["execution"]}
            _event(self._events, "start", **values, out=self._out, sources=sources, done_before=reused)
        self._bar.advance(reused)

    def chunk(self, result: ChunkResult, done: int, total: int) -> None:
        """Some sources are done."""
        rows = [row for entry in result.entries for row in entry.rows]
        self._failed += sum(row["status"] == "failed" for row in rows)
        self._bar.advance(len(result.entries), f"{self._failed} failed" if self._failed else None)
        if self._console.json:
            counts = {"sources": len(result.entries), "cases": len(rows), "done": done, "total": total}
            _event(self._events, "chunk", **counts, worker=result.worker)


def _end(console: Console, value: dict[str, Any], out: str) -> int:
    screen = value.pop("screen")
    if console.json:
        _event(sys.stdout, "end", **value)
    else:
        click.echo(out if console.quiet else screen)
    if value["failed"]:
        raise CasesFailedError(
            f"{value['failed']} of {value['cases']} cases failed, the rest are written", where=Path(out) / "cases.csv"
        )
    return 0


def _event(stream: IO[str], kind: str, **values: Any) -> None:
    click.echo(json.dumps({"event": kind, **values}, ensure_ascii=True, allow_nan=False), file=stream)
