"""Single values of a DICOM header, as the standard allows them: what is absent or broken is empty, never made up."""

from __future__ import annotations

import re
from typing import Any

LONG, SHORT = 64, 16  # characters of a DICOM long and short string


def text_value(header: Any, name: str, longest: int) -> str:
    """A text of the header in one line, without what DICOM text may not hold; empty where it is absent or broken."""
    try:
        value = header.get(name)
        text = "" if value is None else str(value)
    except Exception:  # hostile bytes fail in many ways
        return ""
    return " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in text).split())[:longest].strip()


def date_value(header: Any, name: str) -> str:
    """A date as DICOM writes it today, also where it is written as before 1993 (2004.01.19); else empty."""
    text = text_value(header, name, LONG)
    found = re.fullmatch(r"(\d{4})[.-]?(0[1-9]|1[0-2])[.-]?(0[1-9]|[12]\d|3[01])", text)
    return "".join(found.groups()) if found else ""


def time_value(header: Any, name: str) -> str:
    """A time as DICOM writes it today, also where it is written as before 1993 (07:27:30); else empty."""
    text = text_value(header, name, LONG)
    found = re.fullmatch(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d)(?:\.(\d{1,6})\d*)?)?)?", text)
    if not found:
        return ""
    return "".join(part for part in found.groups()[:3] if part) + (f".{found[4]}" if found[4] else "")


def whole_number(header: Any, name: str) -> int:
    """A whole number of the header, 0 where there is none."""
    try:
        return int(header.get(name) or 0)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return 0


def person_value(header: Any, name: str) -> str:
    """A name in at most three spellings of five parts; empty where it is absent or broken."""
    groups = text_value(header, name, 3 * LONG + 2).split("=")[:3]
    return "=".join("^".join(group.split("^")[:5])[:LONG] for group in groups)


def choice_value(header: Any, name: str, values: tuple[str, ...]) -> str:
    """One of these words, in capitals; empty where the header says another."""
    text = text_value(header, name, SHORT).upper()
    return text if text in values else ""
