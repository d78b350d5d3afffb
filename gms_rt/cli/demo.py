"""`gms-rt demo`: the whole way on the bundled model, from graph to engines, masks, latency, proof and a report.

Everything goes into one folder: the engines, the masks of the bundled samples, and the report.
"""

from __future__ import annotations

import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gms_rt.artifacts import check_writable
from gms_rt.cli.console import Console, table
from gms_rt.errors import CasesFailedError, GateError

if TYPE_CHECKING:
    from gms_rt.bench.results import BenchResult
    from gms_rt.infer.summary import Summary
    from gms_rt.report.model import Card

PRECISIONS = ("fp16", "int8")
NOTICE = "The bundled model is a demonstration, trained on synthetic ultrasound phantoms. Not for clinical use."
_SHOWN_SIDE = 440  # pixels of the longer side of a picture in the report


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Output folder.")
@click.option("--seconds", type=click.FloatRange(0.5, 60), default=3.0, show_default=True, help="Timed per engine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
def command(out: Path, seconds: float, as_json: bool, quiet: bool) -> None:
    """Build, segment, time and prove the bundled model.

    Builds it at FP16 and INT8 for this machine, segments the bundled samples, times both engines in turn, certifies
    that their masks equal the PyTorch reference, and writes a report with pictures. Works offline, without torch.

    \b
    Examples:
      gms-rt demo
      gms-rt demo --out /data/demo --json
    """
    start = time.monotonic()
    check_writable(out)
    console = Console(json=as_json, quiet=quiet)
    console.say(NOTICE)
    engines = _build(out / "engines", console)
    summary, scores, cards = _segment(engines[0], out / "segmented", console)
    bench, certificates = _measure_and_prove(engines, seconds, console)
    report = _write_report(out, bench, cards)
    value = _value(out, report, bench, certificates, summary, scores, time.monotonic() - start)
    console.result(value, _screen(value))
    if summary.failed:
        raise CasesFailedError(f"{summary.failed} bundled samples failed", where=out / "segmented/cases.csv")
    if any(certificate["verdict"] != "pass" for certificate in certificates.values()):
        raise GateError("a certificate did not pass", where=report, fix="see its reasons in the report")


def _build(root: Path, console: Console) -> list[Path]:
    from gms_rt.engine.bundled import demo_engine

    folders = []
    for precision in PRECISIONS:
        with console.progress(f"building {precision}", None) as bar:
            folders.append(demo_engine(root, precision=precision, progress=lambda phase, *_, bar=bar: bar.say(phase)))
    return folders


def _segment(engine: Path, out: Path, console: Console) -> tuple[Summary, dict[str, float], list[Card]]:
    """Masks of the bundled samples, their Dice against the phantoms' true masks, and a picture card of each."""
    from gms_rt.engine.select import load
    from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases

    assets = resources.files("gms_rt.demo")
    with resources.as_file(assets / "samples") as samples, resources.as_file(assets / "samples-truth") as truths:
        found = find_sources([str(samples)])
        with (
            load(engine) as opened,
            OutFolder(out) as folder,
            console.progress("segmenting", len(found.sources)) as bar,
        ):
            options = InferOptions(dicom_seg=False)
            summary = run_cases(found, InferJob(opened, folder, options, on_case=lambda *_: bar.advance()))
            scores, cards = {}, []
            for source in found.sources:
                mask = folder.path("masks", source.stem)
                if mask.is_file():  # a failed sample is told of by the exit code
                    scores[source.name], card = _card(source.path, mask, truths / f"{source.path.stem}.png")
                    cards.append(card)
    return summary, scores, cards


def _card(source: Path, mask_file: Path, truth_file: Path) -> tuple[float, Card]:
    from gms_rt import metrics, scan
    from gms_rt.report.assemble import case_card
    from gms_rt.scan.mask import mask_from_levels
    from gms_rt.scan.reader import fetch

    frame = next(iter(fetch(source).open(scan.MAX_PIXELS).frames))
    images = [frame.image, *(_grey(path) for path in (mask_file, truth_file))]
    score = metrics.dice(images[1], images[2])
    height, width = images[0].shape[:2]
    scale = min(1.0, _SHOWN_SIDE / max(height, width))
    small = [scan.resize_image(i, max(1, round(height * scale)), max(1, round(width * scale))) for i in images]
    masks = [mask_from_levels(i) for i in small[1:]]
    subtitle = f"{width}×{height}, {frame.window}"
    return score, case_card(source.name, small[0], masks[0], truth=masks[1], subtitle=subtitle)


def _grey(path: Path) -> Any:
    from gms_rt.scan.reader import fetch

    return next(fetch(path).open().frames).image


def _measure_and_prove(
    engines: list[Path], seconds: float, console: Console
) -> tuple[BenchResult, dict[str, dict[str, Any]]]:
    from gms_rt.bench.latency import TimingOptions, measure
    from gms_rt.parity.certificate import certify

    with console.progress("proving and timing", None) as bar:
        certificates = {folder.name: certify(folder) for folder in engines}
        bench = measure(engines, TimingOptions(seconds=seconds), progress=bar.say)
    return bench, certificates


def _write_report(out: Path, bench: BenchResult, cards: list[Card]) -> Path:
    from gms_rt.report.assemble import bench_report
    from gms_rt.report.model import Command, Gallery
    from gms_rt.report.pictures import difference_legend, overlay_legend
    from gms_rt.report.write import write_report

    gallery = Gallery(
        f"{len(cards)} segmented samples",
        tuple(cards),
        lead="Synthetic phantoms in the formats people have, segmented by the FP16 engine, beside their true masks.",
        legend=(*overlay_legend(), *difference_legend()),
        prominent=True,
    )
    report = bench_report(
        bench,
        title=f"gms-rt demonstration on {bench.device}",
        lead="Built, run, timed and proven on this machine, from the bundled model's graph.",
        galleries=[gallery],
        commands=[
            Command("everything on this page", f"gms-rt demo --out {out}"),
            *(Command(f"the {p} engine", f"gms-rt build --precision {p} --out {out}/engines/demo-{p}")
              for p in PRECISIONS),
            Command("the masks", f"gms-rt infer folder/ --engine {out}/engines/demo-{PRECISIONS[0]}"),
            *(Command(f"the {p} certificate", f"gms-rt parity {out}/engines/demo-{p}") for p in PRECISIONS),
        ],
        notes=[NOTICE],
    )  # fmt: skip
    write_report(report, out / "report.html")
    write_report(report, out / "report.json")
    return out / "report.html"


def _value(
    out: Path,
    report: Path,
    bench: BenchResult,
    certificates: dict[str, dict[str, Any]],
    summary: Summary,
    scores: dict[str, float],
    seconds: float,
) -> dict[str, Any]:
    engines = []
    for measured in bench.measured:
        certificate = certificates[measured.name]
        engines.append(
            {
                "name": measured.name,
                "folder": measured.source,
                "precision": measured.precision,
                "execution": measured.execution,
                "median_ms": round(measured.total.median, 3),
                "p99_ms": round(measured.total.p99, 3),
                "images_per_second": round(measured.throughput, 2),
                "parity_mean": round(certificate["summary"]["mean"], 5),
                "parity_min": round(certificate["summary"]["min"], 5),
                "verdict": certificate["verdict"],
            }
        )
    return {
        "notice": NOTICE,
        "device": bench.device,
        "engines": engines,
        "samples": {
            "segmented": summary.cases - summary.failed,
            "failed": summary.failed,
            "mean_dice_to_truth": round(sum(scores.values()) / len(scores), 4) if scores else None,
            "folder": str(out / "segmented"),
        },
        "report": str(report),
        "seconds": round(seconds, 1),
    }


def _screen(value: dict[str, Any]) -> str:
    rows = [
        [
            e["name"],
            e["execution"],
            f"{e['median_ms']:.1f}",
            f"{e['p99_ms']:.1f}",
            f"{e['images_per_second']:.1f}",
            f"{e['parity_mean']:.4f}",
            f"{e['parity_min']:.4f}",
            e["verdict"],
        ]
        for e in value["engines"]
    ]
    header = ["engine", "runs as", "median ms", "p99 ms", "images/s", "parity mean", "lowest", "certificate"]
    samples = value["samples"]
    lines = [
        "",
        table(rows, header=header),
        "",
        f"parity  Dice of the engine's masks to the PyTorch FP32 masks, on {value['device']}",
        f"masks   {samples['segmented']} samples in {samples['folder']}, "
        f"mean Dice {samples['mean_dice_to_truth'] or 0:.3f} to the phantoms' true masks",
        f"report  {value['report']}",
        f"took    {value['seconds']:.0f} s",
        "",
        "Next: gms-rt build --precision fp16 && gms-rt infer folder/",
    ]
    return "\n".join(lines)
