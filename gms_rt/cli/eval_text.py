"""The tables and lines that `gms-rt eval` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gms_rt.cli.console import table

if TYPE_CHECKING:
    from gms_rt.evaluate.dataset import AverageEvaluation

HEADER = ["", "DSC", "IoU", "HD95"]


def result_row(label: str, summary: dict[str, Any]) -> list[str]:
    """DSC and IoU in percent and HD95, at 224x224 as published."""
    return [label, *_cells(summary["at_224"])]


def evaluation_text(summary: dict[str, Any], out: Path, each: dict[str, dict[str, Any]] | None = None) -> str:
    """The screen of one evaluation; `each` are the summaries of the models that were averaged."""
    from gms_rt.evaluate.published import GMS, key_of, row

    name = "average of the probabilities, " if each else ""
    rows = [result_row(f"{label}, at 224x224", one) for label, one in (each or {}).items()]
    rows += [[f"{name}at source size", *_cells(summary["source_size"])], result_row(f"{name}at 224x224", summary)]
    published = GMS.get(key_of(str(summary["data"])))
    rows += [row("published (paper, SD-VAE, 224x224)", published)] if published else []
    counts = summary["cases"]
    low, high = summary["source_size"]["dice"]["interval95"] if summary["source_size"]["dice"] else (0.0, 0.0)
    return "\n".join(
        [
            table(rows, header=HEADER),
            f"{counts['all']} cases: {counts['hit']} hits, {counts['miss']} misses, "
            f"{counts['false_alarm']} false alarms, {counts['both_empty']} both empty, {counts['failed']} failed",
            f"DSC at source size, 95 % interval {100 * low:.2f}-{100 * high:.2f}",
            f"{out}/cases.csv, {out}/summary.json, {out}/failures/",
        ]
    )


def average_text(result: AverageEvaluation, out: Path) -> str:
    """The screen of several models and their average, with the paired differences."""
    each = {label: one.summary for label, one in result.each.items()}
    lines = [f"average against {label}: {_difference(found)}" for label, found in result.differences.items()]
    return "\n".join([evaluation_text(result.average.summary, out, each), *lines, f"each model's: {out}/each/"])


def comparison_line(found: dict[str, Any], other: Path) -> str:
    """The paired difference to an earlier evaluation."""
    area = found["area"]
    return (
        f"against {other}: {_difference(found)}; "
        f"area bias {area['bias']:+.0f} pixels ({area['low']:+.0f} to {area['high']:+.0f})"
    )


def _difference(found: dict[str, Any]) -> str:
    dice = found["dice"]
    low, high = dice["interval95"]
    return (
        f"Dice {dice['difference']:+.4f} ({low:+.4f} to {high:+.4f}), "
        f"Wilcoxon p {dice['wilcoxon_p']:.3g}, {found['pairs']} pairs"
    )


def _cells(at: dict[str, Any]) -> list[str]:
    factors = {"dice": 100, "iou": 100, "hd95": 1}
    return [f"{at[name]['mean'] * factor:.2f}" if at[name] else "-" for name, factor in factors.items()]
