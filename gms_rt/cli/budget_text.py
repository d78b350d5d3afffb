"""The table of a latency budget as text: what was tried, how fast and how faithful it is, what was taken and why."""

from __future__ import annotations

from collections.abc import Sequence

from gms_rt.cli.console import table
from gms_rt.engine.budget import BudgetRow
from gms_rt.precision.gate import promise_text

_HEADER = ["engine", "threads", "median ms", "p99 ms", "Dice to FP32", "bound", "Dice to truth", "MiB", "verdict"]


def budget_lines(rows: Sequence[BudgetRow], budget: float, why: str) -> list[str]:
    """The table, the fastest first; `*` is the chosen row, `+` one that no other beats in everything."""
    ordered = sorted(rows, key=lambda row: (row.milliseconds is None, row.milliseconds or 0.0))
    lines = ["", table([_cells(row, budget) for row in ordered], header=_HEADER)]
    lines.append("* chosen   + no other that holds the gate is faster, closer, smaller and has fewer threads")
    lines += [f"{row.label}: {promise_text(row.gate.get('promise'))}" for row in rows if row.chosen and row.gate]
    lines += [f"{row.name}: {row.why}" for row in {row.name: row for row in rows if row.why}.values()]
    runs = sorted({row.runs for row in rows if row.runs})
    if runs:
        counts = f"{runs[0]}" if runs[0] == runs[-1] else f"{runs[0]} to {runs[-1]}"
        lines.append(f"timed in turn on this device, {counts} inferences each")
    return [*lines, f"budget: {why}", ""] if why else lines


def _cells(row: BudgetRow, budget: float) -> list[str]:
    mark = "* " if row.chosen else "+ " if row.pareto else "  "
    gate, truth = row.gate, row.truth
    promise = gate.get("promise") if gate else None
    return [
        mark + row.name,
        str(row.threads or "-"),
        "-" if row.milliseconds is None else f"{row.milliseconds:.2f}",
        "-" if row.p99 is None else f"{row.p99:.2f}",
        f"{gate['mean']:.4f}" if gate else "-",
        f"{promise['dice']:.4f}" if promise else f"(lowest {gate['minimum']:.4f})" if gate else "-",
        f"{truth['mean']:.4f} ({truth['low']:.4f}-{truth['high']:.4f})" if truth else "-",
        f"{row.bytes / 2**20:.2f}" if row.bytes else "-",
        _verdict(row, budget),
    ]


def _verdict(row: BudgetRow, budget: float) -> str:
    if row.why:
        return "not judged" if row.why.startswith(("it is not judged", "not judged", "judged on")) else "not taken"
    if row.milliseconds is None:
        return "not timed"
    return "taken" if row.chosen else "fits" if row.milliseconds <= budget else "too slow"
