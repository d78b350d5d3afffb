"""What the rows of a comparison say, in sentences that follow from the numbers alone."""

from __future__ import annotations

from typing import Any

from paper.cells import NAMES
from paper.systems import GMS, STUDENT, title_of


def reading_of_rows(rows: dict[str, Any]) -> str:
    """What a data set's rows say, in sentences: who is best, whether that is more than noise, who is fastest."""
    there = {key: row for key, row in rows.items() if row["dsc"] is not None}
    if len(there) < 2 or GMS not in there:
        return "Too little was run here to compare."
    best = max(there, key=lambda key: there[key]["dsc"])
    gms = there[GMS]
    lines = []
    if best == GMS:
        second = max((key for key in there if key != GMS), key=lambda key: there[key]["dsc"])
        apart = there[second]["high"] < gms["low"]
        lines.append(f"GMS has the highest DSC, {_title(second)} comes next; {_apart(apart)}")
    else:
        apart = gms["high"] < there[best]["low"]
        gap = there[best]["dsc"] - gms["dsc"]
        name = "The edge student" if best == STUDENT else _title(best)
        lines.append(f"{name} has the highest DSC, {gap:.1f} above GMS; {_apart(apart)}")
    times = {key: _fastest(row) for key, row in there.items() if _fastest(row) is not None}
    if GMS in times and len(times) > 1:
        first = min(times, key=lambda key: times[key] or 0.0)
        factor = (times[GMS] or 0.0) / (times[first] or 1.0)
        lines.append(
            "GMS has the fastest engine." if first == GMS else f"The fastest engine is that of {_title(first)}, "
            f"{_times(factor)} as fast as GMS's fastest."
        )  # fmt: skip
    return " ".join(lines)


def verdict_of_data(data: dict[str, Any]) -> str:
    """What follows from the tables; nothing where nothing was run."""
    won, lost = [], []
    for name, found in data.items():
        there = {key: row for key, row in found["rows"].items() if row["dsc"] is not None and key != STUDENT}
        if GMS not in there or len(there) < 2:
            continue
        best = max(there, key=lambda key: there[key]["dsc"])
        (won if best == GMS else lost).append(NAMES[name])
    if not won and not lost:
        return (
            "Nothing follows yet: no data set has both GMS and another model trained at equal time. The rows above say "
            "what was not run."
        )
    lines = []
    if won:
        lines.append(f"At this effort GMS has the highest DSC on {_joined(won)}.")
    if lost:
        lines.append(f"On {_joined(lost)} another model has the higher DSC for the same time.")
    lines += _of_students(data)
    lines.append("An interval that overlaps another decides nothing; more time may change the order.")
    return " ".join(lines)


def _of_students(data: dict[str, Any]) -> list[str]:
    """What the edge students lose against their teachers, and how much faster they are."""
    lost, gained = [], []
    for name, found in data.items():
        teacher, student = (found["rows"].get(key, {}) for key in (GMS, STUDENT))
        if teacher.get("dsc") is None or student.get("dsc") is None:
            continue
        lost.append(f"{student['dsc'] - teacher['dsc']:+.1f} on {NAMES[name]}")
        times = _fastest(teacher), _fastest(student)
        if times[0] and times[1]:
            gained.append(f"{times[0] / times[1]:.0f} on {NAMES[name]}")
    if not lost:
        return []
    line = f"The edge student's DSC differs from its teacher's by {_joined(lost)}"
    if gained:
        line += f"; in the time of one image of its teacher's fastest engine, its own does {_joined(gained)}"
    return [f"{line}."]


def _fastest(row: dict[str, Any]) -> float | None:
    engines = row.get("engines", {})
    passed = ["fp32", *(["int8"] if str(engines.get("gate", "")).startswith("pass") else [])]
    times = [engines[p]["median_ms"] for p in passed if "median_ms" in engines.get(p, {})]
    return min(times) if times else None


def _times(factor: float) -> str:
    return f"{factor:.1f} times" if factor < 10 else f"{factor:.0f} times"


def _apart(apart: bool) -> str:
    return "their 95 % intervals do not overlap." if apart else "their 95 % intervals overlap, so that decides nothing."


def _title(key: str) -> str:
    return "the edge student" if key == STUDENT else title_of(key)


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
