"""`gms-rt build`: an engine folder from a run, a graph or the bundled model."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gms_rt.cli.console import Console
from gms_rt.cli.engine_text import build_text
from gms_rt.errors import GateError, UsageError
from gms_rt.precision import PRECISIONS
from gms_rt.precision.gate import GATE_FLOOR, GATE_MEAN, GATE_MIN, gate_from_options

if TYPE_CHECKING:
    from gms_rt.engine.budget import BudgetRow
    from gms_rt.engine.fastest import TriedPrecision
    from gms_rt.engine.within_budget import BudgetOutcome

_EXAMPLES = """\b
Examples:
  gms-rt build --precision fp16                          the bundled model, for this machine
  gms-rt build busi.onnx --precision fp16 --out engines/busi
  gms-rt build busi.onnx --precision auto --calib data/busi/images
  gms-rt build runs/busi --budget 30ms --calib data/busi/images
  gms-rt build runs/busi --precision int8 --calib data/busi/images
  gms-rt build busi.onnx --precision int8 --calib calib.txt --gate-data test/ --gate-min 0.9
  gms-rt build busi.onnx --precision int8 --calib train.txt --gate-coverage 0.97 --gate-floor 0.95
  gms-rt build busi.onnx --target cpu,tensorrt-rtx --sm 80,86,89
  gms-rt build hf:OWNER/NAME --precision fp16            a graph shared on the Hugging Face hub
  gms-rt build busi.onnx --classes breast-lesion.toml    name what it segments"""


@click.command("build", epilog=_EXAMPLES)
@click.argument("source", metavar="[RUN|GRAPH]", type=click.Path(path_type=Path), required=False)
@click.option("--precision", type=click.Choice([*PRECISIONS, "auto"]), default="fp16", show_default=True, help="Type "
              "of the engine; auto builds every type and keeps the fastest here that holds the gate.")  # fmt: skip
@click.option("--budget", metavar="TIME", help="Instead of a type: the most faithful engine with a median latency of "
              "at most, say, 30ms here; tries types, a run's smaller sizes and students, threads.")  # fmt: skip
@click.option("--target", "target_list", multiple=True, metavar="LIST", help="What to build for: cpu, tensorrt, "
              "tensorrt-rtx; repeatable or separated by commas  [default: what this machine has]")  # fmt: skip
@click.option("--sm", "sm_list", multiple=True, metavar="LIST", help="Compute capabilities for tensorrt-rtx: 80,86,89.")
@click.option("--calib", "calibration", type=click.Path(path_type=Path), help="Calibration images: a folder, or a text "
              "file of paths.")  # fmt: skip
@click.option("--gate-data", "gate_images", type=click.Path(path_type=Path), help="Images that masks are compared on  "
              "[default: those of --calib that calibration does not use]")  # fmt: skip
@click.option("--calib-images", "calibration_limit", type=click.IntRange(min=1), metavar="N", help="Take ranges from "
              "at most N images: a short build on a slow machine  [default: 64 of a folder, 24 phantoms]")  # fmt: skip
@click.option("--gate-images", "gate_limit", type=click.IntRange(min=1), metavar="N", help="Compare masks on at most N "
              "images; the manifest says how many  [default: 200 of a folder, 64 phantoms]")  # fmt: skip
@click.option("--gate-mean", type=click.FloatRange(0, 1), default=GATE_MEAN, show_default=True, help="Lowest mean Dice "
              "to the FP32 masks allowed.")  # fmt: skip
@click.option("--gate-min", type=click.FloatRange(0, 1), help="Lowest Dice allowed for any gate image  "
              f"[default: {GATE_MIN}; none with --gate-coverage]")  # fmt: skip
@click.option("--gate-coverage", type=click.FloatRange(0.5, 1, max_open=True), metavar="SHARE", help="Share of images "
              "to come that must keep --gate-floor, with 95 % confidence; 0.97 takes 99 gate images.")  # fmt: skip
@click.option("--gate-floor", type=click.FloatRange(0, 1), help="Dice that this share must keep  "
              f"[default: {GATE_FLOOR}]")  # fmt: skip
@click.option("--calibrator", default="auto", show_default=True, metavar="NAME", help="How ranges are clipped: minmax, "
              "percentile[:99.99], entropy, mse; auto tries several.")  # fmt: skip
@click.option("--recipe", type=click.Path(path_type=Path), help="Apply a precision.json (or an engine's) instead of "
              "calibrating and searching.")  # fmt: skip
@click.option("--size", help="Size of a run's graph: 224 or 256x320  [default: as the run was trained]")
@click.option("--batch", type=click.IntRange(1, 1024), help="Images at once  [default: as the graph was exported, 1 if "
              "it takes any number]")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Engine folder  [default: engines/NAME-PRECISION]")
@click.option("--classes", type=click.Path(path_type=Path), help="Names, codes and colours of what the mask shows: "
              "TOML or dcmqi's JSON  [default: as the run or graph says]")  # fmt: skip
@click.option("--force", is_flag=True, help="Build even if the same engine is already there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
def command(target_list: list[str], sm_list: list[str], **given: Any) -> None:
    """Build an engine folder; without RUN or GRAPH that of the bundled model.

    The precision is written into the graph, the graph is compiled for each target, the layers that were really built
    are counted by type, and the masks are compared with those of FP32. If INT8 costs too much Dice, the blocks that
    hurt most go back to the higher precision until the gate is met. Exit code 3 if that is not possible, or if the
    certificate at the end fails. With --budget what is not FP32 must hold the gate too, and another size or a student
    must keep Dice to the truth on the run's validation pictures; exit code 4 if nothing is fast enough here, 3 if what
    is fast enough does not hold.
    """
    from gms_rt.cli.budget_text import budget_lines
    from gms_rt.engine.build import build_engine
    from gms_rt.engine.fastest import AUTO, build_fastest
    from gms_rt.engine.request import BuildRequest
    from gms_rt.engine.targets import sms_from_text
    from gms_rt.engine.within_budget import budget_record, build_within
    from gms_rt.parity.after_build import certify_built
    from gms_rt.parity.certificate import NOTHING_PROVEN

    budget = _budget(given)
    _refuse_unused(given)
    console = Console(json=given.pop("as_json"), quiet=given.pop("quiet"))
    tried: tuple[TriedPrecision, ...] = ()
    rows: tuple[BudgetRow, ...] = ()
    why = ""
    every = given["precision"] == AUTO
    given["precision"] = "fp32" if every else given["precision"]
    request = BuildRequest(
        targets=tuple(target for text in target_list for target in text.replace(" ", "").split(",") if target),
        sms=sms_from_text(sm_list),
        gate=gate_from_options(*(given.pop(f"gate_{name}") for name in ("mean", "min", "coverage", "floor"))),
        **given,
    )
    start = time.monotonic()
    with console.progress("building", None) as bar:

        def say(phase: str, done: int, total: int) -> None:
            bar.say(f"{phase} {done}/{total}" if total > 1 else phase)

        if budget is not None:
            outcome = build_within(request, budget, say)
            rows, why = outcome.rows, outcome.why
            if outcome.built is None:
                bar.say("nothing fits")
                _tell_nothing_fits(console, outcome, budget)
            built = outcome.built
        elif every:
            built, tried = build_fastest(request, say)
        else:
            built = build_engine(request, say)
        bar.say("certificate")
        certificate = certify_built(built)
    value = {
        "engine": str(built.folder),
        "unchanged": built.unchanged,
        "seconds": round(time.monotonic() - start, 2),
        "certificate": certificate,
        "manifest": dataclasses.asdict(built.manifest),
        **({"tried": [dataclasses.asdict(each) for each in tried]} if tried else {}),
        **({} if budget is None else {"budget": budget_record(rows, budget, why)}),
    }
    table = "" if budget is None else "\n".join(budget_lines(rows, budget, why))
    text = table + build_text(built.folder, built.manifest, value)
    if certificate["verdict"] == "fail":
        reasons = certificate["reasons"] or []
        error = GateError(
            f"the engine was built, but its certificate failed: {'; '.join(reasons)}",
            where=built.folder,
            fix="export with --reference and images on which the model finds something"
            if NOTHING_PROVEN in reasons
            else "build with a higher precision, or calibrate on images like those it will see",
        )
        console.fail(value, text, error)
    console.result(value, text)


def _budget(given: dict[str, Any]) -> float | None:
    """The budget in milliseconds, if one was given; it chooses the type itself."""
    from gms_rt.engine.budget import milliseconds_from_text

    text = given.pop("budget")
    if text is None:
        return None
    asked = click.get_current_context().get_parameter_source("precision")
    if asked is not click.core.ParameterSource.DEFAULT:
        raise UsageError("a budget chooses the type", where="--budget", fix="leave --precision out")
    if given["recipe"]:
        raise UsageError("a recipe is for one precision", where="--recipe", fix="leave it or --budget out")
    given["precision"] = "auto"
    return milliseconds_from_text(text)


def _tell_nothing_fits(console: Console, outcome: BudgetOutcome, budget: float) -> NoReturn:
    """The table where no engine is written, and the error."""
    from gms_rt.cli.budget_text import budget_lines
    from gms_rt.engine.budget import nothing_within
    from gms_rt.engine.within_budget import budget_record

    value = {"engine": None, "budget": budget_record(outcome.rows, budget, "")}
    kept = f"what was built stays in {outcome.kept}: another --budget goes on there"
    text = "\n".join([*budget_lines(outcome.rows, budget, ""), kept])
    console.fail(value, text, nothing_within(outcome.rows, budget))


def _refuse_unused(given: dict[str, Any]) -> None:
    """Refuse what a build of this precision would not look at."""
    precision, calibration, gate = given["precision"], given["calibration"], given["gate_images"]
    if precision == "auto" and given["recipe"]:
        raise UsageError("a recipe is for one precision", where="--recipe", fix="name that with --precision")
    if precision == "fp32" and (calibration or gate):
        raise UsageError(
            "FP32 is neither calibrated nor compared: other precisions are compared with it",
            where="--gate-data" if calibration is None else "--calib",
            fix="leave it out, or choose another --precision",
        )
    if precision == "bf16" and calibration and gate:
        raise UsageError("BF16 is not calibrated, and its masks are compared on --gate-data", where="--calib",
                         fix="leave it out")  # fmt: skip
