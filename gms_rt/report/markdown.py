"""A report as Markdown that pastes into an issue: tables first, everything else in short lists."""

from __future__ import annotations

from gms_rt.bench.results import BenchResult
from gms_rt.report.model import Report
from gms_rt.report.text import agreement, energy, energy_words, milliseconds, rate, score, size, work


def render(report: Report) -> str:
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
    header = ["engine", "median ms", "mean", "p90", "p95", "p99", "min", "max", "CoV %", "images/s", "parity"]
    rows = []
    for m in bench.measured:
        t = m.total
        cells = [milliseconds(v) for v in (t.median, t.mean, t.p90, t.p95, t.p99, t.min, t.max)]
        mark = agreement(m, report.parity_of(m.name))
        rows.append([f"{m.name} ({m.precision}, {m.execution})", *cells, f"{t.cov:.1f}", rate(m.throughput), mark])
    parts = ["## Latency", _table(header, rows)]
    header = ["engine", "enqueue ms", "H2D", "compute", "D2H", "batch", "streams", "threads", "load ms", "first ms",
              "peak memory", "device memory", "energy/image", "parameters", "GFLOP"]  # fmt: skip
    rows = [
        [m.name]
        + [milliseconds(v.median) for v in (m.enqueue, m.h2d, m.compute, m.d2h)]
        + [str(m.batch), str(m.lanes), str(m.threads) if m.threads else "–"]
        + [milliseconds(m.cold.load_ms), milliseconds(m.cold.first_inference_ms)]
        + [size(m.cold.host_bytes), size(m.cold.device_bytes), energy(m), *work(m)]
        for m in bench.measured
    ]
    parts.append(_table(header, rows))
    notes = [f"{m.name}: {w}" for m in bench.measured for w in m.warnings]
    notes += dict.fromkeys(filter(None, map(energy_words, bench.measured)))
    notes += sorted({f"{m.name}: {s}" for m in bench.measured for s in m.settings})
    notes.append(
        f"{bench.round_count} interleaved rounds of {bench.round_seconds:.2f} s each; latency = H2D + compute + D2H; "
        "percentiles by trtexec's index rule"
    )
    parts.append("\n".join(f"- {_text(n)}" for n in notes))
    if bench.sweep:
        rows = [[p.engine, str(p.batch), str(p.lanes), milliseconds(p.median), milliseconds(p.p95), rate(p.throughput)]
                for p in bench.sweep]  # fmt: skip
        parts += ["## Throughput against latency",
                  _table(["engine", "batch", "streams", "median ms", "p95", "images/s"], rows)]  # fmt: skip
    if bench.sweep_why:
        parts.append(f"- {_text(bench.sweep_why)}")
    for w in bench.waterfalls:
        rows = [[s.name, milliseconds(s.milliseconds)] for s in w.stages]
        rows.append(["total", milliseconds(sum(s.milliseconds for s in w.stages))])
        parts += [f"## From file to mask: {_text(w.engine)}", _table(["stage", "ms"], rows)]
    roof = bench.roofline
    if roof.rows:
        rows = [
            [
                r.engine,
                milliseconds(r.gflop),
                f"{r.megabytes:.1f}",
                f"{r.gflops:.0f}",
                f"{r.ceiling_gflops:.0f} ({r.ceiling})",
                milliseconds(r.bound_ms),
                f"{r.share * 100:.0f} %",
                r.limited_by,
            ]
            for r in roof.rows
        ]
        head = ["engine", "GFLOP", "MB", "GFLOP/s reached", "ceiling", "bound ms", "of the limit", "limited by"]
        parts += ["## How near the limit", _table(head, rows)]
        parts.append("\n".join(f"- {c.name}: {c.value:.0f} {c.unit} ({c.how})" for c in roof.ceilings))
    elif roof.why:
        parts.append(f"- roofline: {_text(roof.why)}")
    return parts


def _parity(report: Report) -> list[str]:
    proven = [p for p in report.parity if p.mean is not None]
    if not proven:
        return []
    rows = []
    for p in proven:
        truth = "–" if p.truth_mean is None else f"{score(p.truth_mean)} (reference {score(p.truth_mean_reference)})"
        rows.append(
            [
                p.engine,
                p.verdict,
                score(p.mean),
                f"{score(p.low)}–{score(p.high)}",
                f"{score(p.min)} ({p.worst})",
                f"{p.flipped} of {p.pixels}",
                truth,
            ]
        )
    head = ["engine", "verdict", "mean Dice", "95 % interval", "minimum", "flipped pixels", "Dice to truth"]
    words = "\n".join(f"- {_text(p.engine)}: {_text(p.in_words)}{f'; {_text(p.why)}' if p.why else ''}" for p in proven)
    return ["## Parity", _table(head, rows), words]


def _identity(report: Report) -> list[str]:
    facts = [*report.identity.hardware, *report.identity.software]
    parts = ["## Device", _table(["", ""], [["device", report.identity.device], *([f.label, f.value] for f in facts)])]
    if report.bench and report.bench.state:
        rows = [[r.name, r.before or f"absent: {r.why}", r.after or "–"] for r in report.bench.state]
        parts.append(_table(["state", "before", "after"], rows))
    return parts


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_text(c) for c in row) + " |" for row in lines)


def _line(text: str) -> str:
    # A name must not end the code block.
    return text.replace("\n", " ").replace("`" * 3, "'")


def _text(text: str) -> str:
    # A name must not end a cell or start a tag.
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
