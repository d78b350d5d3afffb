"""The section of the HTML report that shows an engine's layers: where the time goes, where the values leave FP32's."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gms_rt.bench.results import BenchResult, EngineLayers, LayerRow
from gms_rt.report import charts
from gms_rt.report.columns import LAYERS, layers_shown
from gms_rt.report.html_parts import dot, panel, table_from_columns
from gms_rt.report.text import arithmetic_name, distance, layer_name, milliseconds

_BARS = 10  # of each chart; all layers are in the table
_SHADES = (20, 45, 70, 100, 30)
_TINTS = {"int8": "var(--s1)", "bf16": "var(--s2)", "f16": "var(--s5)", "f32": "var(--s3)"}


def layers_section(bench: BenchResult) -> str:
    """All engines, one after the other."""
    why = f'<p class="aside">{escape(bench.layers_why)}</p>' if bench.layers_why else ""
    lead = (
        '<p class="intro">Every layer as the device runs it: the time it takes, the type it really has, and how far '
        "what it puts out is from FP32.</p>"
    )
    return lead + "".join(map(_engine, bench.layers)) + why


def _engine(found: EngineLayers) -> str:
    shown = layers_shown(found)
    slowest = sorted(shown, key=lambda row: -row.milliseconds)[:_BARS]
    farthest = [row for row in shown if row.distance][:_BARS]
    total = found.milliseconds or 1.0
    parts = [
        (
            s.milliseconds,
            _shade(i),
            f"{s.stage}: {milliseconds(s.milliseconds)} ms, {100 * s.milliseconds / total:.0f} %",
        )
        for i, s in enumerate(found.stages)
    ]
    stages = charts.parts_chart(parts, f"Time by stage: {found.engine}") + _stage_legend(found)
    time = panel(
        charts.bars_chart([_time_bar(row, slowest[0]) for row in slowest], "The layers that take longest"),
        "Where the time goes",
        "milliseconds and type of the longest",
    )
    far = (
        panel(
            charts.bars_chart([_distance_bar(row, farthest[0]) for row in farthest], "The layers farthest from FP32"),
            "Where the values leave FP32",
            "farthest first",
        )
        if farthest
        else ""
    )
    note = f"{milliseconds(found.milliseconds)} ms in layers on {found.device}; {found.timed}"
    return (
        panel(stages + _worth(found), found.engine, note)
        + f'<div class="pair">{time if slowest else ""}{far}</div>'
        + _type_legend(shown)
        + _table(found, shown)
    )


def _worth(found: EngineLayers) -> str:
    if not found.worth:
        return ""
    names = ", ".join(f"<b>{escape(layer_name(name, 80))}</b>" for name in found.worth)
    return f'<p class="aside">Worth a better type, because they add most to the distance: {names}</p>'


def _stage_legend(found: EngineLayers) -> str:
    total = found.milliseconds or 1.0
    items = "".join(
        f"<li>{dot(_shade(i))}{escape(s.stage)} {100 * s.milliseconds / total:.0f} %</li>"
        for i, s in enumerate(found.stages)
    )
    return f'<ul class="key-list" aria-label="Stages">{items}</ul>'


def _type_legend(rows: Sequence[LayerRow]) -> str:
    kinds = sorted({arithmetic_name(row.arithmetic) for row in rows})
    items = "".join(f"<li>{dot(_tint(kind))}{escape(kind)}</li>" for kind in kinds)
    return f'<ul class="key-list" aria-label="Types really executed">{items}</ul>' if kinds else ""


def _time_bar(row: LayerRow, longest: LayerRow) -> charts.ChartBar:
    kind = arithmetic_name(row.arithmetic)
    share, note = row.milliseconds / longest.milliseconds, f"{milliseconds(row.milliseconds)} ms, {kind}"
    return charts.ChartBar(layer_name(row.name), share, note, _tint(kind), _words(row))


def _distance_bar(row: LayerRow, farthest: LayerRow) -> charts.ChartBar:
    kind = arithmetic_name(row.arithmetic)
    share = (row.distance or 0.0) / (farthest.distance or 1.0)
    return charts.ChartBar(layer_name(row.name), share, f"{distance(row.distance)}, {kind}", _tint(kind), _words(row))


def _words(row: LayerRow) -> str:
    kind = f"{row.kind}, " if row.kind else ""
    return (
        f"{row.name}: {kind}{arithmetic_name(row.arithmetic)}, {milliseconds(row.milliseconds)} ms, "
        f"{row.gflop:.3f} GFLOP, distance {distance(row.distance)}"
    )


def _shade(index: int) -> str:
    """The colour of a stage: no type's, and unlike its neighbours'."""
    return f"color-mix(in srgb, var(--ink-3) {_SHADES[index % len(_SHADES)]}%, var(--card))"


def _tint(kind: str) -> str:
    return _TINTS.get(kind, "var(--s6)")


def _table(found: EngineLayers, shown: Sequence[LayerRow]) -> str:
    folded = len(found.layers) - len(shown)
    more = f" {folded} more take less than 0.01 ms each." if folded else ""
    return (
        f"<details><summary>The {len(shown)} layers of {escape(found.engine)}</summary>"
        + table_from_columns(LAYERS, shown, f"Layers of {found.engine}")
        + f'<p class="aside">Distance: of what a layer puts out, relative to {escape(found.compared)}.{more}</p>'
        + "</details>"
    )
