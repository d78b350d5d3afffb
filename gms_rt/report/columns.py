"""Every table of a report, column by column, once: what machines get and what people read, in each rendering."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gms_rt.bench.results import EngineLayers, Latency, LayerRow, Measured, RooflineRow, SweepPoint
from gms_rt.report.model import Parity, Report
from gms_rt.report.text import MARKS, arithmetic_name, distance, energy, milliseconds, rate, score, size

T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """One figure of each row."""

    key: str  # its name in CSV
    heading: str  # over it in tables for people
    value: Callable[[T], Any]  # what machines get
    text: Callable[[T], str]  # what people read
    note: Callable[[T], str] = lambda row: ""  # what they read in smaller print
    words: bool = False  # words are set to the left, figures to the right

    def whole(self, row: T) -> str:
        """Text and note in one line."""
        text, note = self.text(row), self.note(row)
        return f"{text} ({note})" if text and note else text or note or "–"


@dataclass(frozen=True)
class TimedRow:
    """One engine or peer as the tables show it."""

    measured: Measured
    parity: Parity
    warnings: tuple[str, ...]  # of the row and of the whole bench

    @property
    def total(self) -> Latency:
        """The latency of whole inferences."""
        return self.measured.total


def timed_rows(report: Report) -> list[TimedRow]:
    """A row for everything that was timed."""
    every = report.bench.warnings if report.bench else ()
    return [TimedRow(m, report.parity_of(m.name), (*m.warnings, *every)) for m in report.measured()]


def columns_by_key(columns: Sequence[Column[T]], keys: Iterable[str]) -> list[Column[T]]:
    """Some columns by key, in that order."""
    by_key = {column.key: column for column in columns}
    return [by_key[key] for key in keys]


def _word(key: str, heading: str, value: Callable[[T], str], note: Callable[[T], str] = lambda row: "") -> Column[T]:
    return Column(key, heading, value, value, note, words=True)


def _count(key: str, heading: str, value: Callable[[T], int]) -> Column[T]:
    return Column(key, heading, value, lambda row: str(value(row) or "–"))


def _figure(
    key: str,
    heading: str,
    value: Callable[[T], Any],
    text: Callable[[Any], str] = milliseconds,
    note: Callable[[T], str] = lambda row: "",
) -> Column[T]:
    return Column(key, heading, value, lambda row: text(value(row)), note)


def _model(row: TimedRow) -> str:
    m = row.measured
    return f"{m.precision} on {m.backend}, {m.execution}" if m.kind == "engine" else f"peer: {m.backend}, {m.execution}"


def _interval(row: TimedRow) -> str:
    return f"{milliseconds(row.measured.low)}–{milliseconds(row.measured.high)}"


def _proof(row: TimedRow) -> str:
    """The certificate's figures for an engine, plain Dice for a peer."""
    m, parity = row.measured, row.parity
    parts = []
    if m.kind == "engine" and parity.mean is not None:
        parts.append(f"Dice {score(parity.mean)}, lowest {score(parity.min)}")
    if m.reference_dice is not None:
        parts.append(f"Dice {score(m.reference_dice)} to the reference")
    if m.truth_dice is not None:
        parts.append(f"Dice {score(m.truth_dice)} to the truth")
    return ", ".join(parts)


def _is_engine(row: TimedRow) -> bool:
    return row.measured.kind == "engine"


TIMED: tuple[Column[TimedRow], ...] = (
    _word("name", "engine", lambda r: r.measured.name, _model),
    _word("kind", "kind", lambda r: r.measured.kind),
    _word("precision", "precision", lambda r: r.measured.precision),
    _word("execution", "arithmetic", lambda r: r.measured.execution),
    _word("backend", "backend", lambda r: r.measured.backend),
    _word("device", "device", lambda r: r.measured.device),
    _count("batch", "batch", lambda r: r.measured.batch),
    _count("lanes", "streams", lambda r: r.measured.lanes),
    _count("threads", "threads", lambda r: r.measured.threads),
    _figure("latency_min_ms", "min", lambda r: r.total.min),
    _figure("latency_mean_ms", "mean", lambda r: r.total.mean),
    _figure("latency_median_ms", "median ms", lambda r: r.total.median, note=_interval),
    _figure("latency_p90_ms", "p90", lambda r: r.total.p90),
    _figure("latency_p95_ms", "p95", lambda r: r.total.p95),
    _figure("latency_p99_ms", "p99", lambda r: r.total.p99),
    _figure("latency_max_ms", "max", lambda r: r.total.max),
    _figure("latency_cov_percent", "CoV %", lambda r: r.total.cov, "{:.1f}".format),
    _figure("enqueue_median_ms", "enqueue ms", lambda r: r.measured.enqueue.median),
    _figure("h2d_median_ms", "H2D", lambda r: r.measured.h2d.median),
    _figure("compute_median_ms", "compute", lambda r: r.measured.compute.median),
    _figure("d2h_median_ms", "D2H", lambda r: r.measured.d2h.median),
    _figure("median_low_ms", "median from", lambda r: r.measured.low),
    _figure("median_high_ms", "median to", lambda r: r.measured.high),
    _figure("images_per_second", "images/s", lambda r: r.measured.throughput, rate),
    _count("samples", "samples", lambda r: r.total.count),
    _figure("seconds", "seconds", lambda r: r.measured.seconds, "{:.1f}".format),
    _figure("load_ms", "load ms", lambda r: r.measured.cold.load_ms),
    _figure("first_inference_ms", "first ms", lambda r: r.measured.cold.first_inference_ms),
    _figure("peak_host_bytes", "peak memory", lambda r: r.measured.cold.host_bytes, size),
    _figure("peak_device_bytes", "device memory", lambda r: r.measured.cold.device_bytes, size),
    _figure("joules_per_image", "energy/image", lambda r: r.measured.energy.joules_per_image, energy),
    _figure("idle_watts", "idle W", lambda r: r.measured.energy.idle_watts),
    _figure("gflop", "GFLOP", lambda r: r.measured.flop / 1e9 if r.measured.flop else None),
    _figure("parameters", "parameters", lambda r: r.measured.parameters,
            lambda count: "–" if count is None else f"{count / 1e6:.2f} M"),
    Column("parity", "parity", lambda r: r.parity.verdict if _is_engine(r) else "peer",
           lambda r: MARKS[r.parity.verdict] if _is_engine(r) else "", _proof, words=True),
    _figure("parity_dice_mean", "mean Dice", lambda r: r.parity.mean if _is_engine(r) else r.measured.reference_dice,
            score),
    _figure("parity_dice_min", "lowest Dice", lambda r: r.parity.min, score),
    _figure("truth_dice", "Dice to truth", lambda r: r.parity.truth_mean if _is_engine(r) else r.measured.truth_dice,
            score),
    _word("warnings", "warnings", lambda r: "; ".join(r.warnings)),
)  # fmt: skip
# The columns that a reader asks for first, those that a wide page adds, and all about one inference and its process.
ANSWER = ("name", "latency_median_ms", "latency_p95_ms", "latency_p99_ms", "images_per_second", "latency_cov_percent",
          "parity")  # fmt: skip
SPREAD = ("latency_min_ms", "latency_mean_ms", "latency_p90_ms", "latency_max_ms")
DETAILS = ("name", "enqueue_median_ms", "h2d_median_ms", "compute_median_ms", "d2h_median_ms", "samples", "batch",
           "lanes", "threads", "load_ms", "first_inference_ms", "peak_host_bytes", "peak_device_bytes",
           "joules_per_image", "parameters", "gflop")  # fmt: skip

# Keys as in `TIMED`, because a CSV file holds both kinds of rows.
SWEPT: tuple[Column[SweepPoint], ...] = (
    _word("name", "engine", lambda p: p.engine),
    _count("batch", "batch", lambda p: p.batch),
    _count("lanes", "streams", lambda p: p.lanes),
    _figure("latency_median_ms", "median ms", lambda p: p.median),
    _figure("latency_p95_ms", "p95", lambda p: p.p95),
    _figure("images_per_second", "images/s", lambda p: p.throughput, rate),
)

ROOFLINE: tuple[Column[RooflineRow], ...] = (
    _word("name", "engine", lambda r: r.engine),
    _figure("gflop", "GFLOP", lambda r: r.gflop),
    _figure("megabytes", "MB moved", lambda r: r.megabytes, "{:.1f}".format),
    _figure("gflops", "GFLOP/s", lambda r: r.gflops, "{:.0f}".format),
    _figure("ceiling_gflops", "ceiling", lambda r: r.ceiling_gflops, "{:.0f}".format, lambda r: r.ceiling),
    _figure("bound_ms", "bound ms", lambda r: r.bound_ms),
    _figure("share", "of the limit", lambda r: r.share, lambda share: f"{share * 100:.0f} %"),
    _word("limited_by", "limited by", lambda r: r.limited_by),
)


LAYERS: tuple[Column[LayerRow], ...] = (
    _word("layer", "layer", lambda r: r.name),
    _word("stage", "stage", lambda r: r.stage),
    _word("kind", "kind", lambda r: r.kind or "–"),
    _word("arithmetic", "runs in", lambda r: arithmetic_name(r.arithmetic)),
    _figure("milliseconds", "ms", lambda r: r.milliseconds),
    _figure("gflop", "GFLOP", lambda r: r.gflop),
    _figure("distance", "distance", lambda r: r.distance, distance),
)
_SHORT = 0.01  # milliseconds; layers that take less are told of by their number


def layers_shown(found: EngineLayers) -> list[LayerRow]:
    """The layers that a reader looks for, the one that differs most first."""
    return [row for row in found.layers if row.milliseconds >= _SHORT or row.name in found.worth]


def _reference_dice(parity: Parity) -> str:
    return "" if parity.truth_mean_reference is None else f"reference {score(parity.truth_mean_reference)}"


PROVEN: tuple[Column[Parity], ...] = (
    _word("name", "engine", lambda p: p.engine),
    _word("verdict", "verdict", lambda p: MARKS[p.verdict]),
    _figure("mean", "mean Dice", lambda p: p.mean, score),
    Column("interval", "95 % interval", lambda p: (p.low, p.high), lambda p: f"{score(p.low)}–{score(p.high)}"),
    _figure("min", "lowest", lambda p: p.min, score, lambda p: p.worst),
    _figure("flipped", "flipped pixels", lambda p: p.flipped, "{:,}".format, lambda p: f"of {p.pixels:,}"),
    _figure("truth", "Dice to truth", lambda p: p.truth_mean, score, _reference_dice),
)
