"""`gms-rt build`: an engine folder from a run, a graph or the bundled model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gms_rt.artifacts import sha256_file
from gms_rt.cli.console import Console
from gms_rt.cli.engine_text import build_screen
from gms_rt.engine.manifest import is_engine, read_manifest
from gms_rt.errors import GmsError, MissingExtraError, UsageError
from gms_rt.model.size import run_size
from gms_rt.precision import PRECISIONS, TARGETS

if TYPE_CHECKING:
    from gms_rt.precision.images import ImageSet

_EXAMPLES = """\b
Examples:
  gms-rt build --precision fp16                          the bundled model, for this machine
  gms-rt build busi.onnx --precision fp16 --out engines/busi
  gms-rt build runs/busi --precision int8 --calib data/busi/images
  gms-rt build busi.onnx --precision int8 --calib calib.txt --gate-data test/ --gate-min 0.9
  gms-rt build busi.onnx --target cpu,tensorrt-rtx --sm 80,86,89"""

_LIMIT_CALIBRATION, _LIMIT_GATE = 64, 100


@dataclass(frozen=True)
class _Options:
    """The command's options, as given."""

    precision: str
    targets: tuple[str, ...]
    sms: tuple[int, ...]
    calib: Path | None
    gate_data: Path | None
    gate_mean: float
    gate_min: float
    calibrator: str
    recipe: Path | None
    size: str | None
    batch: int | None
    out: Path | None
    force: bool


@click.command("build", epilog=_EXAMPLES)
@click.argument("source", metavar="[RUN|GRAPH]", type=click.Path(path_type=Path), required=False)
@click.option("--precision", type=click.Choice(PRECISIONS), default="fp16", show_default=True, help="Of the engine.")
@click.option("--target", "target_list", multiple=True, metavar="LIST", help="cpu, tensorrt, tensorrt-rtx; repeatable "
              "or separated by commas  [default: what this machine has]")  # fmt: skip
@click.option("--sm", "sm_list", multiple=True, metavar="LIST", help="Compute capabilities for tensorrt-rtx: 80,86,89.")
@click.option("--calib", type=click.Path(path_type=Path), help="Calibration images: a folder, or a text file of paths.")
@click.option("--gate-data", type=click.Path(path_type=Path), help="Images the masks are compared on  [default: those "
              "of --calib that calibration does not use]")  # fmt: skip
@click.option("--gate-mean", type=click.FloatRange(0, 1), default=0.99, show_default=True, help="Least mean Dice to "
              "the FP32 masks.")  # fmt: skip
@click.option("--gate-min", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="Least Dice of one.")
@click.option("--calibrator", default="auto", show_default=True, metavar="NAME", help="minmax, percentile[:99.99], "
              "entropy, mse; auto tries several.")  # fmt: skip
@click.option("--recipe", type=click.Path(path_type=Path), help="Apply a precision.json (or an engine's) instead of "
              "calibrating and searching.")  # fmt: skip
@click.option("--size", help="Of a run's graph: 224 or 256x320  [default: as the run was trained]")
@click.option("--batch", type=click.IntRange(1, 1024), help="Images at once  [default: the graph's, else 1]")
@click.option("--out", type=click.Path(path_type=Path), help="Engine folder  [default: engines/NAME-PRECISION]")
@click.option("--force", is_flag=True, help="Build even if the same engine is already there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
def command(source: Path | None, target_list: tuple[str, ...], sm_list: tuple[str, ...], **given: Any) -> None:
    """Build an engine folder; without RUN or GRAPH that of the bundled model.

    The precision is written into the graph, the graph is compiled for each target, what was really built is counted,
    and the masks are compared with those of FP32. If INT8 costs too much Dice, the blocks that hurt most go back to
    the higher precision until the gate holds. Exit code 3 if nothing holds it.
    """
    from gms_rt.engine.tensorrt import sms_from

    console = Console(json=given.pop("as_json"), quiet=given.pop("quiet"))
    targets = tuple(t for text in target_list for t in text.replace(" ", "").split(",") if t)
    for target in targets:
        if target not in TARGETS:
            raise UsageError(f"unknown target '{target}'", where="--target", fix=f"use {', '.join(TARGETS)}")
    options = _Options(targets=targets, sms=sms_from(sm_list), **given)
    start = time.monotonic()
    unchanged = False

    with console.progress("building", None) as bar:

        def report(phase: str, done: int, total: int) -> None:
            nonlocal unchanged
            unchanged = unchanged or phase == "unchanged"
            bar.say(f"{phase} {done}/{total}" if total > 1 else phase)

        folder = _bundled(options, report) if source is None else _own(source, options, report, console)
        bar.say("certificate")
        certificate = _certified(folder, unchanged)
    manifest = read_manifest(folder)
    value = {
        "engine": str(folder),
        "unchanged": unchanged,
        "seconds": round(time.monotonic() - start, 2),
        "certificate": certificate,
        "manifest": dataclasses.asdict(manifest),
    }
    console.result(value, build_screen(folder, manifest, value))


def _bundled(options: _Options, report: Callable[[str, int, int], None]) -> Path:
    from gms_rt.engine.bundled import demo_engine

    for name, value in (("--size", options.size), ("--batch", options.batch), ("--recipe", options.recipe)):
        if value is not None:
            raise UsageError("is fixed for the bundled model", where=name, fix="leave it out, or give RUN or GRAPH")
    return demo_engine(
        precision=options.precision,
        targets=options.targets or None,
        sms=options.sms,
        out=options.out,
        force=options.force,
        progress=report,
    )


def _own(source: Path, options: _Options, report: Callable[[str, int, int], None], console: Console) -> Path:
    from gms_rt.engine.build import engine_from_graph
    from gms_rt.engine.bundled import default_targets
    from gms_rt.graph.read import graph_size
    from gms_rt.precision.gate import Gate
    from gms_rt.precision.recipe import read_recipe

    graph, about = _graph(source, options, report)
    out = options.out or Path("engines") / f"{source.resolve().stem}-{options.precision}"
    calibration, gate_images = _images(graph, options, console, *graph_size(graph))
    engine_from_graph(
        graph,
        out,
        precision=options.precision,
        targets=options.targets or default_targets(options.precision),
        sms=options.sms,
        calibration=calibration,
        gate_images=gate_images,
        gate=Gate(options.gate_mean, options.gate_min),
        calibrator=options.calibrator,
        recipe=read_recipe(options.recipe) if options.recipe is not None else None,
        batch=options.batch,
        source=about,
        rebuild=_rebuild(source, out, options),
        force=options.force,
        progress=report,
    )
    return out


def _graph(source: Path, options: _Options, report: Callable[[str, int, int], None]) -> tuple[Path, dict[str, Any]]:
    """The fused graph of a source, exported first where the source is a run."""
    if source.is_file():
        if options.size is not None:
            raise UsageError("a graph has its size already", where="--size", fix="export it again with that size")
        return source, {"kind": "graph"}
    if is_engine(source):
        raise UsageError("is an engine already", where=source, fix="give the run or graph it was built from")
    if not source.is_dir():
        raise UsageError("does not exist", where=source, fix="give a run folder or a graph (.onnx)")
    height, width = run_size(source, options.size or None)
    graph = source / f"fused-{height}x{width}.onnx"
    weights = source / "lmm.safetensors"
    about = {"kind": "run", "run": source.resolve().name}
    if graph.is_file() and weights.is_file() and _exported_from(graph) == sha256_file(weights):
        return graph, about
    try:
        from gms_rt.export.fuse import ExportOptions, graph_from_run
    except ImportError as error:
        raise MissingExtraError("building from a run", "train") from error
    report("export", 0, 1)
    return graph_from_run(source, graph, ExportOptions(height, width)), about


def _exported_from(graph: Path) -> str | None:
    """The hash of the weights that a graph was exported from, as it says itself."""
    import json

    import onnx

    try:
        model = onnx.load(graph, load_external_data=False)
        texts = [p.value for p in model.metadata_props if p.key == "gms_rt.source"]
        value = json.loads(texts[0]).get("sha256") if texts else None
    except Exception:  # damaged in whatever way: it is exported again
        return None
    return value if isinstance(value, str) else None


def _images(
    graph: Path, options: _Options, console: Console, height: int, width: int
) -> tuple[ImageSet | None, ImageSet | None]:
    """Calibration and gate images: those given, else the graph's own reference pictures, never the same twice."""
    from gms_rt.precision.images import ImageSet, halves, read_images

    if options.calib is not None:
        limit = _LIMIT_CALIBRATION if options.gate_data is not None else _LIMIT_CALIBRATION + _LIMIT_GATE
        calibration = read_images(options.calib, height, width, limit=limit)
        if options.gate_data is None:
            return halves(calibration)
        skip = frozenset(calibration.each_sha256())
        return calibration, read_images(options.gate_data, height, width, limit=_LIMIT_GATE, skip=skip)
    gate = read_images(options.gate_data, height, width, limit=_LIMIT_GATE) if options.gate_data else None
    if options.precision in ("fp32", "bf16"):
        return None, gate
    if options.recipe is not None:
        return None, gate
    if options.precision == "int8":
        raise UsageError(
            "INT8 is calibrated on images like those it will see",
            where="--precision int8",
            fix="give a folder of them with --calib",
        )
    golden = graph.with_suffix(".golden.npz")
    if golden.is_file():
        from gms_rt.parity.golden import read_golden

        first, rest = halves(ImageSet(read_golden(golden).images, "the graph's reference pictures"))
        return first, gate or rest
    from gms_rt.engine.bundled import CALIBRATION_SEEDS, GATE_SEEDS, phantoms

    console.note("no --calib: ranges are taken from phantoms")
    return phantoms(CALIBRATION_SEEDS, height, width), gate or phantoms(GATE_SEEDS, height, width)


def _rebuild(source: Path, out: Path, options: _Options) -> str:
    import shlex

    words = ["gms-rt", "build", str(source), "--precision", options.precision]
    for name, value in (
        ("--target", ",".join(options.targets)),
        ("--sm", ",".join(map(str, options.sms))),
        ("--calib", options.calib),
        ("--gate-data", options.gate_data),
        ("--recipe", options.recipe),
        ("--size", options.size),
        ("--batch", options.batch),
    ):
        words += [name, str(value)] if value else []
    if (options.gate_mean, options.gate_min) != (0.99, 0.95):
        words += ["--gate-mean", str(options.gate_mean), "--gate-min", str(options.gate_min)]
    if options.calibrator != "auto":
        words += ["--calibrator", options.calibrator]
    return shlex.join([*words, "--out", str(out)])


def _certified(folder: Path, unchanged: bool) -> dict[str, Any]:
    """The certificate's verdict, or why there is none; a build does not fail for want of a device to certify on."""
    from gms_rt.artifacts import read_json
    from gms_rt.engine.manifest import CERTIFICATE, GOLDEN
    from gms_rt.parity.certificate import certify

    if not (folder / GOLDEN).is_file():
        return {"verdict": None, "reason": "the graph came without reference masks"}
    if unchanged and (folder / CERTIFICATE).is_file():
        found = read_json(folder / CERTIFICATE)
    else:
        try:
            found = certify(folder)
        except GmsError as error:
            return {"verdict": None, "reason": error.line()}
    return {"verdict": found.get("verdict"), "summary": found.get("summary"), "reasons": found.get("reasons")}
