"""The sections of the HTML report that show what a bench measured."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from gms_rt.bench.results import BenchResult, Measured
from gms_rt.report import charts
from gms_rt.report.html_parts import badge, dot, panel, table
from gms_rt.report.model import Report
from gms_rt.report.text import agreement, energy, energy_words, milliseconds, rate, score, size, work


def bench_sections(report: Report, bench: BenchResult) -> Iterator[tuple[str, str, str]]:
    """(anchor, title, body) of the parts that were measured."""
    yield "latency", "Latency", _latency(report, bench)
    if bench.sweep:
        yield "throughput", "Throughput", _throughput(bench)
    if bench.waterfalls:
        yield "waterfall", "From file to mask", _waterfalls(bench)
    if bench.roofline.rows:
        yield "roofline", "How near the limit", _roofline(bench)


def _latency(report: Report, bench: BenchResult) -> str:
    rows = [_row(report, m, i) for i, m in enumerate(bench.measured)]
    head = ["engine", "median ms", "p95", "p99", "images/s", "CoV", "proof"]
    bars = [
        (m.name, m.total.min, m.total.median, m.total.p99, float(i), f"{milliseconds(m.total.median)} ms")
        for i, m in enumerate(bench.measured)
    ]
    curves = [(m.name, m.curve) for m in bench.measured]
    return (
        '<p class="intro">Time of one inference, copies in and out included, at the batch of the engine. '
        f"{bench.round_count} rounds of {bench.round_seconds:.2f} s that take turns, so that drift hits all alike.</p>"
        + panel(table(head, rows, "lnnnnnl", "Latency"))
        + '<div class="pair">'
        + (panel(charts.ranges(bars), "Median", "bar: median; line: minimum to p99") if len(bars) > 1 else "")
        + panel(
            charts.quantiles(curves) + (_legend(list(bench.measured)) if len(curves) > 1 else ""),
            "Distribution",
            "percent of inferences that finish within a time",
        )
        + "</div>"
        + _details(bench)
    )


def _row(report: Report, m: Measured, index: int) -> list[str]:
    parity = report.parity_of(m.name)
    if m.kind == "engine":
        proof = badge(parity.verdict)
        if parity.mean is not None:
            proof += f'<span class="what">Dice {score(parity.mean)}, lowest {score(parity.min)}</span>'
        elif parity.why:
            proof += f'<span class="what">{escape(parity.why)}</span>'
        if m.truth_dice is not None:
            proof += f'<span class="what">Dice {score(m.truth_dice)} to the truth</span>'
    else:
        proof = f'<span class="what">{escape(agreement(m, parity))}</span>'
    what = f"{m.precision} on {m.backend}, {m.execution}" if m.kind == "engine" else f"peer: {m.backend}, {m.execution}"
    doubts = "".join(f'<span class="doubt">{escape(w)}</span>' for w in m.warnings)
    return [
        f'{dot(charts.colour(index))}{escape(m.name)}<span class="what">{escape(what)}</span>{doubts}',
        f'<b>{milliseconds(m.total.median)}</b><span class="what">{milliseconds(m.low)}–{milliseconds(m.high)}</span>',
        milliseconds(m.total.p95),
        milliseconds(m.total.p99),
        rate(m.throughput),
        f"{m.total.cov:.1f} %",
        proof,
    ]


def _details(bench: BenchResult) -> str:
    head = ["engine", "min", "mean", "p90", "max", "enqueue", "H2D", "compute", "D2H", "samples", "batch", "streams",
            "threads", "load", "first", "memory", "GPU memory", "energy/image", "parameters", "GFLOP"]  # fmt: skip
    rows = [
        [escape(m.name)]
        + [milliseconds(v) for v in (m.total.min, m.total.mean, m.total.p90, m.total.max)]
        + [milliseconds(v.median) for v in (m.enqueue, m.h2d, m.compute, m.d2h)]
        + [str(m.total.count), str(m.batch), str(m.lanes), str(m.threads) if m.threads else "–"]
        + [milliseconds(m.cold.load_ms), milliseconds(m.cold.first_inference_ms)]
        + [size(m.cold.host_bytes), size(m.cold.device_bytes), energy(m), *work(m)]
        for m in bench.measured
    ]
    reasons = dict.fromkeys(
        [*filter(None, map(energy_words, bench.measured))]
        + [f"{m.name}, cold start: {m.cold.why}" for m in bench.measured if m.cold.why]
        + [f"{m.name}, {s}" for m in bench.measured for s in m.settings]
        + [f"sweep: {bench.sweep_why}"] * bool(bench.sweep_why)
        + [f"roofline: {bench.roofline.why}"] * bool(bench.roofline.why)
        + ["latency = H2D + compute + D2H; percentiles by trtexec's index rule; times in milliseconds"]
    )
    notes = "".join(f"<li>{escape(r)}</li>" for r in reasons)
    return (
        "<details><summary>Every figure</summary>"
        + panel(table(head, rows, "l" + "n" * 19, "All latency figures"))
        + f'<ul class="plain" style="margin-top:14px">{notes}</ul></details>'
    )


def _legend(measured: list[Measured]) -> str:
    items = "".join(f"<li>{dot(charts.colour(i))}{escape(m.name)}</li>" for i, m in enumerate(measured))
    return f'<ul class="key-list">{items}</ul>'


def _throughput(bench: BenchResult) -> str:
    why = f'<p class="aside">{escape(bench.sweep_why)}</p>' if bench.sweep_why else ""
    names = list(dict.fromkeys(p.engine for p in bench.sweep))
    curves = [curve for index, name in enumerate(names) for curve in _curves(bench, name, index)]
    legend = "".join(f"<li>{dot(charts.colour(i))}{escape(n)}</li>" for i, n in enumerate(names))
    kinds = "solid: more images in flight (streams)"
    kinds += "; dashed: more images at once (batch)" if any(c.dashed for c in curves) else ""
    rows = [
        [escape(p.engine), str(p.batch), str(p.lanes), milliseconds(p.median), milliseconds(p.p95), rate(p.throughput)]
        for p in bench.sweep
    ]
    head = ["engine", "batch", "streams", "median ms", "p95", "images/s"]
    return panel(
        charts.throughput(curves)
        + f'<ul class="key-list">{legend}</ul><details><summary>Values</summary>'
        + table(head, rows, "lnnnnn", "Throughput against latency")
        + f"</details>{why}",
        "Images a second (across) against latency (up)",
        kinds,
    )


def _curves(bench: BenchResult, name: str, index: int) -> list[charts.Curve]:
    own = [p for p in bench.sweep if p.engine == name]
    streams = [p for p in own if p.batch == own[0].batch]
    batches = [own[0], *(p for p in own if p.batch != own[0].batch)]
    found = []
    for points, dashed in ((streams, False), (batches, True)):
        if len(points) > 1 or not dashed:
            marks = tuple((p.throughput, p.median, f"batch {p.batch}, {_streams(p.lanes)}") for p in points)
            found.append(charts.Curve(name, marks, index, dashed))
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
                charts.waterfall([(s.name, s.milliseconds, s.inside_engine) for s in w.stages]),
                w.engine,
                f"{w.image}, {size_} pixels: {milliseconds(total)} ms, {milliseconds(inside)} ms in the engine",
            )
        )
    lead = '<p class="intro">Where the time goes from an image file to a written mask, medians of one image.</p>'
    return f'{lead}<div class="pair">{"".join(panels)}</div>'


def _roofline(bench: BenchResult) -> str:
    roof = bench.roofline
    rows = [
        [
            escape(r.engine),
            milliseconds(r.gflop),
            f"{r.megabytes:.1f}",
            f"{r.gflops:.0f}",
            f'{r.ceiling_gflops:.0f}<span class="what">{escape(r.ceiling)}</span>',
            milliseconds(r.bound_ms),
            f"<b>{r.share * 100:.0f} %</b>",
            escape(r.limited_by),
        ]
        for r in roof.rows
    ]
    head = ["engine", "GFLOP", "MB moved", "GFLOP/s", "ceiling", "bound ms", "of the limit", "limited by"]
    how = "".join(f"<li>{escape(c.name)}: {c.value:.0f} {escape(c.unit)} – {escape(c.how)}</li>" for c in roof.ceilings)
    return (
        '<p class="intro">The work of each graph against what this machine reached in the same run on a plain matrix '
        "product and a plain copy. 100 % would be the limit.</p>"
        + panel(table(head, rows, "lnnnnnnl", "Roofline"))
        + f'<ul class="plain" style="margin-top:14px">{how}</ul>'
    )
