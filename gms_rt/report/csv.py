"""A report as CSV: one line an engine or peer, every figure, the parity verdict beside each latency.

After them come the points of the throughput-latency curve, a line each, of kind "sweep"; what a point does not have is
empty.
"""

from __future__ import annotations

import csv
import io

from gms_rt.report.model import Report

_LATENCIES = ("min", "mean", "median", "p90", "p95", "p99", "max", "cov")
_PARTS = ("enqueue", "h2d", "compute", "d2h")


def render(report: Report) -> str:
    """The engines table as CSV text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header = (
        ["name", "kind", "precision", "execution", "backend", "device", "batch", "lanes", "threads"]
        + [f"latency_{name}{'_percent' if name == 'cov' else '_ms'}" for name in _LATENCIES]
        + [f"{part}_median_ms" for part in _PARTS]
        + ["median_low_ms", "median_high_ms", "images_per_second", "samples", "seconds", "load_ms"]
        + [
            "first_inference_ms",
            "peak_host_bytes",
            "peak_device_bytes",
            "joules_per_image",
            "idle_watts",
            "gflop",
            "parameters",
        ]
        + ["parity", "parity_dice_mean", "parity_dice_min", "truth_dice", "warnings"]
    )
    writer.writerow(header)
    for m in report.measured():
        parity = report.parity_of(m.name)
        engine = m.kind == "engine"
        writer.writerow(
            [_plain(m.name), m.kind, m.precision, m.execution, m.backend, m.device, m.batch, m.lanes, m.threads]
            + [_number(getattr(m.total, name)) for name in _LATENCIES]
            + [_number(getattr(m, part).median) for part in _PARTS]
            + [_number(m.low), _number(m.high), _number(m.throughput), m.total.count, _number(m.seconds)]
            + [_number(m.cold.load_ms), _number(m.cold.first_inference_ms), m.cold.host_bytes, m.cold.device_bytes]
            + [
                _number(m.energy.joules_per_image),
                _number(m.energy.idle_watts),
                _number(m.flop / 1e9 if m.flop else None),
                m.parameters,
            ]
            + [parity.verdict if engine else "peer"]
            + [_number(parity.mean if engine else m.reference_dice), _number(parity.min)]
            + [_number(parity.truth_mean if engine else m.truth_dice)]
            + ["; ".join((*m.warnings, *(report.bench.warnings if report.bench else ())))]
        )
    for point in report.bench.sweep if report.bench else ():
        cells = {
            "name": _plain(point.engine),
            "kind": "sweep",
            "batch": point.batch,
            "lanes": point.lanes,
            "latency_median_ms": _number(point.median),
            "latency_p95_ms": _number(point.p95),
            "images_per_second": _number(point.throughput),
            "parity": report.parity_of(point.engine).verdict,
        }
        writer.writerow([cells.get(name, "") for name in header])
    return stream.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _plain(text: str) -> str:
    # A spreadsheet would run a name that begins like a formula.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
