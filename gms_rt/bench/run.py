"""The whole bench as one call: time, judge, trace and compare with limits, and make the report of it."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.artifacts import write_json
from gms_rt.bench import latency
from gms_rt.bench.latency import default_images, labels, measure
from gms_rt.bench.results import BenchResult, Measured, SweepPoint, Waterfall
from gms_rt.bench.roofline import roofline
from gms_rt.bench.sweep import sweep
from gms_rt.bench.waterfall import waterfall
from gms_rt.demo.bundled import demo_graph
from gms_rt.engine.manifest import read_manifest
from gms_rt.engine.select import load
from gms_rt.errors import ArtifactError, GmsError, UsageError
from gms_rt.parity.certificate import CERTIFICATE, GOLDEN, Golden, certificate_of, read_golden
from gms_rt.peers.client import TORCH, Peer, open_peers, with_dice
from gms_rt.report.assemble import bench_report, golden_gallery, parity_beside, parity_of_certificate, summary_of
from gms_rt.report.model import Command, Gallery, Parity, Report

_WORST = 4
_CEILING_SECONDS = 0.6


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how long."""

    engines: tuple[Path, ...]
    against: tuple[str, ...] = ()
    run: Path | None = None
    graph: Path | None = None  # what the ONNX Runtime peer opens; by default an engine's own graph
    image: Path | None = None
    device: str | None = None
    seconds: float = latency.SECONDS
    warmup: float = latency.WARMUP
    rounds: int = latency.ROUNDS
    threads: int = 0
    streams: int = 1
    sweep: bool = True
    certify: bool = True
    title: str = ""


def bench(options: BenchOptions, progress: Callable[[str], None] | None = None) -> Report:
    """Measure engines and peers, and report."""
    say = progress or (lambda _: None)
    golden = _golden(options.engines)
    images = golden.images if golden else default_images(options.engines)
    with contextlib.ExitStack() as stack:
        lost: list[str] = []
        graph = options.graph or _graph(options.engines)
        first = read_manifest(options.engines[0]) if options.engines else None
        peers = open_peers(
            list(options.against),
            stack,
            run=options.run or _bundled_run(options.engines),
            graph=graph,
            threads=options.threads,
            device=options.device,
            size=(first.height, first.width) if first else (224, 224),
            lost=lost,
            progress=say,
        )
        result = measure(
            options.engines,
            seconds=options.seconds,
            warmup=options.warmup,
            device=options.device,
            rounds=options.rounds,
            threads=options.threads,
            lanes=options.streams,
            images=images,
            peers=peers,
            progress=say,
        )
        result = _judged(dataclasses.replace(result, warnings=(*lost, *result.warnings)), peers, golden)
    proofs, galleries, falls = [], [], []
    for measured in [m for m in result.measured if m.kind == "engine"]:
        say(f"parity and waterfall of {measured.name}")
        proof, gallery, fall = _engine_parts(measured, options, images)
        proofs.append(proof)
        galleries += [gallery] if gallery else []
        falls.append(fall)
    points: tuple[SweepPoint, ...] = ()
    why = "not asked for"
    if options.sweep:
        points, why = sweep(
            options.engines,
            images,
            device=options.device,
            threads=options.threads,
            seconds=max(0.3, options.seconds / 4),
            progress=say,
        )
    say("ceilings of this machine")
    result = dataclasses.replace(
        result,
        waterfalls=tuple(falls),
        sweep=points,
        sweep_why=why,
        roofline=roofline(result.measured, seconds=min(_CEILING_SECONDS, options.seconds / 4)),
    )
    result = _with_work(result)
    return bench_report(
        result,
        title=options.title,
        lead=_lead(result, proofs),
        parity=proofs,
        galleries=galleries,
        commands=_commands(options),
    )


def _engine_parts(measured: Measured, options: BenchOptions, images: Any) -> tuple[Parity, Gallery | None, Waterfall]:
    folder = Path(measured.source)
    with load(folder, device=options.device, threads=options.threads) as engine:
        info = engine.runner.info
        fall = waterfall(
            engine, measured.name, options.image, latency.fit_images(images[:1], info.height, info.width)[0]
        )
        proof = parity_beside(measured)
        if not (folder / GOLDEN).is_file():
            return proof, None, fall
        golden = read_golden(folder / GOLDEN)
        if options.certify and proof.verdict in ("none", "stale"):
            certificate = certificate_of(engine, golden)
            # A folder on a read-only medium is no reason not to measure; the proof is in the report.
            with contextlib.suppress(UsageError):
                write_json(folder / CERTIFICATE, certificate)
            proof = parity_of_certificate(measured.name, certificate, measured)
        gallery = golden_gallery(measured.name, golden, engine.runner.infer(golden.images), limit=_WORST)
    return proof, gallery, fall


def _judged(result: BenchResult, peers: list[Peer], golden: Golden | None) -> BenchResult:
    by_label = {p.label: p for p in peers}
    rows = []
    for m in result.measured:
        peer = by_label.get(m.name) if m.kind == "peer" else None
        same = peer is not None and (m.name in TORCH or m.name == "onnxruntime")
        try:
            rows.append(with_dice(m, peer, golden, same_model=same) if peer else m)
        except GmsError as error:  # it was timed; that it breaks down now must not cost the engines their report
            rows.append(dataclasses.replace(m, warnings=(*m.warnings, f"its masks could not be judged: {error.what}")))
    return dataclasses.replace(result, measured=tuple(rows))


def _with_work(result: BenchResult) -> BenchResult:
    """FLOP and parameters of each engine and ONNX peer, from their graphs."""
    from gms_rt.graph.count import work_from_file

    rows = []
    for m in result.measured:
        path = Path(m.source)
        if m.kind == "engine":
            path = path / read_manifest(path).model
        if path.suffix == ".onnx":
            try:
                work = work_from_file(path, batch=m.batch)
                m = dataclasses.replace(m, flop=work.flop or None, parameters=work.parameters)
            except ArtifactError:
                pass  # a foreign graph that cannot be counted is still a peer
        rows.append(m)
    return dataclasses.replace(result, measured=tuple(rows))


def _golden(engines: tuple[Path, ...]) -> Golden | None:
    for folder in engines:
        if (folder / GOLDEN).is_file():
            return read_golden(folder / GOLDEN)
    return None


def _graph(engines: tuple[Path, ...]) -> Path | None:
    """The graph for ONNX Runtime: an FP32 engine's where there is one."""
    manifests = [(read_manifest(folder), folder) for folder in engines]
    ordered = sorted(manifests, key=lambda pair: pair[0].precision != "fp32")
    return ordered[0][1] / ordered[0][0].model if ordered else None


def _bundled_run(engines: tuple[Path, ...]) -> Path | None:
    """The run of the bundled model, where that is what all engines were built from."""
    if engines and all(read_manifest(folder).source.get("kind") == "bundled" for folder in engines):
        return demo_graph().parent
    return None


def _lead(result: BenchResult, proofs: list[Parity]) -> str:
    engines = [m for m in result.measured if m.kind == "engine"]
    peers = [m for m in result.measured if m.kind == "peer"]
    many = "engine" if len(engines) == 1 else "engines"
    against = f", timed turn by turn with {', '.join(p.name for p in peers)}" if peers else ""
    return f"{summary_of(result, proofs)} {len(engines)} {many} measured{against}."


def _commands(options: BenchOptions) -> list[Command]:
    lines = []
    for folder in options.engines:
        with contextlib.suppress(GmsError):
            lines.append(Command(f"Build {folder.name}", read_manifest(folder).rebuild))
    words = ["gms-rt", "bench"]
    for folder in options.engines:
        words += ["--engine", str(folder)]
    words += ["--against", ",".join(options.against)] if options.against else []
    for name, value in (
        ("--run", options.run),
        ("--graph", options.graph),
        ("--image", options.image),
        ("--device", options.device),
    ):
        words += [name, str(value)] if value is not None else []
    words += ["--seconds", f"{options.seconds:g}", "--warmup", f"{options.warmup:g}", "--rounds", str(options.rounds)]
    words += ["--threads", str(options.threads)] if options.threads else []
    words += ["--streams", str(options.streams)] if options.streams != 1 else []
    words += [] if options.sweep else ["--no-sweep"]
    lines.append(Command("Measure and report", shlex.join(words)))
    lines += [Command(f"Certify {f.name}", shlex.join(["gms-rt", "parity", str(f)])) for f in options.engines]
    return lines


def report_folder(engines: tuple[Path, ...], device: str) -> Path:
    """Where a report goes unless told: `reports/<engine>-<device>/`."""
    return Path("reports") / f"{'+'.join(labels([str(e) for e in engines])).replace('/', '-')[:80]}-{device}"
