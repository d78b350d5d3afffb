"""The sections of the HTML report that show what a bench measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from html import escape

from gms_rt.bench.results import BenchResult, RooflineRow
from gms_rt.report import charts
from gms_rt.report.columns import (
    ANSWER,
    DETAILS,
    ROOFLINE,
    SPREAD,
    SWEPT,
    TIMED,
    Column,
    TimedRow,
    columns_by_key,
    timed_rows,
)
from gms_rt.report.html_layers import layers_section
from gms_rt.report.html_parts import badge, cell, dot, panel, table_from_columns
from gms_rt.report.model import Report
from gms_rt.report.text import energy_source, milliseconds


def bench_sections(report: Report, bench: BenchResult) -> Iterator[tuple[str, str, str]]:
    """(anchor, title, body) of the parts that were measured."""
    yield "latency", "Latency", _latency(report, bench)
    if bench.sweep:
        yield "throughput", "Throughput", _throughput(bench)
    if bench.waterfalls:
        yield "waterfall", "From file to mask", _waterfalls(bench)
    if bench.layers:
        yield "layers", "Layers", layers_section(bench)
    if bench.roofline.rows:
        yield "roofline", "How near the limit", _roofline(bench)


def _latency(report: Report, bench: BenchResult) -> str:
    rows = timed_rows(report)
    places = {row.measured.name: index for index, row in enumerate(rows)}

    def changed(row: TimedRow, column: Column[TimedRow]) -> str | None:
        if column.key == "name":
            doubts = "".join(f'<span class="doubt">{escape(w)}</span>' for w in row.measured.warnings)
            tint = charts.colour(places[row.measured.name])
            return f"{dot(tint)}{cell(column.text(row), column.note(row))}{doubts}"
        if column.key == "latency_median_ms":
            return f"<b>{column.text(row)}</b>{cell('', column.note(row))}"
        if column.key == "parity" and row.measured.kind == "engine":
            why = row.parity.why if row.parity.mean is None else ""
            return badge(row.parity.verdict) + cell("", column.note(row)) + cell("", why)
        return None

    bars = [
        (m.name, m.total.min, m.total.median, m.total.p99, float(i), f"{milliseconds(m.total.median)} ms")
        for i, m in enumerate(bench.measured)
    ]
    curves = [(m.name, m.curve) for m in bench.measured]
    return (
        '<p class="intro">Time of one inference, copies in and out included, at the batch of the engine. '
        f"{bench.round_count} rounds of {bench.round_seconds:.2f} s that take turns, so that drift hits all alike.</p>"
        + panel(table_from_columns(columns_by_key(TIMED, ANSWER), rows, "Latency", changed))
        + '<div class="pair">'
        + (panel(charts.ranges_chart(bars), "Median", "bar: median; line: minimum to p99") if len(bars) > 1 else "")
        + panel(
            charts.quantiles_chart(curves) + (_legend([m.name for m in bench.measured]) if len(curves) > 1 else ""),
            "Distribution",
            "percent of inferences that finish within a time",
        )
        + "</div>"
        + _details(bench, rows)
    )


def _details(bench: BenchResult, rows: list[TimedRow]) -> str:
    name, *rest = columns_by_key(TIMED, DETAILS)
    columns = [dataclasses.replace(name, note=lambda row: ""), *columns_by_key(TIMED, SPREAD), *rest]
    reasons = dict.fromkeys(
        [*filter(None, map(energy_source, bench.measured))]
        + [f"{m.name}, cold start: {m.cold.why}" for m in bench.measured if m.cold.why]
        + [f"{m.name}, {s}" for m in bench.measured for s in m.settings]
        + [f"sweep: {bench.sweep_why}"] * bool(bench.sweep_why)
        + [f"layers: {bench.layers_why}"] * bool(bench.layers_why)
        + [f"roofline: {bench.roofline.why}"] * bool(bench.roofline.why)
        + ["latency = H2D + compute + D2H; percentiles by trtexec's index rule; times in milliseconds"]
    )
    notes = "".join(f"<li>{escape(r)}</li>" for r in reasons)
    return (
        "<details><summary>Every figure</summary>"
        + panel(table_from_columns(columns, rows, "All latency figures"))
        + f'<ul class="plain" style="margin-top:14px">{notes}</ul></details>'
    )


def _legend(names: Sequence[str]) -> str:
    items = "".join(f"<li>{dot(charts.colour(i))}{escape(name)}</li>" for i, name in enumerate(names))
    return f'<ul class="key-list">{items}</ul>'


def _throughput(bench: BenchResult) -> str:
    why = f'<p class="aside">{escape(bench.sweep_why)}</p>' if bench.sweep_why else ""
    names = list(dict.fromkeys(p.engine for p in bench.sweep))
    curves = [curve for index, name in enumerate(names) for curve in _curves(bench, name, index)]
    kinds = "solid: more images in flight (streams)"
    kinds += "; dashed: more images at once (batch)" if any(c.dashed for c in curves) else ""
    return panel(
        charts.throughput_chart(curves)
        + _legend(names)
        + "<details><summary>Values</summary>"
        + table_from_columns(SWEPT, bench.sweep, "Throughput against latency")
        + f"</details>{why}",
        "Images per second (across) against latency (up)",
        kinds,
    )


def _curves(bench: BenchResult, name: str, index: int) -> list[charts.ChartCurve]:
    own = [p for p in bench.sweep if p.engine == name]
    streams = [p for p in own if p.batch == own[0].batch]
    batches = [own[0], *(p for p in own if p.batch != own[0].batch)]
    found = []
    for points, dashed in ((streams, False), (batches, True)):
        if len(points) > 1 or not dashed:
            marks = tuple((p.throughput, p.median, f"batch {p.batch}, {_streams(p.lanes)}") for p in points)
            found.append(charts.ChartCurve(name, marks, index, dashed))
    return found


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"


def _waterfalls(bench: BenchResult) -> str:
    panels = []
    for w in bench.waterfalls:
        size_ = "×".join(map(str, reversed(w.source_size)))
        total = sum(s.milliseconds for s in w.stages)
        inside = sum(s.milliseconds for s in w.stages if s.inside_engine)
        panels.append(
            panel(
                charts.waterfall_chart([(s.name, s.milliseconds, s.inside_engine) for s in w.stages]),
                w.engine,
                f"{w.image}, {size_} pixels: {milliseconds(total)} ms, {milliseconds(inside)} ms in the engine",
            )
        )
    lead = '<p class="intro">Where the time goes from an image file to a written mask, medians per image.</p>'
    return f'{lead}<div class="pair">{"".join(panels)}</div>'


def _roofline(bench: BenchResult) -> str:
    roof = bench.roofline

    def changed(row: RooflineRow, column: Column[RooflineRow]) -> str | None:
        return f"<b>{column.text(row)}</b>" if column.key == "share" else None

    how = "".join(f"<li>{escape(c.name)}: {c.value:.0f} {escape(c.unit)} – {escape(c.how)}</li>" for c in roof.ceilings)
    return (
        '<p class="intro">The work of each graph against what this machine reached in the same run on a plain matrix '
        "product and a plain copy. 100 % would be the limit.</p>"
        + panel(table_from_columns(ROOFLINE, roof.rows, "Roofline", changed))
        + f'<ul class="plain" style="margin-top:14px">{how}</ul>'
    )
