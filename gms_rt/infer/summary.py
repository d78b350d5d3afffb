"""A run in one screen and in summary.json: counts, rates, the slowest, the least confident, the failed."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from typing import Any

from gms_rt.infer.confidence import DEFINITION
from gms_rt.infer.measure import CaseRow

NOT_CLINICAL = "Not for clinical use."
_LISTED = 5
_WORK = {"decode": "reading scans", "infer": "the engine", "write": "writing files", "sync": "waiting for the disk"}
_REASONS = 100  # kinds of reasons counted one by one
_KEPT = 1000  # failed and referred cases named in summary.json; cases.csv has them all


class Summary:
    """Collects rows one by one; memory does not grow with them."""

    def __init__(self, refer_below: float | None) -> None:
        self.refer_below = refer_below
        self.sources = self.reused = self.cases = self.failed = self.empty = self.referred = 0
        self.seconds = 0.0
        self.stages: dict[str, Any] = {}
        self._slowest: list[tuple[float, int, str]] = []
        self._unsure: list[tuple[float, int, str]] = []
        self.skipped = 0
        self._reasons: dict[str, Counter[str]] = {"failed": Counter(), "skipped": Counter()}
        self._failures: list[dict[str, Any]] = []
        self._refer: list[dict[str, Any]] = []

    def without_rows(self, sources: int) -> Summary:
        """The same run with this many sources and none of its rows yet."""
        again = Summary(self.refer_below)
        again.sources, again.reused, again.seconds, again.stages = sources, self.reused, self.seconds, self.stages
        return again

    def add_source(self, reused: bool) -> None:
        """Count one finished source."""
        self.sources += 1
        self.reused += reused

    def add(self, row: CaseRow) -> None:
        """Count one row, with its `refer` column set."""
        self.cases += 1
        if row["status"] in self._reasons:
            self._count_reason(self._reasons[row["status"]], reason_kind(str(row.get("error") or "")))
        if row["status"] == "skipped":
            self.skipped += 1
            return
        if row["status"] == "failed":
            self.failed += 1
            if len(self._failures) < _KEPT:
                self._failures.append({key: row.get(key) for key in ("case", "source", "frame", "error")})
            return
        self.empty += row["status"] == "empty"
        _keep(self._slowest, (row["seconds"], self.cases, row["case"]))
        _keep(self._unsure, (-row["confidence"], self.cases, row["case"]))
        if row.get("refer") == "yes":
            self.referred += 1
            if len(self._refer) < _KEPT:
                self._refer.append({"case": row["case"], "confidence": row["confidence"]})

    @staticmethod
    def _count_reason(counts: Counter[str], reason: str) -> None:
        counts[reason if reason in counts or len(counts) < _REASONS else "other reasons"] += 1

    def value(self) -> dict[str, Any]:
        """The content of summary.json."""
        segmented = self.cases - self.failed - self.skipped
        rate = segmented / self.seconds if self.seconds and not self.reused else None
        return {
            "note": NOT_CLINICAL,
            "sources": self.sources,
            "sources_done_before": self.reused,
            "cases": self.cases,
            "segmented": segmented,
            "empty_masks": self.empty,
            "failed": self.failed,
            "skipped": self.skipped,
            "reasons": {status: dict(counts.most_common()) for status, counts in self._reasons.items()},
            "referred": self.referred,
            "refer_below": self.refer_below,
            "confidence": DEFINITION,
            "seconds": round(self.seconds, 3),
            "cases_per_second": round(rate, 2) if rate else None,
            "stages": self.stages,
            "slowest": [{"case": case, "seconds": seconds} for seconds, _, case in sorted(self._slowest, reverse=True)],
            "least_confident": [
                {"case": case, "confidence": -negative} for negative, _, case in sorted(self._unsure, reverse=True)
            ],
            "referred_cases": sorted(self._refer, key=lambda item: item["confidence"]),
            "failed_cases": self._failures,
        }

    def screen(self, out: str) -> str:
        """The summary as text of one screen."""
        value = self.value()
        head = f"{value['segmented']} segmented"
        head += f", {self.empty} of them empty" if self.empty else ""
        head += f", {self.failed} failed" if self.failed else ""
        head += f", {self.skipped} skipped" if self.skipped else ""
        head += f", {self.reused} sources done before" if self.reused else ""
        rate = f" ({value['cases_per_second']:.1f} images/s)" if value["cases_per_second"] else ""
        lines = [f"{head}, in {self.seconds:.1f} s{rate}"]
        if self.stages:
            limit = self.stages["limit"]
            lines.append(f"bottleneck: {_WORK[limit]} ({self.stages[limit]['busy'] * 100:.0f} % busy)")
        lines += _part("slowest", [f"{s['seconds']:8.3f} s  {_short(s['case'])}" for s in value["slowest"]])
        lines += _part(
            "least confident", [f"{s['confidence']:8.3f}    {_short(s['case'])}" for s in value["least_confident"]]
        )
        if self.refer_below is not None:
            named = [f"{s['confidence']:8.3f}    {_short(s['case'])}" for s in value["referred_cases"][:_LISTED]]
            lines += _part(f"for a person to look at: {self.referred} below {self.refer_below:g}", named)
        named = [f"  {_short(s['source'], 40)}: {_short(s['error'] or '', 90)}" for s in self._failures[:_LISTED]]
        lines += _part(f"failed: {self.failed}", named)
        for status, counts in self._reasons.items():
            if sum(counts.values()) > _LISTED or status == "skipped":
                named = [f"{count:6}  {_short(reason, 90)}" for reason, count in counts.most_common(_LISTED)]
                lines += _part(f"why {status}", named)
        return "\n".join([*lines, f"results in {out}; {NOT_CLINICAL}"])


def reason_kind(reason: str) -> str:
    """A reason without what differs from file to file, so that equal ones can be counted.

    >>> reason_kind("ends after 3 of 10 frames (byte 17)")
    'ends after # of # frames'
    """
    kind = re.sub(r"\s*\([^()]*\)", "", reason.split("; ")[0])
    return re.sub(r"\d+([.,]\d+)*", "#", kind).strip() or "no reason given"


def with_referral(row: CaseRow, refer_below: float | None) -> CaseRow:
    """The row with its `refer` column for this run's limit."""
    if refer_below is None or row.get("confidence") is None:
        return row | {"refer": None}
    return row | {"refer": "yes" if row["confidence"] < refer_below else "no"}


def stage_report(busy: dict[str, float], threads: dict[str, int], seconds: float) -> dict[str, Any]:
    """How busy each stage's threads were; the busiest is the bottleneck, `limit` in the files."""
    report: dict[str, Any] = {
        name: {
            "seconds": round(spent, 3),
            "threads": threads[name],
            "busy": round(spent / (threads[name] * seconds), 4) if seconds > 0 else 0.0,
        }
        for name, spent in busy.items()
    }
    report["limit"] = max(busy, key=lambda name: report[name]["busy"])
    return report


def _keep(heap: list[tuple[float, int, str]], item: tuple[float, int, str]) -> None:
    heapq.heappush(heap, item)
    if len(heap) > _LISTED:
        heapq.heappop(heap)


def _part(title: str, lines: list[str]) -> list[str]:
    return [f"{title}:", *lines] if lines else []


def _short(name: str, width: int = 70) -> str:
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
    return shown if len(shown) <= width else f"{shown[: width // 2 - 1]}…{shown[-(width // 2) :]}"
