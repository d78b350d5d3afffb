"""A report as Markdown that pastes into an issue: tables first, everything else in short lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from gms_rt.bench.results import BenchResult, EngineLayers
from gms_rt.report.columns import (
    ANSWER,
    DETAILS,
    LAYERS,
    PROVEN,
    ROOFLINE,
    SPREAD,
    SWEPT,
    TIMED,
    Column,
    columns_by_key,
    layers_shown,
    timed_rows,
)
from gms_rt.report.model import Report
from gms_rt.report.text import energy_source, milliseconds

T = TypeVar("T")


def markdown_from_report(report: Report) -> str:
    """The report as Markdown text."""
    parts = [f"# {_text(report.title)}", report.lead]
    if report.headline:
        parts.append("\n".join(f"- **{_text(f.label)}:** {_text(f.value)} {_text(f.note)}".rstrip()
                               for f in report.headline))  # fmt: skip
    if report.warnings:
        parts.append("\n".join(f"> **Note:** {_text(w)}" for w in report.warnings))
    if report.bench:
        parts += _bench(report, report.bench)
    parts += _parity(report)
    parts += _identity(report)
    if report.commands:
        lines = [f"# {_line(c.label)}\n{_line(c.line)}" for c in report.commands]
        parts += ["## Reproduce", "```sh\n" + "\n".join(lines) + "\n```"]
    parts.append("\n".join(f"- {_text(n)}" for n in report.notes))
    parts.append(f"_gms-rt {report.gms_rt}, {report.created}_")
    return "\n\n".join(p for p in parts if p) + "\n"


def _bench(report: Report, bench: BenchResult) -> list[str]:
    rows = timed_rows(report)
    answer, details = columns_by_key(TIMED, ANSWER), columns_by_key(TIMED, DETAILS)
    parts = ["## Latency", _columns([*answer[:-1], *columns_by_key(TIMED, SPREAD), answer[-1]], rows)]
    parts.append(_table([c.heading for c in details], [[c.text(row) for c in details] for row in rows]))
    notes = [f"{m.name}: {w}" for m in bench.measured for w in m.warnings]
    notes += dict.fromkeys(filter(None, map(energy_source, bench.measured)))
    notes += sorted({f"{m.name}: {s}" for m in bench.measured for s in m.settings})
    notes.append(
        f"{bench.round_count} interleaved rounds of {bench.round_seconds:.2f} s each; latency = H2D + compute + D2H; "
        "percentiles by trtexec's index rule"
    )
    parts.append("\n".join(f"- {_text(n)}" for n in notes))
    if bench.sweep:
        parts += ["## Throughput against latency", _columns(SWEPT, bench.sweep)]
    if bench.sweep_why:
        parts.append(f"- {_text(bench.sweep_why)}")
    for w in bench.waterfalls:
        steps = [[s.name, milliseconds(s.milliseconds)] for s in w.stages]
        steps.append(["total", milliseconds(sum(s.milliseconds for s in w.stages))])
        parts += [f"## From file to mask: {_text(w.engine)}", _table(["step", "ms"], steps)]
    parts += [part for found in bench.layers for part in _layers(found)]
    if bench.layers_why:
        parts.append(f"- layers: {_text(bench.layers_why)}")
    roof = bench.roofline
    if roof.rows:
        parts += ["## How near the limit", _columns(ROOFLINE, roof.rows)]
        parts.append("\n".join(f"- {c.name}: {c.value:.0f} {c.unit} ({c.how})" for c in roof.ceilings))
    elif roof.why:
        parts.append(f"- roofline: {_text(roof.why)}")
    return parts


def _layers(found: EngineLayers) -> list[str]:
    total = found.milliseconds or 1.0
    stages = [[s.stage, milliseconds(s.milliseconds), f"{100 * s.milliseconds / total:.0f} %"] for s in found.stages]
    shown = layers_shown(found)
    folded = len(found.layers) - len(shown)
    words = [
        f"{found.timed}, {milliseconds(found.milliseconds)} ms in all layers",
        f"distance: of what a layer puts out, relative to {found.compared}",
        f"worth a better type: {', '.join(found.worth) or 'none'}",
        *([f"layers below 0.01 ms each, not shown: {folded}"] if folded else []),
    ]
    return [
        f"## Layers: {_text(found.engine)}",
        _table(["stage", "ms", "share"], stages),
        _columns(LAYERS, shown),
        "\n".join(f"- {_text(line)}" for line in words),
    ]


def _parity(report: Report) -> list[str]:
    proven = [p for p in report.parity if p.mean is not None]
    if not proven:
        return []
    words = "\n".join(f"- {_text(p.engine)}: {_text(p.in_words)}{f'; {_text(p.why)}' if p.why else ''}" for p in proven)
    return ["## Parity", _columns(PROVEN, proven), words]


def _identity(report: Report) -> list[str]:
    facts = [*report.identity.hardware, *report.identity.software]
    parts = ["## Device", _table(["", ""], [["device", report.identity.device], *([f.label, f.value] for f in facts)])]
    if report.bench and report.bench.state:
        rows = [[r.name, r.before or f"absent: {r.why}", r.after or "–"] for r in report.bench.state]
        parts.append(_table(["state", "before", "after"], rows))
    return parts


def _columns(columns: Sequence[Column[T]], rows: Sequence[T]) -> str:
    return _table([c.heading for c in columns], [[c.whole(row) for c in columns] for row in rows])


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_text(c) for c in row) + " |" for row in lines)


def _line(text: str) -> str:
    # A name must not end the code block.
    return text.replace("\n", " ").replace("`" * 3, "'")


def _text(text: str) -> str:
    # A name must not end a cell or start a tag.
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
