"""The tables and lines that `gms-rt eval` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gms_rt.cli.console import table

if TYPE_CHECKING:
    from gms_rt.evaluate.dataset import AverageEvaluation
    from gms_rt.evaluate.published import Numbers

HEADER = ["", "DSC", "95 % interval", "IoU", "HD95 hits", "HD95 all", "NSD"]
_HD95 = (
    "HD95: the larger of both surfaces' 95th percentiles of distance (MONAI's definition), in pixels; hits: where both "
    "masks have pixels; all: with the image's diagonal for a miss or a false alarm"
)
_PAPER = "The paper does not say how its HD95 counts a miss."


def result_row(label: str, summary: dict[str, Any]) -> list[str]:
    """The numbers at 224x224, as published."""
    return [label, *_cells(summary["at_224"])]


def published_row(label: str, numbers: Numbers) -> list[str]:
    """The paper's numbers in the same columns."""
    iou = "-" if numbers.iou is None else f"{numbers.iou:.2f}"
    return [label, f"{numbers.dsc:.2f}", "-", iou, "-", f"{numbers.hd95:.2f}", "-"]


def metric_notes(summary: dict[str, Any], *, published: bool) -> list[str]:
    """What the columns mean."""
    unit = "pixels" if summary["spacing"] == [1.0, 1.0] else "units of --spacing (pixels at 224x224)"
    nsd = f"NSD: share of both surfaces within {summary['nsd_tolerance']:g} {unit} of the other, in percent"
    return [f"{_HD95}. {_PAPER}" if published else _HD95, nsd]


def lesion_text(summary: dict[str, Any]) -> str:
    """Lesions found and false alarms per image, with intervals."""
    lesions = summary["lesions"]
    found = f"{lesions['found']} of {lesions['all']} lesions found"
    if lesions["sensitivity"]:
        share = lesions["sensitivity"]
        low, high = share["interval95"]
        found += f" (sensitivity {100 * share['mean']:.1f} %, {100 * low:.1f}-{100 * high:.1f})"
    alarms = lesions["false_alarms_per_image"]
    if not alarms:
        return found
    low, high = alarms["interval95"]
    return f"{found}, {alarms['mean']:.2f} false alarms per image ({low:.2f}-{high:.2f})"


def evaluation_text(summary: dict[str, Any], out: Path, each: dict[str, dict[str, Any]] | None = None) -> str:
    """The screen of one evaluation; `each` are the summaries of the models that were averaged."""
    from gms_rt.evaluate.published import GMS, key_of
    from gms_rt.metrics import LESION_IOU

    name = "average, " if each else ""
    rows = [result_row(f"{label}, at 224x224", one) for label, one in (each or {}).items()]
    rows += [[f"{name}at source size", *_cells(summary["source_size"])], result_row(f"{name}at 224x224", summary)]
    published = GMS.get(key_of(str(summary["data"])))
    rows += [published_row("published (paper, SD-VAE, 224x224)", published)] if published else []
    counts = summary["cases"]
    return "\n".join(
        [
            table(rows, header=HEADER),
            f"{counts['all']} cases: {counts['hit']} hits, {counts['miss']} misses, "
            f"{counts['false_alarm']} false alarms, {counts['both_empty']} both empty, {counts['failed']} failed",
            f"{lesion_text(summary)}; matched one to one where IoU is at least {LESION_IOU:g}",
            *metric_notes(summary, published=published is not None),
            f"{out}/cases.csv, {out}/summary.json, {out}/failures/",
        ]
    )


def average_text(result: AverageEvaluation, out: Path) -> str:
    """The screen of several models and their average, with the paired differences."""
    each = {label: one.summary for label, one in result.each.items()}
    lines = [f"average against {label}: {difference_text(found)}" for label, found in result.differences.items()]
    return "\n".join([evaluation_text(result.average.summary, out, each), *lines, f"each model's: {out}/each/"])


def comparison_line(found: dict[str, Any], other: Path) -> str:
    """The paired difference to an earlier evaluation."""
    area = found["area"]
    return (
        f"against {other}: {difference_text(found)}; "
        f"area bias {area['bias']:+.0f} pixels ({area['low']:+.0f} to {area['high']:+.0f})"
    )


def difference_text(found: dict[str, Any]) -> str:
    """A paired difference of Dice, with its interval."""
    dice = found["dice"]
    low, high = dice["interval95"]
    return (
        f"Dice {dice['difference']:+.4f} ({low:+.4f} to {high:+.4f}), "
        f"Wilcoxon p {dice['wilcoxon_p']:.3g}, {found['pairs']} pairs"
    )


def _cells(at: dict[str, Any]) -> list[str]:
    low, high = at["dice"]["interval95"] if at["dice"] else (0.0, 0.0)
    factors = {"dice": 100, "iou": 100, "hd95": 1, "hd95_penalised": 1, "nsd": 100}
    cells = [f"{at[name]['mean'] * factor:.2f}" if at[name] else "-" for name, factor in factors.items()]
    return [cells[0], f"{100 * low:.2f}-{100 * high:.2f}" if at["dice"] else "-", *cells[1:]]
