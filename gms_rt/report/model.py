"""What a report says, as frozen data; every rendering is made from this and nothing else.

A section that is empty or None is left out. Pictures are data URIs, so a report is whole by itself; the JSON keeps
their labels and leaves the pixels to the HTML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gms_rt import __version__
from gms_rt.bench.results import BenchResult, Measured

REPORT_FORMAT = "gms-rt-report"
REPORT_VERSION = 1

Verdict = Literal["pass", "fail", "none", "stale"]
NOT_CLINICAL = "Research software, not for clinical use."


@dataclass(frozen=True)
class Fact:
    """A labelled value; `tone` is "good", "bad" or "" and only colours it."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True)
class ParityCase:
    """One case of a certificate; distances that are infinite are None."""

    name: str
    dice: float
    flipped: int
    pixels: int
    hd95: float | None
    truth_dice: float | None = None
    truth_dice_reference: float | None = None


@dataclass(frozen=True)
class Parity:
    """The proof that goes with one engine's latency, or why there is none."""

    engine: str
    verdict: Verdict
    why: str = ""
    in_words: str = ""
    mean: float | None = None
    min: float | None = None
    low: float | None = None
    high: float | None = None
    worst: str = ""
    flipped: int = 0
    pixels: int = 0
    gate_mean: float | None = None
    gate_min: float | None = None
    truth_mean: float | None = None
    truth_mean_reference: float | None = None
    cases: tuple[ParityCase, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A picture with its label; `data` is a data URI."""

    label: str
    data: str = ""


@dataclass(frozen=True)
class Card:
    """One case of a gallery: pictures side by side, figures below."""

    title: str
    pictures: tuple[Picture, ...]
    facts: tuple[Fact, ...] = ()
    subtitle: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Gallery:
    """Cards under a heading; a prominent one stands before the tables. `legend` pairs a colour with its meaning."""

    title: str
    cards: tuple[Card, ...]
    lead: str = ""
    legend: tuple[Fact, ...] = ()
    prominent: bool = False


@dataclass(frozen=True)
class Command:
    """One line that reproduces a part of the report."""

    label: str
    line: str


@dataclass(frozen=True)
class Identity:
    """Which machine and which software."""

    device: str
    hardware: tuple[Fact, ...] = ()
    software: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    created: str
    identity: Identity
    lead: str = ""
    headline: tuple[Fact, ...] = ()
    bench: BenchResult | None = None
    parity: tuple[Parity, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    commands: tuple[Command, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = (NOT_CLINICAL,)
    gms_rt: str = __version__
    format: str = REPORT_FORMAT
    version: int = REPORT_VERSION

    def parity_of(self, engine: str) -> Parity:
        """The certificate of an engine by name; one that says "none" where there is none."""
        for parity in self.parity:
            if parity.engine == engine:
                return parity
        return Parity(engine, "none", "no certificate: run gms-rt parity")

    def measured(self) -> tuple[Measured, ...]:
        """Everything that was timed."""
        return self.bench.measured if self.bench else ()
