"""Text in CSV tables, so that a spreadsheet program shows it and computes nothing.

A cell that begins with = + - @ (or a tab or line end before them) is a formula to a spreadsheet, whatever quotes are
around it; file names and messages can come from anyone. Such text gets an apostrophe in front, as OWASP advises. Text
that begins with an apostrophe gets another, so that taking one away always gives the text back.
"""

from __future__ import annotations

_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "'")


def cell_from_text(text: str) -> str:
    """The text as a cell that no spreadsheet computes.

    >>> cell_from_text("=1+2.png"), cell_from_text("scan-1.png"), cell_from_text("'a")
    ("'=1+2.png", 'scan-1.png', "''a")
    """
    return f"'{text}" if text.startswith(_RISKY) else text


def text_from_cell(cell: str) -> str:
    """The text that a cell was made from.

    >>> text_from_cell("'=1+2.png"), text_from_cell("scan-1.png")
    ('=1+2.png', 'scan-1.png')
    """
    return cell.removeprefix("'")
