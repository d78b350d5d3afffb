"""A latency budget, the rows that were tried for it, and which of them is taken.

Of the rows that hold the gate and whose median is within the budget the most faithful is taken: those of the run itself
at the size that it was trained at come first, the closest to FP32 among them before the others, then other sizes and
students by their Dice to the truth; of equals the one with the fewest threads. Nothing here builds or measures.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gms_rt.errors import DeviceError, GateError, GmsError, UsageError

Kind = Literal["run", "size", "student"]
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class BudgetRow:
    """One engine with one number of threads: what it is, how fast it is here, and how far its masks can be trusted."""

    name: str  # of the engine: "int8", "int8 at 160x160", "student s, int8"
    kind: Kind  # the run as trained, the run at another size, or a student of it
    precision: str
    height: int = 0  # of the network's input; 0 where nothing could be built
    width: int = 0
    threads: int = 0  # of the CPU; 0 for a plan, or where it was not timed
    milliseconds: float | None = None  # median of one batch; None where it was not timed
    p99: float | None = None  # 99th percentile of the same inferences
    runs: int = 0  # how many they were
    execution: str = ""  # the arithmetic it runs in
    bytes: int = 0  # of what a device opens
    gate: dict[str, Any] | None = None  # Dice to FP32 of the same graph, as in `engine.json`
    truth: dict[str, Any] | None = None  # Dice to the truth, where true masks are known
    why: str = ""  # why it cannot be taken, whatever its time; empty for one that holds
    pareto: bool = False  # no other that holds is faster, closer and smaller
    chosen: bool = False

    @property
    def label(self) -> str:
        """The engine and its threads."""
        return f"{self.name}, {_threads(self.threads)}" if self.threads else self.name

    @property
    def fidelity(self) -> tuple[int, float]:
        """Orders rows: the run as trained by its Dice to FP32, which is exactly that of FP32; others by the truth."""
        if self.kind == "run":
            return 1, 1.0 if self.precision == "fp32" else self.gate["mean"] if self.gate else 0.0
        return 0, self.truth["mean"] if self.truth else 0.0


def milliseconds_from_text(text: str) -> float:
    """A time with its unit, in milliseconds.

    >>> milliseconds_from_text("30ms"), milliseconds_from_text("2.5 ms"), milliseconds_from_text("0.03s")
    (30.0, 2.5, 30.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s)\s*", text.lower())
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not value > 0 or not math.isfinite(value):
        raise UsageError(f"'{text}' is not a time", where="--budget", fix="write 30ms, 2.5ms or 0.03s")
    return round(value, 9)


def chosen_rows(rows: Sequence[BudgetRow], budget: float) -> tuple[BudgetRow, ...]:
    """The rows with the one to take marked, if there is one, and those that no other beats."""
    holding = [row for row in rows if not row.why and row.milliseconds is not None]
    within = [row for row in holding if row.milliseconds is not None and row.milliseconds <= budget]
    best = min(within, key=_preference, default=None)
    return tuple(
        dataclasses.replace(
            row,
            chosen=row is best,
            pareto=any(row is each for each in holding) and not any(_beats(other, row) for other in holding),
        )
        for row in rows
    )


def why_chosen(rows: Sequence[BudgetRow], budget: float) -> str:
    """Why the marked row was taken, in one sentence; empty where none was."""
    best = next((row for row in rows if row.chosen), None)
    if best is None or best.milliseconds is None or best.p99 is None:
        return ""
    within = [r for r in rows if not r.why and r.milliseconds is not None and r.milliseconds <= budget]
    of = "the only one" if len(within) == 1 else f"the closest of {len(within)}"
    said = f"{best.label}: {of} that holds the gate within {_ms(budget)} (median {_ms(best.milliseconds)})"
    if len(within) > 1:
        said = said.replace("that holds", "that hold")
    if best.p99 > budget:
        said += f"; its 99th percentile is {_ms(best.p99)}, so one inference in a hundred takes longer than that"
    if best.threads:
        said += f"; run it with --threads {best.threads}"
    return said


def nothing_within(rows: Sequence[BudgetRow], budget: float) -> GmsError:
    """The error where no row can be taken: what is nearest on both sides, and what would have to change."""
    timed = sorted((row for row in rows if row.milliseconds is not None), key=lambda row: row.milliseconds or 0.0)
    holding = [row for row in timed if not row.why]
    quick = [row for row in timed if row.why and (row.milliseconds or 0.0) <= budget]
    said, fixes = [], []
    if holding and holding[0].milliseconds is not None:
        said.append(f"the fastest that holds the gate is {holding[0].label} with {_ms(holding[0].milliseconds)}")
        fixes.append(f"--budget {_enough(holding[0].milliseconds)} would do")
    if quick:
        # One engine may be there with several numbers of threads.
        first = {row.name: row for row in reversed(quick)}
        nearest = sorted(first.values(), key=lambda row: row.fidelity, reverse=True)[:2]
        said += [f"{row.label} takes {_ms(row.milliseconds or 0.0)}, but {row.why}" for row in nearest]
        fixes.append("a lower gate would let a faster one through" if any(r.gate for r in nearest) else "")
    elif timed:
        fastest = timed[0]
        if not holding or fastest is not holding[0]:
            said.append(f"nothing is fast enough: {fastest.label} takes {_ms(fastest.milliseconds or 0.0)}")
    if not said:
        said = [f"nothing could be built: {'; '.join(f'{row.name}: {row.why}' for row in rows)}"]
    kind = GateError if quick else DeviceError
    fix = ", or ".join(filter(None, fixes)) or "use a smaller student or a faster device"
    return kind(f"nothing that holds the gate runs within {_ms(budget)} here: {'; '.join(said)}", fix=fix)


def _preference(row: BudgetRow) -> tuple[float, ...]:
    own, closeness = row.fidelity
    return -own, -closeness, row.threads, row.milliseconds or 0.0


def _beats(other: BudgetRow, row: BudgetRow) -> bool:
    """Whether another row is nowhere worse and somewhere better: faster, closer, smaller, with fewer threads."""

    def figures(each: BudgetRow) -> tuple[float, ...]:
        own, closeness = each.fidelity
        return -own, -closeness, each.milliseconds or 0.0, each.bytes, each.threads

    theirs, ours = figures(other), figures(row)
    return theirs != ours and all(a <= b for a, b in zip(theirs, ours, strict=True))


def _enough(milliseconds: float) -> str:
    """A budget a little above a time, as one writes it: measured again it will not be the same to the last digit.

    >>> _enough(41.23), _enough(0.731)
    ('44ms', '0.8ms')
    """
    places = 0 if milliseconds >= 10 else 1
    return f"{math.ceil(milliseconds * 1.05 * 10**places) / 10**places:g}ms"


def _ms(value: float) -> str:
    return f"{value:.4g} ms"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
