"""`gms-rt inspect`: what an engine folder contains, in which precision, at what cost, and what of it runs here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from gms_rt.cli.console import Console, table
from gms_rt.cli.engine_text import class_text, execution_text, gate_lines, layer_counts_text, plan_text
from gms_rt.cli.layer_text import layers_text, rows_to_show
from gms_rt.cli.trust_options import plans_option
from gms_rt.engine.manifest import MANIFEST, EngineManifest
from gms_rt.errors import ArtifactError, DeviceError, UsageError, reason_from_error


@click.command("inspect")
@click.argument("engine", type=click.Path(path_type=Path), required=False)
@click.option("--layers", is_flag=True, help="Time each layer on this device and compare what it puts out with FP32's.")
@click.option("--image", type=click.Path(path_type=Path), help="With --layers: the image to run  [default: the first "
              "reference picture]")  # fmt: skip
@click.option("--reference", type=click.Path(path_type=Path), metavar="GRAPH", help="With --layers: compare with this "
              "FP32 graph  [default: the engine's own graph in f32]")  # fmt: skip
@click.option("--device", help="With --layers: cpu, cuda or cuda:N  [default: where the engine runs here]")
@plans_option
@click.option("--all", "every", is_flag=True, help="With --layers: show those below 0.01 ms too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(engine: Path | None, as_json: bool, **about: Any) -> int:
    """Show what an engine folder contains and where it runs (by default the newest in engines/).

    Exit code 4 if nothing in it runs here because a file, such as its model, is missing or was changed.

    \b
    Examples:
      gms-rt inspect
      gms-rt inspect engines/demo-fp16 --json
      gms-rt inspect engines/demo-int8 --layers --image scan.png --reference busi.onnx
    """
    from gms_rt.engine.describe import describe_engine
    from gms_rt.engine.select import ENGINES, newest_that_fits

    layers = about.pop("layers")
    without = next((name for name, value in about.items() if value), None)
    if without is not None and not layers:
        raise UsageError("needs --layers", where="--all" if without == "every" else f"--{without.replace('_', '-')}")
    folder = engine or newest_that_fits(ENGINES, about["device"], trust_plans=about["trust_plans"])
    if layers:
        return _layers(folder, about, Console(json=as_json))
    found = describe_engine(folder)
    value = {"engine": str(folder), **dataclasses.asdict(found)}
    try:
        Console(json=as_json).result(value, _screen(folder, found.manifest, value))
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # anyone can have written them
        raise ArtifactError(
            f"has figures that cannot be read ({reason_from_error(error)})",
            where=folder / MANIFEST,
            fix="build the engine again",
        ) from error
    if not found.broken:
        return 0
    Console().note(f"gms-rt: {folder}: nothing in it runs here; see the files that are missing or were changed")
    return DeviceError.exit_code


def _layers(folder: Path, about: dict[str, Any], console: Console) -> int:
    """Where the time goes, and where the values leave FP32's."""
    from gms_rt.engine.layers import ProfileOptions, profile_engine
    from gms_rt.engine.manifest import read_manifest
    from gms_rt.scan.choose import image_from_scan

    manifest, image = read_manifest(folder), about["image"]
    images = None if image is None else image_from_scan(image, manifest.height, manifest.width)[None]
    options = ProfileOptions(images, about["reference"], about["device"], about["trust_plans"])
    found = profile_engine(folder, options)
    console.result(
        {"engine": str(folder), **dataclasses.asdict(found)},
        f"{folder}: {layers_text(found, shown=rows_to_show(found.layers, found.worth, every=about['every']))}",
    )
    return 0


def _screen(folder: Path, manifest: EngineManifest, value: dict[str, Any]) -> str:
    kind = manifest.source.get("kind", "graph")
    lines = [
        f"{folder}: {manifest.name}, {manifest.precision}, {manifest.width}x{manifest.height}, batch {manifest.batch}",
        f"built {manifest.created} by gms-rt {manifest.gms_rt} from {kind} {manifest.source.get('name', '')}",
        f"graph: {layer_counts_text(manifest.census.get('graph', {}))}",
    ]
    if "cpu" in manifest.targets:
        lines.append(f"cpu:   {execution_text(manifest)} (on {manifest.census.get('cpu', {}).get('cpu', 'unknown')})")
    lines += [f"averages over flips: {manifest.flips}"] if manifest.flips else []
    lines += gate_lines(manifest)
    lines += [f"class: {class_text(n, each)}" for n, each in enumerate(manifest.classes, 1)]
    if value["stages"]:
        rows = [
            [s["stage"], str(s["nodes"]), f"{s['flop'] / 1e9:.3f}", f"{s['parameters'] / 1e6:.3f}"]
            for s in value["stages"]
        ]
        total = [sum(s[key] for s in value["stages"]) for key in ("nodes", "flop", "parameters")]
        rows.append(["all", str(total[0]), f"{total[1] / 1e9:.3f}", f"{total[2] / 1e6:.3f}"])
        lines += ["", table(rows, header=["stage", "nodes", "GFLOP", "M parameters"])]
    files = [[name, f"{size / 2**20:.2f}"] for name, size in value["files"].items()]
    lines += ["", table(files, header=["file", "MiB"]), ""]
    runs = [
        [fit["plan"] or manifest.model, fit["target"], "yes" if fit["fits"] else "no", fit["reason"]]
        for fit in value["fits"]
    ]
    lines.append(table(runs, header=["file", "target", "runs here", "why not"]))
    lines += [
        f"plan {plan['file']} {plan['reason']}: {'trusted' if plan['trusted'] else 'runs with --trust-plans only'}"
        for plan in value["trust"]
    ]
    lines += [f"plan {plan.file} {plan_text(plan)}" for plan in manifest.plans if plan.device]
    lines += [f"warning: {line}" for line in value["changed"]]
    lines += [f"note: {note}" for note in manifest.notes]
    return "\n".join([*lines, "", f"rebuild: {value['rebuild']}"])
