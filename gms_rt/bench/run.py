"""The whole bench as one call: time engines and peers, judge their masks, trace the way of a file, find the limits."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gms_rt.arrays import U8
from gms_rt.bench.against import PeerOptions, open_peers, with_dice
from gms_rt.bench.fewer_threads import with_thread_hints
from gms_rt.bench.latency import ROUNDS, SECONDS, WARMUP, TimingOptions, measure
from gms_rt.bench.layers import LayerOptions, layers_of_engines
from gms_rt.bench.proof import Proof, proof_from_engine
from gms_rt.bench.results import BenchResult, Measured, SweepPoint, Waterfall
from gms_rt.bench.roofline import roofline
from gms_rt.bench.subjects import default_images, first_golden, fit_images
from gms_rt.bench.sweep import SweepOptions, sweep
from gms_rt.bench.waterfall import waterfall
from gms_rt.demo.bundled import demo_graph
from gms_rt.engine.golden import Golden
from gms_rt.engine.manifest import read_manifest, rebuild_command
from gms_rt.engine.select import LoadOptions, load
from gms_rt.errors import ArtifactError, GmsError
from gms_rt.graph.count import work_from_file
from gms_rt.peers.client import Peer
from gms_rt.runtime.options import GraphUse

_CEILING_SECONDS = 0.6


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how long."""

    engines: tuple[Path, ...]  # engine folders
    against: tuple[str, ...] = ()  # peers by name, or ONNX files
    run: Path | None = None  # the trained run, for torch peers; by default the bundled model's where it fits
    graph: Path | None = None  # what the peers of a runtime open; by default an engine's own graph
    image: Path | None = None  # the file that is followed to its mask; by default an enlarged reference picture
    device: str | None = None  # "cpu" or "cuda[:N]"; by default where each engine fits
    seconds: float = SECONDS  # the timed total of each engine and peer
    warmup: float = WARMUP  # untimed seconds before each round
    rounds: int = ROUNDS  # rounds that take turns
    threads: int = 0  # CPU threads (0: the runtime's choice)
    streams: int = 1  # images in flight
    sweep: bool = True  # whether throughput is measured over streams and batches
    certify: bool = True  # whether an engine without a fitting certificate gets one
    layers: bool | None = None  # whether layers are profiled; by default where an inference does not take long
    trust_plans: bool = False  # whether plans are loaded whoever built them
    trust_device: bool = False  # whether an engine certified on another device is timed without looking at its masks
    cuda_graph: GraphUse = "auto"  # whether plans are replayed as CUDA graphs


@dataclass(frozen=True)
class BenchRun:
    """All that one bench found: `report_from_bench` makes a report of it."""

    options: BenchOptions
    result: BenchResult
    proofs: tuple[Proof, ...]  # of each engine, in the order of the result
    rebuild: tuple[str, ...]  # for each engine folder the command that builds it again


def bench(options: BenchOptions, progress: Callable[[str], None] | None = None) -> BenchRun:
    """Measure engines and peers."""
    say = progress or (lambda _: None)
    golden = first_golden(options.engines)
    images = golden.images if golden else default_images(options.engines)
    timing = TimingOptions(
        options.seconds,
        options.warmup,
        options.rounds,
        options.device,
        options.threads,
        options.streams,
        trust_plans=options.trust_plans,
        trust_device=options.trust_device,
        cuda_graph=options.cuda_graph,
    )
    with contextlib.ExitStack() as stack:
        lost: list[str] = []
        peers = open_peers(options.against, stack, _peer_options(options), lost=lost, progress=say)
        result = measure(options.engines, timing, images=images, peers=peers, progress=say)
        result = _judged(dataclasses.replace(result, warnings=(*lost, *result.warnings)), peers, golden)
    proofs, falls = [], []
    for measured in [m for m in result.measured if m.kind == "engine"]:
        say(f"parity and waterfall of {measured.name}")
        proof, fall = _proof_and_waterfall(measured, options, images)
        proofs.append(proof)
        falls.append(fall)
    points: tuple[SweepPoint, ...] = ()
    why = "not asked for"
    if options.sweep:
        say("fewer threads")
        result = dataclasses.replace(result, measured=with_thread_hints(result.measured, images, timing))
        how = SweepOptions(
            seconds=max(0.3, options.seconds / 4),
            device=options.device,
            threads=options.threads,
            trust_plans=options.trust_plans,
            cuda_graph=options.cuda_graph,
        )
        points, why = sweep(options.engines, images, how, progress=say)
    how_layers = LayerOptions(options.layers, options.device, options.trust_plans)
    layers, layers_why = layers_of_engines(result.measured, images, how_layers, say)
    say("ceilings of this machine")
    result = dataclasses.replace(
        result,
        waterfalls=tuple(falls),
        sweep=points,
        sweep_why=why,
        layers=layers,
        layers_why=layers_why,
        roofline=roofline(result.measured, seconds=min(_CEILING_SECONDS, options.seconds / 4)),
    )
    rebuild = tuple(rebuild_command(folder, read_manifest(folder)) for folder in options.engines)
    return BenchRun(options, _with_work(result), tuple(proofs), rebuild)


def _peer_options(options: BenchOptions) -> PeerOptions:
    run, graph = options.run or _bundled_run(options.engines), options.graph or _graph(options.engines)
    if not options.engines:
        return PeerOptions(run, graph, options.threads, options.device)
    first = read_manifest(options.engines[0])
    return PeerOptions(run, graph, options.threads, options.device, (first.height, first.width))


def _proof_and_waterfall(measured: Measured, options: BenchOptions, images: U8) -> tuple[Proof, Waterfall]:
    how = LoadOptions(
        options.device,
        options.threads,
        trust_plans=options.trust_plans,
        trust_device=True,
        cuda_graph=options.cuda_graph,
    )
    with load(Path(measured.source), **how.keywords()) as engine:
        info = engine.runner.info
        picture = fit_images(images[:1], info.height, info.width)[0]
        fall = waterfall(engine, measured.name, options.image, picture)
        return proof_from_engine(engine, measured, certify=options.certify), fall


def _judged(result: BenchResult, peers: list[Peer], golden: Golden | None) -> BenchResult:
    by_label = {p.label: p for p in peers}
    rows = []
    for m in result.measured:
        peer = by_label.get(m.name) if m.kind == "peer" else None
        try:
            rows.append(with_dice(m, peer, golden) if peer else m)
        except GmsError as error:  # it was timed; that it breaks down now must not cost the engines their report
            rows.append(dataclasses.replace(m, warnings=(*m.warnings, f"its masks could not be judged: {error.what}")))
    return dataclasses.replace(result, measured=tuple(rows))


def _with_work(result: BenchResult) -> BenchResult:
    """FLOP and parameters of each engine and ONNX peer, from their graphs."""
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


def _graph(engines: tuple[Path, ...]) -> Path | None:
    """The graph for other runtimes: an FP32 engine's where there is one."""
    manifests = [(read_manifest(folder), folder) for folder in engines]
    ordered = sorted(manifests, key=lambda pair: pair[0].precision != "fp32")
    return ordered[0][1] / ordered[0][0].model if ordered else None


def _bundled_run(engines: tuple[Path, ...]) -> Path | None:
    """The run of the bundled model, where that is what all engines were built from."""
    if engines and all(read_manifest(folder).source.get("kind") == "bundled" for folder in engines):
        return demo_graph().parent
    return None
