"""`gms-rt bench`: a latency report of one or many engines; `bench compare`: what changed beyond noise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from gms_rt.cli.console import Console, table
from gms_rt.cli.trust_options import graph_option, trust_options
from gms_rt.errors import UsageError

_EXAMPLES = """\b
Examples:
  gms-rt bench                                       the newest engine
  gms-rt bench --engine engines/a --engine engines/b --out report.html
  gms-rt bench --against torch-eager,onnxruntime,openvino --run runs/mine
  gms-rt bench compare old/report.json new/report.json"""


@click.group("bench", invoke_without_command=True, epilog=_EXAMPLES)
@click.option("--engine", "engines", type=click.Path(path_type=Path), multiple=True, help="Engine folder; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="Report folder, or one .html, .json, .md or .csv file.")
@click.option("--against", default="", metavar="LIST", help="torch-eager, torch-channels-last, torch-compile, "
              "onnxruntime, openvino, FILE.onnx or RUNTIME:FILE.onnx, separated by commas.")  # fmt: skip
@click.option("--run", "run_folder", type=click.Path(path_type=Path), help="The trained run, for torch peers.")
@click.option("--graph", type=click.Path(path_type=Path), help="The graph that ONNX Runtime and OpenVINO open.")
@click.option("--image", type=click.Path(path_type=Path), help="The file that is followed to its mask.")
@click.option("--device", help="Device to run on: cpu, cuda or cuda:N.")
@trust_options
@graph_option
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=3.0, show_default=True, help="Timed seconds per engine."
)
@click.option(
    "--warmup", type=click.FloatRange(0, 600), default=0.2, show_default=True, help="Untimed seconds before each round."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=7, show_default=True, help="Rounds that take turns.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="CPU threads (0: the runtime's choice).")
@click.option("--streams", type=click.IntRange(1, 64), default=1, show_default=True, help="Images in flight.")
@click.option("--sweep/--no-sweep", default=True, help="Throughput against latency over streams and batches.")
@click.option("--layers/--no-layers", default=None, help="Profile each engine's layers  [default: where an inference "
              "takes less than 250 ms]")  # fmt: skip
@click.option("--certify/--no-certify", default=True, help="Certify an engine that has no fitting certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quiet", is_flag=True, help="No progress, only the result.")
@click.pass_context
def command(context: click.Context, /, engines: tuple[Path, ...], out: Path | None, against: str, **given: Any) -> None:
    """Measure engines on this machine and write a report.

    Engines and peers are timed in rounds that take turns. Without --engine the newest in engines/ is taken; the
    report goes to reports/<engine>-<device>/.
    """
    if context.invoked_subcommand is not None:
        return
    from gms_rt.bench.run import BenchOptions, bench
    from gms_rt.engine.select import ENGINES, newest_that_fits
    from gms_rt.report.assemble import report_from_bench
    from gms_rt.report.json import json_from_report
    from gms_rt.report.write import default_folder, report_files, write_report
    from gms_rt.runtime.device import probe

    console = Console(json=given.pop("as_json"), quiet=given.pop("quiet"))
    folders = engines or (newest_that_fits(ENGINES, given["device"], trust_plans=given["trust_plans"]),)
    options = BenchOptions(
        engines=folders,
        against=tuple(name.strip() for name in against.split(",") if name.strip()),
        run=given.pop("run_folder"),
        **given,
    )
    target = out or default_folder(folders, probe().name)
    report_files(target)  # a wrong target is refused before any work is done
    with console.progress("bench", None) as progress:
        report = report_from_bench(bench(options, progress.say))
    files = write_report(report, target)
    console.result(json.loads(json_from_report(report)), _screen(report, files))


def _screen(report: Any, files: list[Path]) -> str:
    from gms_rt.report.columns import ANSWER, TIMED, columns_by_key, timed_rows

    name, median, *rest, parity = columns_by_key(TIMED, ANSWER)
    (precision, p90) = columns_by_key(TIMED, ("precision", "latency_p90_ms"))
    columns = [name, precision, median, p90, *rest]
    rows = [[*(c.text(row) for c in columns), parity.whole(row)] for row in timed_rows(report)]
    lines = [table(rows, header=[c.heading for c in [*columns, parity]])]
    lines += [""] * bool(report.bench.layers) + [_layers_line(found) for found in report.bench.layers]
    lines += ["", *(f"! {warning}" for warning in report.warnings)] if report.warnings else []
    return "\n".join([*lines, "", *(f"wrote {file}" for file in files)])


def _layers_line(found: Any) -> str:
    total = found.milliseconds or 1.0
    shares = ", ".join(f"{s.stage} {100 * s.milliseconds / total:.0f} %" for s in found.stages)
    worth = f"; worth a better type: {', '.join(found.worth)}" if found.worth else ""
    return f"{found.engine}: {shares} of the time{worth}"


@command.command("compare")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--tolerance", type=float, default=0.02, show_default=True, help="Relative change that does not matter.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def compare_command(old: Path, new: Path, tolerance: float, as_json: bool) -> int:
    """Tell what became slower beyond noise between two reports (files or folders); exit code 1 if anything did.

    \b
    Example:
      gms-rt bench compare reports/monday/report.json reports/today/report.json
    """
    from gms_rt.bench.compare import compare_benches

    results = [_bench_of(path) for path in (old, new)]
    found = compare_benches(results[0], results[1], tolerance=tolerance)
    rows = [
        [
            c.name,
            f"{c.old_ms:.3f}",
            f"{c.new_ms:.3f}",
            f"{c.ratio:.3f}",
            f"{c.low:.3f}-{c.high:.3f}",
            c.verdict + (f" ({c.why})" if c.why else ""),
        ]
        for c in found.changes
    ]
    lines = [table(rows, header=["engine", "old ms", "new ms", "new/old", "95 % interval", "verdict"])]
    lines += [f"only in the old report: {name}" for name in found.only_old]
    lines += [f"only in the new report: {name}" for name in found.only_new]
    lines += [f"! {doubt}" for doubt in found.doubts]
    value = dataclasses.asdict(found) | {"regressions": len(found.regressions)}
    Console(json=as_json).result(value, "\n".join(lines))
    return 1 if found.regressions else 0


def _bench_of(path: Path) -> Any:
    from gms_rt.report.json import report_from_json

    report = report_from_json(path / "report.json" if path.is_dir() else path)
    if report.bench is None:
        raise UsageError("has no measurement in it", where=path, fix="name a report of gms-rt bench")
    return report.bench
