"""Charts as inline SVG, readable at any width: positions are percentages, so text keeps its size on a phone.

A mark that is pointed at, or reached with the tab key, shows its value in the line below the chart, without a script;
colours are the page's CSS variables `--s1` … `--s6`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gms_rt.report.chart_axis import Axis, axis_of_values
from gms_rt.report.text import milliseconds, score

SERIES = 6
_TIP = 26  # the line below a chart that shows a mark's value
_TAB_STOPS = 6  # of each engine's cases: the worst


def colour(index: int) -> str:
    """The CSS colour of a series."""
    return f"var(--s{index % SERIES + 1})"


def quantiles_chart(curves: Sequence[tuple[str, Sequence[float]]]) -> str:
    """The distribution of each series: percent of inferences across, milliseconds up."""
    values = [v for _, curve in curves for v in curve]
    y = axis_of_values(values)
    height = 230
    marks = [_grid(y, height)]
    for p in (0, 25, 50, 75, 90, 99):
        marks.append(_below(p, height, f"{p}"))
    for index, (name, curve) in enumerate(curves):
        step = 100 / (len(curve) - 1)
        points = " ".join(f"{i * step:.2f},{100 - y.at(v):.2f}" for i, v in enumerate(curve))
        marks.append(_line(points, height, colour(index)))
        stops = {round(len(curve) * share) for share in (0.5, 0.9, 0.99)}
        for i in sorted({*range(0, len(curve), max(1, len(curve) // 20)), *stops} & set(range(len(curve)))):
            words = f"{name}: {i * step:.0f} % within {milliseconds(curve[i])} ms"
            spot = _spot(i * step, _up(y.at(curve[i]), height), colour(index), shown=False)
            marks.append(_mark(spot, words, stop=i in stops))
    marks.append(_scale(y, height, "ms"))
    return _svg(height + 28, "Latency distribution: percent of inferences against milliseconds", marks, hint=True)


@dataclass(frozen=True)
class ChartCurve:
    """A line of the throughput chart: points of (images per second, milliseconds, label); the second kind is dashed."""

    name: str
    points: tuple[tuple[float, float, str], ...]
    series: int
    dashed: bool = False


def throughput_chart(curves: Sequence[ChartCurve]) -> str:
    """Images per second across, latency up."""
    every = [point for curve in curves for point in curve.points]
    x, y = axis_of_values([p[0] for p in every], zero=True), axis_of_values([p[1] for p in every])
    height = 300
    marks = [_grid(y, height)]
    marks += [_below(x.at(t), height, f"{t:g}{'/s' if t == x.ticks()[-1] else ''}") for t in x.ticks()]
    for curve in curves:
        line = " ".join(f"{x.at(rate):.2f},{100 - y.at(ms):.2f}" for rate, ms, _ in curve.points)
        marks.append(_line(line, height, colour(curve.series), dashed=curve.dashed))
    marks.append(_scale(y, height, "ms"))
    for curve in curves:
        for rate, ms, label in curve.points:
            words = f"{curve.name}, {label}: {milliseconds(rate)} images/s at {milliseconds(ms)} ms"
            spot = _spot(x.at(rate), _up(y.at(ms), height), colour(curve.series), hollow=curve.dashed)
            marks.append(_mark(spot, words))
    return _svg(height + 28, "Throughput against latency", marks, hint=True)


def ranges_chart(rows: Sequence[tuple[str, float, float, float, float, str]]) -> str:
    """One bar per row up to the median, with a whisker from minimum to p99: (name, min, median, p99, index, note)."""
    axis = Axis(0.0, max(row[3] for row in rows) * 1.02)
    marks, y = [], 0
    for name, low, middle, high, index, note in rows:
        tint = colour(int(index))
        words = f"{name}: median {milliseconds(middle)}, minimum {milliseconds(low)}, p99 {milliseconds(high)} ms"
        start, end = axis.at(low), axis.at(high)
        bar = (
            f'<text x="0" y="{y + 15}" class="name">{escape(name)}</text>'
            f'<text x="100%" y="{y + 15}" class="value" text-anchor="end">{escape(note)}</text>'
            f'<rect x="0" y="{y + 24}" width="100%" height="12" rx="6" class="track"/>'
            f'<rect x="0" y="{y + 24}" width="{axis.at(middle):.2f}%" height="12" rx="6" fill="{tint}"/>'
            f'<line x1="{start:.2f}%" x2="{end:.2f}%" y1="{y + 30}" y2="{y + 30}" class="whisker"/>'
            f'<line x1="{end:.2f}%" x2="{end:.2f}%" y1="{y + 25}" y2="{y + 35}" class="whisker"/>'
        )
        marks.append(_mark(bar, words))
        y += 52
    return _svg(y - 8, "Median latency with minimum and 99th percentile", marks)


def waterfall_chart(stages: Sequence[tuple[str, float, bool]]) -> str:
    """Steps one after the other: (name, milliseconds, whether inside the engine)."""
    total = sum(s[1] for s in stages)
    marks, y, before = [], 0, 0.0
    for name, duration, inside in stages:
        share = duration / total * 100
        words = f"{name}: {milliseconds(duration)} ms, {share:.1f} % of {milliseconds(total)} ms"
        width = max(share, 0.4)
        bar = (
            f'<text x="0" y="{y + 15}" class="name">{escape(name)}</text>'
            f'<text x="100%" y="{y + 15}" class="value" text-anchor="end">'
            f'{milliseconds(duration)} ms<tspan class="faint"> · {share:.0f} %</tspan></text>'
            f'<rect x="0" y="{y + 23}" width="100%" height="12" rx="3" class="track"/>'
            f'<rect x="{min(before / total * 100, 99.6):.2f}%" y="{y + 23}" width="{width:.2f}%" height="12" rx="3" '
            f'fill="var({"--s1" if inside else "--s2"})"/>'
        )
        marks.append(_mark(bar, words))
        before += duration
        y += 46
    return _svg(y - 6, "Time from file to written mask, step by step", marks)


@dataclass(frozen=True)
class ChartBar:
    """A bar with a name over it and its value at the right; `words` are shown where it is pointed at."""

    name: str
    share: float  # of the widest, 0 to 1
    note: str
    tint: str
    words: str


def bars_chart(bars: Sequence[ChartBar], label: str) -> str:
    """Bars one below the other."""
    marks, y = [], 0
    for bar in bars:
        marks.append(
            _mark(
                f'<text x="0" y="{y + 15}" class="name small">{escape(bar.name)}</text>'
                f'<text x="100%" y="{y + 15}" class="value small" text-anchor="end">{escape(bar.note)}</text>'
                f'<rect x="0" y="{y + 22}" width="100%" height="9" rx="3" class="track"/>'
                f'<rect x="0" y="{y + 22}" width="{max(100 * bar.share, 0.4):.2f}%" height="9" rx="3" '
                f'fill="{bar.tint}"/>',
                bar.words,
            )
        )
        y += 40
    return _svg(y - 4, label, marks, hint=True)


def parts_chart(parts: Sequence[tuple[float, str, str]], label: str) -> str:
    """One bar of parts side by side: (value, colour, value in words)."""
    total = sum(value for value, _, _ in parts) or 1.0
    marks, before = [], 0.0
    for value, tint, words in parts:
        # A hair of the ground between two parts.
        place = f'x="{before:.2f}%" width="{max(100 * value / total - 0.25, 0.15):.2f}%"'
        marks.append(_mark(f'<rect {place} y="0" height="22" fill="{tint}"/>', words))
        before += 100 * value / total
    return _svg(26, label, marks, hint=True)


def parity_chart(
    rows: Sequence[tuple[str, str, Sequence[tuple[str, float]]]], gates: Sequence[tuple[str, float]]
) -> str:
    """One dot per case on a Dice axis that ends at one: rows are (name, note, cases), gates are labelled lines."""
    lowest = min([d for _, _, cases in rows for _, d in cases] + [g for _, g in gates])
    # Some room below the lowest, so that it does not hang on the edge.
    axis = Axis(max(0.0, lowest - max(0.01, (1 - lowest) * 0.15)), 1.0)

    def at(value: float) -> float:
        return 1 + 0.98 * axis.at(value)  # dots keep clear of both edges

    marks, y = [], 0
    for index, (name, note, cases) in enumerate(rows):
        marks.append(f'<text x="0" y="{y + 15}" class="name">{escape(name)}</text>')
        marks.append(f'<text x="100%" y="{y + 15}" class="value" text-anchor="end">{escape(note)}</text>')
        marks.append(f'<rect x="0" y="{y + 24}" width="100%" height="28" rx="6" class="track"/>')
        for _, gate in gates:
            marks.append(f'<line x1="{at(gate):.2f}%" x2="{at(gate):.2f}%" y1="{y + 24}" y2="{y + 52}" class="gate"/>')
        worst = {case for case, _ in sorted(cases, key=lambda case: case[1])[:_TAB_STOPS]}
        for number, (case, value) in enumerate(cases):
            # A fixed spread up and down keeps equal values apart.
            height = y + 38 + ((number * 7) % 11 - 5) * 1.8
            spot = _spot(at(value), height, colour(index), radius=4)
            marks.append(_mark(spot, f"{name}, {case}: Dice {score(value)}", stop=case in worst))
        y += 64
    for tick in axis.ticks():
        anchor = "end" if axis.at(tick) > 96 else "start" if axis.at(tick) < 4 else "middle"
        marks.append(f'<text x="{at(tick):.2f}%" y="{y + 8}" text-anchor="{anchor}" class="tick">{tick:.4g}</text>')
    words = ", ".join(f"{label} {gate:g}" for label, gate in gates)
    marks.append(f'<text x="0" y="{y + 30}" class="tick">dashed: {escape(words)}</text>' if gates else "")
    return _svg(y + 34, "Dice of each case to the reference", marks, hint=True)


@dataclass(frozen=True)
class ParetoPoint:
    """A model of the chart."""

    name: str
    milliseconds: float
    dice: float
    interval: tuple[float, float]
    series: int
    hollow: bool  # a student without a teacher


def pareto_chart(points: Sequence[ParetoPoint]) -> str:
    """Milliseconds across, Dice to the truth up, each with its 95 % interval."""
    x = axis_of_values([point.milliseconds for point in points])
    y = axis_of_values([value for point in points for value in point.interval])
    height = 300
    marks = [_grid(y, height)]
    marks += [_below(x.at(tick), height, f"{tick:g} ms") for tick in x.ticks()]
    for point in points:
        tint, at = colour(point.series), x.at(point.milliseconds)
        low, high = (_up(y.at(value), height) for value in point.interval)
        whisker = f'<line x1="{at:.2f}%" x2="{at:.2f}%" y1="{low:.1f}" y2="{high:.1f}" class="whisker"/>'
        spot = _spot(at, _up(y.at(point.dice), height), tint, hollow=point.hollow)
        words = "{}: Dice {} ({} to {}), {} ms".format(
            point.name, score(point.dice), *map(score, point.interval), milliseconds(point.milliseconds)
        )
        marks.append(_mark(whisker + spot, words))
    marks.append(_scale(y, height, ""))
    return _svg(height + 28, "Dice to the truth against milliseconds for one picture", marks, hint=True)


def _up(percent: float, height: int) -> float:
    return 8 + (height - 8) * (1 - percent / 100)


def _grid(axis: Axis, height: int) -> str:
    heights = [_up(axis.at(tick), height) for tick in axis.ticks()]
    return "".join(f'<line x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>' for y in heights)


def _scale(axis: Axis, height: int, unit: str) -> str:
    # Over the lines, so that none runs through a number.
    ticks = [(tick, _up(axis.at(tick), height)) for tick in axis.ticks()]
    return "".join(f'<text x="0" y="{y - 4:.1f}" class="tick">{tick:g} {unit}</text>' for tick, y in ticks)


def _below(percent: float, height: int, text: str) -> str:
    anchor = "end" if percent > 97 else "start" if percent < 3 else "middle"
    return f'<text x="{percent:.2f}%" y="{height + 20}" text-anchor="{anchor}" class="tick">{escape(text)}</text>'


def _line(points: str, height: int, tint: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="6 5"' if dashed else ""
    return (
        f'<svg x="0" y="8" width="100%" height="{height - 8}" viewBox="0 0 100 100" preserveAspectRatio="none" '
        f'overflow="visible"><polyline points="{points}" class="line" stroke="{tint}"{dash}/></svg>'
    )


def _spot(percent: float, y: float, tint: str, *, shown: bool = True, radius: float = 5, hollow: bool = False) -> str:
    look = f'fill="var(--card)" style="stroke:{tint};stroke-width:2.5"' if hollow else f'fill="{tint}"'
    return f'<circle cx="{percent:.2f}%" cy="{y:.1f}" r="{radius:g}" {look} class="spot{"" if shown else " quiet"}"/>'


def _mark(body: str, words: str, *, stop: bool = True) -> str:
    # A chart of hundreds of marks is no place to tab through: the telling ones stop, all answer to the pointer.
    reach = ' tabindex="0"' if stop else ""
    said = escape(words)
    tip = f'<text x="0" y="100%" dy="-4" class="tip" aria-hidden="true">{said}</text>'
    return f'<g class="mark" role="img" aria-label="{said}"{reach}>{body}{tip}</g>'


def _svg(height: float, label: str, marks: Sequence[str], *, hint: bool = False) -> str:
    words = '<text x="0" y="100%" dy="-4" class="hint" aria-hidden="true">Point or tab to a mark for its value</text>'
    return (
        f'<svg class="chart" role="group" aria-label="{escape(label)}" width="100%" height="{height + _TIP:.0f}">'
        + "".join(marks)
        + (words if hint else "")
        + "</svg>"
    )
