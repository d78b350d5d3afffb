"""The table of a sweep (`sweep.json`) as one HTML page that opens offline, with the chart of Dice against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from gms_rt.report import charts
from gms_rt.report.html import STYLE, page_head
from gms_rt.report.html_parts import cell, dot, html_table, panel, section

_HEADER = (
    "model",
    "GFLOP",
    "ms",
    "MB",
    "validation Dice",
    "Dice",
    "Dice to teacher",
    "minus teacher",
    "minus untaught",
)


def page_from_sweep(values: Mapping[str, Any]) -> str:
    """The page of a sweep's values."""
    rows: Sequence[Mapping[str, Any]] = values["rows"]
    style = resources.files("gms_rt.report").joinpath(STYLE).read_text(encoding="utf-8")
    lead = (
        f"{values['cases']} cases ({values['part']}), one picture on {values['device']} in {values['execution']}. "
        "Weights were chosen on validation; choose a size by that column."
    )
    legend = f"{dot(charts.colour(0))} taught &nbsp; {dot(charts.colour(1))} without a teacher (hollow) &nbsp; "
    legend += f"{dot(charts.colour(2))} the teacher"
    body = section(
        "chart", "Dice against time", panel(charts.pareto_chart(_points(rows)) + f'<p class="legend">{legend}</p>')
    )
    kinds = "l" + "n" * (len(_HEADER) - 1)
    figures = html_table(list(_HEADER), [_cells(row) for row in rows], kinds, "Every model of the sweep")
    body += section("table", "The table", panel(figures))
    return (
        page_head("Students of several sizes", style)
        + '<body><div class="page"><main id="main"><header class="hero"><h1>Students of several sizes</h1>'
        + f'<p class="lead">{escape(values["verdict"])}</p><p class="sub"><span>{escape(lead)}</span></p></header>'
        + body
        + "</main>\n<footer>Not for clinical use.</footer></div></body></html>\n"
    )


def _points(rows: Sequence[Mapping[str, Any]]) -> list[charts.ParetoPoint]:
    found = []
    for row in rows:
        if row["dice"] is None or row["milliseconds"] is None:
            continue
        low, high = row["dice"]["interval95"]
        series = {True: 0, False: 1, None: 2}[row["taught"]]
        found.append(
            charts.ParetoPoint(
                row["name"], row["milliseconds"], row["dice"]["mean"], (low, high), series, row["taught"] is False
            )
        )
    return found


def _cells(row: Mapping[str, Any]) -> list[str]:
    dice, agreed = row["dice"], row["dice_to_teacher"]
    return [
        cell(row["name"]),
        _figure(row["gflop"], "{:.2f}"),
        _figure(row["milliseconds"], "{:.2f}"),
        _figure(row["megabytes"], "{:.1f}"),
        _figure(row["validation_dice"], "{:.4f}"),
        "-" if dice is None else cell(f"{dice['mean']:.4f}", "{:.4f} to {:.4f}".format(*dice["interval95"])),
        "-" if agreed is None else cell(f"{agreed['mean']:.4f}", "{:.4f} to {:.4f}".format(*agreed["interval95"])),
        _paired(row["minus_teacher"]),
        _paired(row["minus_untaught"]),
    ]


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _paired(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    low, high = found["interval95"]
    return cell(f"{found['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}, p {found['wilcoxon_p']:.2g}")
