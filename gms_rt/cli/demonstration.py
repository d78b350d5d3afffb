"""The demo's flow: build the bundled model and its student, segment, prove and time the engines, write the report."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt import metrics, scan
from gms_rt.bench.latency import TimingOptions, measure
from gms_rt.bench.results import BenchResult
from gms_rt.cli.unseen_phantoms import UnseenScore, unseen_gallery, unseen_scores
from gms_rt.demo.bundled import SAMPLE_SCANS, Sample, edge_graph, samples
from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.engine.targets import default_targets
from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.infer.summary import Summary
from gms_rt.parity.certificate import certify
from gms_rt.precision.int8_probe import cpu_runs_int8
from gms_rt.report.assemble import bench_report, case_card
from gms_rt.report.model import Card, Command, Gallery, Report
from gms_rt.report.pictures import difference_legend, overlay_legend
from gms_rt.report.write import write_report
from gms_rt.runtime.device import probe
from gms_rt.scan.mask import mask_from_levels
from gms_rt.scan.reader import fetch

DEMO_PRECISIONS = ("fp16", "int8")
NOTICE = "The bundled model is a demonstration, trained on synthetic ultrasound phantoms. Not for clinical use."
_SHOWN_SIDE = 440  # pixels of the longer side of a picture in the report


@dataclass(frozen=True)
class Demonstration:
    """What came out of it."""

    bench: BenchResult
    certificates: dict[str, dict[str, Any]]  # by engine
    unseen: dict[str, UnseenScore]  # by engine: phantoms that nothing was trained on
    summary: Summary  # of the segmented samples
    mean_dice: float | None  # of the samples' masks to their true masks; None where all failed
    masks: Path  # the folder of the masks
    report: Path  # the HTML report; its JSON stands next to it
    left_out: str  # which precision was not built, and why; empty where all were


def demonstrate(out: Path, build: BuildRequest, seconds: float, say: Callable[[str], None]) -> Demonstration:
    """Do it all below `out`, built as `build` says but for folder and precision.

    `seconds` are timed per engine, `say` hears what is being done.
    """
    precisions, left_out = _precisions()
    requests = [
        dataclasses.replace(build, out=out / "engines" / f"demo-{precision}", precision=precision)
        for precision in precisions
    ]
    edge = out / "engines" / "demo-edge-fp16"
    requests.append(dataclasses.replace(build, source=edge_graph(), out=edge, precision="fp16"))
    engines = [_build(request, say) for request in requests]
    summary, scores, cards = _segment(engines[0], out / "segmented", say)
    say("certifying")
    certificates = {engine.name: certify(engine) for engine in engines}
    bench = measure(engines, TimingOptions(seconds=seconds), progress=say)
    say("segmenting unseen phantoms")
    unseen = unseen_scores(engines)
    report = out / "report.html"
    galleries = [unseen_gallery(unseen, bench), _samples_gallery(cards)]
    for place in (report, report.with_suffix(".json")):
        write_report(_report(out, bench, galleries, requests, left_out), place)
    mean = sum(scores) / len(scores) if scores else None
    return Demonstration(bench, certificates, unseen, summary, mean, out / "segmented", report, left_out)


def _precisions() -> tuple[tuple[str, ...], str]:
    """What is built here, and what is not and why."""
    if cpu_runs_int8() or (probe().gpus and "cpu" not in default_targets("int8")):
        return DEMO_PRECISIONS, ""
    return DEMO_PRECISIONS[:1], f"INT8 was left out: OpenVINO runs no convolution in INT8 on {probe().cpu.name}."


def _build(request: BuildRequest, say: Callable[[str], None]) -> Path:
    say(f"building {request.folder.name}")
    return build_engine(request, lambda phase, *_: say(f"building {request.folder.name}: {phase}")).folder


def _segment(engine: Path, out: Path, say: Callable[[str], None]) -> tuple[Summary, list[float], list[Card]]:
    """Masks of the bundled samples, their Dice to the phantoms' true masks, and a picture card of each."""
    found = find_sources([str(SAMPLE_SCANS)])
    scores, cards = [], []
    with load(engine) as opened, OutFolder(out) as folder:
        number = itertools.count(1)

        def on_case(*_: object) -> None:
            say(f"segmenting {next(number)}/{len(found.sources)}")

        summary = run_cases(
            found, InferJob(opened, folder, InferOptions(dicom_seg=False), on_case=on_case), replace=True
        )
        masks = {source.name: folder.path("masks", source.stem) for source in found.sources}
    for sample in samples():
        mask = masks[sample.scan.name]
        if mask.is_file():  # a failed sample is told of by the exit code
            score, card = _card(sample, mask)
            scores.append(score)
            cards.append(card)
    return summary, scores, cards


def _card(sample: Sample, mask: Path) -> tuple[float, Card]:
    frames = [next(fetch(path).open().frames) for path in (sample.scan, mask, sample.truth)]
    image, found, truth = (frame.image for frame in frames)
    height, width = image.shape[:2]
    scale = min(1.0, _SHOWN_SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small, *shown = (scan.resize_image(pixels, *size) for pixels in (image, found, truth))
    found_small, truth_small = map(mask_from_levels, shown)
    subtitle = f"{width}×{height}, {frames[0].window}"
    return metrics.dice(found, truth), case_card(
        sample.scan.name, small, found_small, truth=truth_small, subtitle=subtitle
    )


def _samples_gallery(cards: list[Card]) -> Gallery:
    return Gallery(
        f"{len(cards)} segmented samples",
        tuple(cards),
        lead="Synthetic phantoms in the formats people have, segmented by the FP16 engine, next to their true masks.",
        legend=(*overlay_legend(), *difference_legend()),
        prominent=True,
    )


def _report(
    out: Path, bench: BenchResult, galleries: list[Gallery], built: list[BuildRequest], left_out: str
) -> Report:
    given = (("--calib-images", built[0].calibration_limit), ("--gate-images", built[0].gate_limit))
    limits = "".join(f" {option} {number}" for option, number in given if number)
    return bench_report(
        bench,
        title=f"gms-rt demonstration on {bench.device}",
        lead="Built, run, timed and proven on this machine, from the graphs of the bundled model and its edge student.",
        galleries=galleries,
        commands=[
            Command("everything on this page", f"gms-rt demo --out {out}{limits}"),
            *(Command(f"the engine {request.folder.name}", request.command) for request in built),
            Command("the masks", f"gms-rt infer folder/ --engine {built[0].folder}"),
            *(Command(f"the certificate of {r.folder.name}", f"gms-rt parity {r.folder}") for r in built),
        ],
        notes=[NOTICE, *([left_out] if left_out else [])],
    )  # fmt: skip
