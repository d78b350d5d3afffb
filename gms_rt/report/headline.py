"""The answer of a bench for a reader who reads no table: one sentence and a few large figures."""

from __future__ import annotations

from collections.abc import Sequence

from gms_rt.bench.results import BenchResult, Measured
from gms_rt.report.model import Fact, Parity
from gms_rt.report.text import milliseconds, rate, ratio, score


def summary_sentence(result: BenchResult, parity: Sequence[Parity]) -> str:
    """The answer in one sentence."""
    best = _best(result, parity)
    if best is None:
        return ""
    proof = next((p for p in parity if p.engine == best.name), None)
    time = f"{best.name} segments {_images(best.batch)} in {milliseconds(best.total.median)} ms on this machine"
    if proof is None or proof.mean is None or proof.verdict == "stale":
        return f"{time}; that its masks are right is not certified."
    figures = f"mean Dice {score(proof.mean)}, lowest {score(proof.min)}"
    if proof.verdict != "pass":
        return f"{time}, but its masks do not pass as those of the FP32 reference ({figures})."
    return f"{time}, and its masks agree with those of the FP32 reference ({figures}; 1 is pixel for pixel)."


def _images(count: int) -> str:
    return "an image" if count == 1 else f"{count} images"


def _best(result: BenchResult, parity: Sequence[Parity]) -> Measured | None:
    """The fastest certified engine, else the fastest engine, else the fastest of all."""
    engines = [m for m in result.measured if m.kind == "engine"]
    passed = {p.engine for p in parity if p.verdict == "pass"}
    candidates = [m for m in engines if m.name in passed] or engines or list(result.measured)
    return min(candidates, key=lambda m: m.total.median / m.batch, default=None)


def headline_facts(result: BenchResult, parity: Sequence[Parity]) -> list[Fact]:
    """The figures that a reader looks for first: the fastest certified engine's, else the fastest's."""
    best = _best(result, parity)
    if best is None:
        return []
    facts = [
        Fact("Median latency", f"{milliseconds(best.total.median)} ms", f"{best.name}, {best.total.count} inferences"),
        Fact("99th percentile", f"{milliseconds(best.total.p99)} ms", f"spread (CoV) {best.total.cov:.1f} %"),
        Fact("Throughput", f"{rate(best.throughput)}/s", f"images, batch {best.batch}, {best.lanes} stream"
             + ("s" if best.lanes > 1 else "")),
    ]  # fmt: skip
    proof = next((p for p in parity if p.engine == best.name), None)
    if proof is not None and proof.mean is not None:
        tone = "good" if proof.verdict == "pass" else "bad"
        facts.append(Fact("Agreement with FP32", score(proof.mean), f"mean Dice, lowest {score(proof.min)}", tone))
    else:
        facts.append(Fact("Agreement with FP32", "not certified", "a latency without proof", "bad"))
    others = [m for m in result.measured if m is not best]
    if others:
        slowest = max(others, key=lambda m: m.total.median / m.batch)
        gain = (slowest.total.median / slowest.batch) / (best.total.median / best.batch)
        facts.append(Fact(f"Against {slowest.name}", ratio(gain), "as fast, by medians per image"))
    return facts
