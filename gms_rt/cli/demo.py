"""`gms-rt demo`: the whole way on the bundled model, from graph to engines, masks, latency, proof and a report.

Everything goes into one folder: the engines, the masks of the bundled samples, and the report.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gms_rt.artifacts import check_writable
from gms_rt.cli.console import Console, table
from gms_rt.errors import CasesFailedError, GateError

if TYPE_CHECKING:
    from gms_rt.cli.demonstration import Demonstration


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Output folder.")
@click.option(
    "--seconds", type=click.FloatRange(0.5, 60), default=3.0, show_default=True, help="Timed seconds per engine."
)
@click.option("--calib-images", type=click.IntRange(min=1), metavar="N", help="As in gms-rt build: take ranges from at "
              "most N images.")  # fmt: skip
@click.option("--gate-images", type=click.IntRange(min=1), metavar="N", help="As in gms-rt build: compare masks on at "
              "most N images.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
def command(
    out: Path, seconds: float, calib_images: int | None, gate_images: int | None, as_json: bool, quiet: bool
) -> None:
    """Build, segment, time and prove the bundled model and its edge student.

    Builds the model at FP16 and INT8 (where this machine computes in INT8) and a small student of it at FP16, segments
    the bundled samples, times the engines in turn, certifies that their masks equal their PyTorch references, compares
    both models on phantoms that neither was trained on, and writes a report with pictures. Works offline, without
    torch.

    \b
    Examples:
      gms-rt demo
      gms-rt demo --out /data/demo --json
      gms-rt demo --calib-images 4 --gate-images 8 --seconds 1     a slow machine
    """
    from gms_rt.cli.demonstration import NOTICE, demonstrate
    from gms_rt.engine.request import BuildRequest

    start = time.monotonic()
    check_writable(out)
    console = Console(json=as_json, quiet=quiet)
    console.say(NOTICE)
    with console.progress("demo", None) as bar:
        build = BuildRequest(calibration_limit=calib_images, gate_limit=gate_images)
        done = demonstrate(out, build, seconds, bar.say)
    value = {"notice": NOTICE, **_value(done), "seconds": round(time.monotonic() - start, 1)}
    text = _screen(value)
    if done.summary.failed:
        words = f"{done.summary.failed} bundled samples failed"
        console.fail(value, text, CasesFailedError(words, where=done.masks / "cases.csv"))
    if any(certificate["verdict"] != "pass" for certificate in done.certificates.values()):
        error = GateError("a certificate did not pass", where=done.report, fix="see its reasons in the report")
        console.fail(value, text, error)
    console.result(value, text)


def _value(done: Demonstration) -> dict[str, Any]:
    engines = []
    for measured in done.bench.measured:
        certificate, unseen = done.certificates[measured.name], done.unseen[measured.name]
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
                "gflop": round(unseen.gflop, 4),
                "unseen_dice_to_truth": round(unseen.truth, 4),
                "unseen_dice_to_teacher": None if unseen.teacher is None else round(unseen.teacher, 4),
            }
        )
    return {
        "device": done.bench.device,
        "engines": engines,
        "samples": {
            "segmented": done.summary.cases - done.summary.failed,
            "failed": done.summary.failed,
            "mean_dice_to_truth": None if done.mean_dice is None else round(done.mean_dice, 4),
            "folder": str(done.masks),
        },
        "unseen_phantoms": next(iter(done.unseen.values())).phantoms,
        "report": str(done.report),
        "left_out": done.left_out,
    }


def _screen(value: dict[str, Any]) -> str:
    rows = [
        [
            e["name"],
            e["execution"],
            f"{e['median_ms']:.2f}",
            f"{e['p99_ms']:.2f}",
            f"{e['images_per_second']:.1f}",
            f"{e['parity_mean']:.4f}",
            f"{e['parity_min']:.4f}",
            e["verdict"],
            f"{e['unseen_dice_to_truth']:.3f}",
            "" if e["unseen_dice_to_teacher"] is None else f"{e['unseen_dice_to_teacher']:.3f}",
        ]
        for e in value["engines"]
    ]
    header = ["engine", "runs as", "median ms", "p99 ms", "images/s", "parity mean", "lowest", "certificate"]
    header += ["to truth", "to teacher"]
    samples, first = value["samples"], value["engines"][0]["name"]
    lines = [
        "",
        table(rows, header=header),
        "",
        f"parity  Dice of an engine's masks to the PyTorch FP32 masks of its own model, on {value['device']}",
        f"to …    mean Dice to the true masks and to the masks of {first}, the teacher of the edge student, on "
        f"{value['unseen_phantoms']} unseen phantoms",
        f"masks   {samples['segmented']} samples in {samples['folder']}, "
        f"mean Dice {samples['mean_dice_to_truth'] or 0:.3f} to the phantoms' true masks",
        *([f"note    {value['left_out']}"] if value["left_out"] else []),
        f"report  {value['report']}",
        f"took    {value['seconds']:.0f} s",
        "",
        "Next: gms-rt build --precision fp16 && gms-rt infer folder/",
    ]
    return "\n".join(lines)
