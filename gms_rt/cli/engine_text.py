"""An engine as text: what a build made, what executes, its layer counts by type. Shared by `build` and `inspect`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gms_rt.cli.console import table
from gms_rt.engine.manifest import EngineManifest, Plan
from gms_rt.graph.write import stored_bytes
from gms_rt.precision.gate import promise_text
from gms_rt.precision.plan_gate import plan_gate_text


def build_text(folder: Path, manifest: EngineManifest, value: dict[str, Any]) -> str:
    """What a build made, in one screen."""
    how = "already built, nothing changed" if value["unchanged"] else f"built in {value['seconds']:.1f} s"
    lines = [f"{folder}  {manifest.precision}, {manifest.width}x{manifest.height}, batch {manifest.batch}: {how}", ""]
    rows = []
    if "cpu" in manifest.targets:
        rows.append([manifest.model, "cpu", _mib(folder / manifest.model), execution_text(manifest)])
    rows += [[p.file, f"SM{p.sm}", _mib(folder / p.file), plan_text(p)] for p in manifest.plans]
    lines += [table(rows, header=["file", "for", "MiB", "executes"]), ""]
    lines.append(f"graph: {layer_counts_text(manifest.census.get('graph', {}))}")
    lines += gate_lines(manifest)
    lines += _speed(manifest)
    lines += _tried(value.get("tried", []))
    lines += _blocks(folder, manifest)
    certificate = value["certificate"]
    if certificate["verdict"]:
        mean, low = certificate["summary"]["mean"], certificate["summary"]["min"]
        about = certificate["reference"]
        pictures = f", {about['pictures']}" if about.get("pictures") else ""
        lines.append(f"proof: {certificate['verdict']}, Dice mean {mean:.4f}, lowest {low:.4f}")
        lines.append(f"       to {about['what']}{pictures} ({about['cases']} pictures)")
    else:
        lines.append(f"proof: none ({certificate['reason']})")
    lines += [f"class: {class_text(n, each)}" for n, each in enumerate(manifest.classes, 1)]
    lines += [f"note:  {note}" for note in manifest.notes]
    return "\n".join([*lines, "", f"next:  gms-rt infer FOLDER --engine {folder}"])


def _tried(rows: list[dict[str, Any]]) -> list[str]:
    """What `--precision auto` tried, the fastest first."""
    if not rows:
        return []
    cells = []
    for row in sorted(rows, key=lambda r: r["milliseconds"] or math.inf):
        gate, time = row["gate"], row["milliseconds"]
        cells.append(
            [
                ("* " if row["chosen"] else "  ") + row["precision"],
                row["execution"] or "-",
                "-" if time is None else f"{time:.2f}",
                f"{gate['mean']:.4f}" if gate else "-",
                f"{gate['minimum']:.4f}" if gate else "-",
                f"{row['bytes'] / 2**20:.2f}" if row["bytes"] else "-",
                row["why"] or ("taken" if row["chosen"] else "slower"),
            ]
        )
    header = ["type", "runs in", "ms", "mean Dice", "lowest", "MiB", "verdict"]
    return ["", table(cells, header=header), ""]


def gate_lines(manifest: EngineManifest) -> list[str]:
    """What the gate found, what that promises, whether it holds in f32 too, and what it found of the plans' graph.

    Nothing where no masks were compared.
    """
    return [*_gate_lines(manifest), *_plan_gate_lines(manifest)]


def _plan_gate_lines(manifest: EngineManifest) -> list[str]:
    """What was judged of the plans, and how; once for all that have the same verdict."""
    judged: dict[str, list[str]] = {}
    for plan in manifest.plans:
        if plan.judged is not None:
            verdict = f"{plan_gate_text(plan.judged)}: {_passed(plan.judged)}"
            said = [verdict, promise_text(plan.judged["promise"])] if "promise" in plan.judged else [verdict]
            judged.setdefault("\n       ".join(said), []).append(plan.file)
    return [f"plan:  {text}\n       ({', '.join(files)})" for text, files in judged.items()]


def _gate_lines(manifest: EngineManifest) -> list[str]:
    gate = manifest.gate
    if not gate or "how" in gate:  # of an engine of plans alone, each of which says it
        return []
    lines = [
        f"gate:  Dice to FP32 mean {gate['mean']:.4f}, minimum {gate['minimum']:.4f} on {gate['images']} images "
        f"({gate['data']['source']}){_in_arithmetic(manifest)}: {_passed(gate)}"
    ]
    if "promise" in gate:  # engines of earlier versions have none
        lines.append(f"       {promise_text(gate['promise'])}")
    if "f32" in gate:  # an INT8 engine with a bf16 remainder
        plain = gate["f32"]
        consequence = "" if manifest.fallback else "; so the engine runs on CPUs with BF16 only"
        lines.append(
            f"       in i8+f32 mean {plain['mean']:.4f}, minimum {plain['minimum']:.4f}: {_passed(plain)}{consequence}"
        )
    return lines


def _passed(gate: dict[str, Any]) -> str:
    return "passed" if gate["passed"] else "NOT passed"


def _in_arithmetic(manifest: EngineManifest) -> str:
    """In which arithmetic the masks were compared, where that is not the usual one."""
    found = (manifest.gate or {}).get("arithmetic", "f32")
    if found == "f32":
        return ""
    return f", in i8+{found}" if manifest.precision == "int8" else f", in {found}"


def _speed(manifest: EngineManifest) -> list[str]:
    """What INT8 or f16 gains here; that f16 gains nothing is a note."""
    found = manifest.census.get("cpu", {}).get("milliseconds", {})
    for fast, full in (("int8", "fp32"), ("f16", "f32")):
        if fast in found and (fast == "int8" or manifest.execution == fast):
            of_both = f"{found[fast]:.1f} ms, {full.upper()} {found[full]:.1f} ms here"
            return [f"speed: {of_both} ({found[fast] / found[full]:.2f} of the time)"]
    return []


def _blocks(folder: Path, manifest: EngineManifest) -> list[str]:
    """The search's table, where there was a search; a short engine needs none."""
    from gms_rt.precision.recipe import read_recipe

    rows = read_recipe(folder).blocks if manifest.precision != "fp32" else []
    if not any(row["decision"] == "returned" for row in rows):
        return []
    shown = sorted(rows, key=lambda row: -(row["damage"] or 0))[:12]
    cells = [[r["block"], f"{r['gflop']:.3f}", f"{r['damage']:.4f}", r["decision"]] for r in shown]
    more = [f"({len(rows) - len(shown)} more in {folder / 'precision.json'})"] if len(rows) > len(shown) else []
    return ["", table(cells, header=["block", "GFLOP", "damage", "decision"]), *more, ""]


def execution_text(manifest: EngineManifest) -> str:
    """What the CPU executes, in a few words: its arithmetic, and convolutions by arithmetic."""
    layers = manifest.census.get("cpu", {}).get("layers", {})
    found: dict[str, int] = {}
    for kind in ("Convolution", "Deconvolution"):
        for arithmetic, count in layers.get(kind, {}).items():
            name = "int8" if arithmetic in ("u8", "i8") else arithmetic
            found[name] = found.get(name, 0) + count
    said = ", ".join(f"{_convolutions(count)} in {name}" for name, count in sorted(found.items())) or "unknown"
    return f"i8+{manifest.execution}: {said}" if manifest.precision == "int8" else said


def _convolutions(count: int) -> str:
    return "1 convolution" if count == 1 else f"{count} convolutions"


def plan_text(plan: Plan) -> str:
    """With what a plan was built, and on what where that matters."""
    return f"{plan.target} {plan.version}" + (f", built on {plan.device}" if plan.device else "")


def layer_counts_text(graph: dict[str, Any]) -> str:
    """A graph's layer counts and weights by type, in one line."""
    found: dict[str, int] = {}
    for types in graph.get("compute", {}).values():
        for kind, count in types.items():
            found[kind] = found.get(kind, 0) + count
    nodes = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
    sizes = graph.get("weights_bytes", {})
    shown = {kind: size for kind, size in sizes.items() if kind not in ("int64", "int32")}
    weights = ", ".join(f"{size / 2**20:.2f} MiB {kind}" for kind, size in shown.items())
    pairs = f", {graph['qdq_pairs']} Q/DQ pairs" if graph.get("qdq_pairs") else ""
    return f"computing nodes {nodes or 'none'}; weights {weights or 'none'}{pairs}"


def class_text(number: int, value: dict[str, Any]) -> str:
    """A class of the mask in one line: its value, its name, its codes, its colour.

    >>> class_text(1, {"name": "Cyst", "type": {"value": "1", "scheme": "SCT", "meaning": "Cyst"}, "colour": "#ff4040"})
    '1 Cyst: type Cyst (1, SCT), colour #ff4040'
    """
    codes = [
        f"{key.replace('_', ' ')} {code['meaning']} ({code['value']}, {code['scheme']})"
        for key, code in value.items()
        if isinstance(code, dict)
    ]
    return f"{number} {value['name']}: {', '.join([*codes, 'colour ' + value['colour']])}"


def _mib(path: Path) -> str:
    return f"{stored_bytes(path) / 2**20:.2f}"
