"""The few HTML pieces that every section is made of. Cells arrive as HTML, everything else as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TypeVar

from gms_rt.report.columns import Column
from gms_rt.report.text import MARKS

T = TypeVar("T")


def section(anchor: str, title: str, body: str) -> str:
    """A section with its heading."""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-h"><h2 id="{anchor}-h">{escape(title)}</h2>{body}</section>'
    )


def panel(body: str, title: str = "", note: str = "") -> str:
    """A card around one thing."""
    small = f" <small>{escape(note)}</small>" if note else ""
    return f'<div class="panel">{f"<h3>{escape(title)}{small}</h3>" if title else ""}{body}</div>'


def badge(verdict: str, text: str = "") -> str:
    """A verdict as a coloured word."""
    return f'<span class="badge {verdict}">{escape(text or MARKS[verdict])}</span>'


def dot(colour: str) -> str:
    """A coloured dot for a legend."""
    return f'<span class="dot" style="background:{colour}"></span>'


def html_table(header: list[str], rows: list[list[str]], kinds: str, label: str) -> str:
    """A table that scrolls by itself on a narrow screen; kinds: n number, l left, k key of a list.

    The first column names its row when it is of kind n or l.
    """
    head = "".join(f'<th scope="col" class="{k if k == "n" else ""}">{escape(h)}</th>'
                   for h, k in zip(header, _aligned(kinds), strict=True)) if header else ""  # fmt: skip
    body = "".join(f"<tr>{_cells(row, _aligned(kinds))}</tr>" for row in rows)
    # A scrolling region must be reachable by keyboard.
    region = f' tabindex="0" role="region" aria-label="{escape(label)}"' if label else ""
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="scroll"{region}><table>{head}<tbody>{body}</tbody></table></div>'


def table_from_columns(
    columns: Sequence[Column[T]],
    rows: Sequence[T],
    label: str,
    changed: Callable[[T, Column[T]], str | None] | None = None,
) -> str:
    """A table of rows by their columns; `changed` may give the HTML of a cell that needs more than text and note."""
    cells = []
    for row in rows:
        own = [changed(row, column) if changed else None for column in columns]
        cells.append([cell(c.text(row), c.note(row)) if o is None else o for c, o in zip(columns, own, strict=True)])
    kinds = "".join("l" if column.words else "n" for column in columns)
    return html_table([column.heading for column in columns], cells, kinds, label)


def cell(text: str, note: str = "") -> str:
    """A cell with a second line in smaller print."""
    return escape(text) + (f'<span class="what">{escape(note)}</span>' if note else "")


def _cells(row: list[str], kinds: str) -> str:
    cells = zip(row, kinds, strict=True)
    return "".join(f'<td class="{_class(i, kind)}">{cell}</td>' for i, (cell, kind) in enumerate(cells))


def _aligned(kinds: str) -> str:
    return "l" + kinds[1:] if kinds[0] == "n" else kinds


def _class(index: int, kind: str) -> str:
    if kind == "n":
        return "n"
    return "name" if index == 0 and kind == "l" else ""
