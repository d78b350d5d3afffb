"""`gms-rt distill --sweep`: students of several sizes as a table, as `sweep.json` and as a page with a chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gms_rt.artifacts import write_bytes
from gms_rt.cli.console import Console, StageBars, table
from gms_rt.errors import UsageError

if TYPE_CHECKING:
    from gms_rt.distill.request import DistillRequest
    from gms_rt.distill.sweep import Sweep, SweepRow

PAGE = "sweep.html"
_HEADER = [
    "model", "GFLOP", "ms here", "MB", "validation", "Dice", "95 %", "to teacher", "minus teacher", "minus untaught",
]  # fmt: skip


def budgets_from_text(text: str) -> list[float]:
    """The sizes of `--sweep`, in GFLOP.

    >>> budgets_from_text("0.25,1")
    [0.25, 1.0]
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < budget < 1e6 for budget in found):
        raise UsageError(f"'{text}' is not a list of sizes", where="--sweep", fix="give GFLOP, such as 0.25,0.5,1,2")
    return found


def sweep_and_print(request: DistillRequest, budgets: list[float], part: str, console: Console) -> None:
    """Train and measure all sizes, write the table and the page, and print."""
    from gms_rt.distill.sweep import SWEEP, measure_sweep, train_sweep
    from gms_rt.report.sweep import page_from_sweep

    with StageBars() as bars:
        students, _ = train_sweep(request, budgets, bars.show)
        sweep = measure_sweep(students, request, part, bars.show)
    write_bytes(request.out / PAGE, page_from_sweep(sweep.to_values()).encode())
    console.result(sweep.to_values(), _screen(sweep, request.out, SWEEP))


def _screen(sweep: Sweep, out: Path, file: str) -> str:
    lines = [table([_cells(row) for row in sweep.rows], header=_HEADER)]
    lines += [
        f"{sweep.cases} cases ({sweep.part}); ms: one picture on {sweep.device}, {sweep.execution}; Dice to the truth "
        "at the pictures' own size, to the teacher at network size; differences are paired, in Dice, with their 95 % "
        "interval and Wilcoxon's p",
        sweep.verdict,
        "weights were chosen on validation: choose a size by that column, and look at the test once",
        f"wrote {out / file} and {out / PAGE}",
    ]
    return "\n".join(line for line in lines if line)


def _cells(row: SweepRow) -> list[str]:
    dice = row.dice
    return [
        row.name,
        "-" if row.gflop is None else f"{row.gflop:.2f}",
        "-" if row.milliseconds is None else f"{row.milliseconds:.2f}",
        f"{row.megabytes:.1f}",
        "-" if row.validation_dice is None else f"{row.validation_dice:.4f}",
        "-" if dice is None else f"{dice['mean']:.4f}",
        "-" if dice is None else "{:.4f} to {:.4f}".format(*dice["interval95"]),
        "-" if row.dice_to_teacher is None else f"{row.dice_to_teacher['mean']:.4f}",
        _paired(row.minus_teacher),
        _paired(row.minus_untaught),
    ]


def _paired(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["interval95"]
    return f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f}, p {found['wilcoxon_p']:.2g})"
