"""From what was measured to a report: certificates beside latencies, the machine's identity, headline figures."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.bench.latency import COV_LIMIT
from gms_rt.bench.results import BenchResult, Measured
from gms_rt.errors import ArtifactError
from gms_rt.parity.certificate import CERTIFICATE, THRESHOLD, Golden, read_certificate
from gms_rt.report import pictures
from gms_rt.report.model import (
    NOT_CLINICAL,
    Card,
    Command,
    Fact,
    Gallery,
    Identity,
    Parity,
    ParityCase,
    Report,
    Verdict,
)
from gms_rt.report.text import milliseconds, rate, ratio, score, size
from gms_rt.runtime.device import Machine, probe


def bench_report(
    result: BenchResult,
    *,
    title: str = "",
    lead: str = "",
    parity: Sequence[Parity] | None = None,
    galleries: Sequence[Gallery] = (),
    commands: Sequence[Command] = (),
    notes: Sequence[str] = (NOT_CLINICAL,),
    headline: Sequence[Fact] | None = None,
) -> Report:
    """A report of one bench; certificates are read from the engines' folders unless given."""
    proofs = [parity_beside(m) for m in result.measured if m.kind == "engine"] if parity is None else list(parity)
    engines = [m for m in result.measured if m.kind == "engine"]
    names = ", ".join(m.name for m in engines or result.measured)
    return Report(
        title=title or f"{names} on {result.device}",
        lead=lead,
        created=result.created,
        identity=identity(),
        headline=tuple(headline_of(result, proofs) if headline is None else headline),
        bench=result,
        parity=tuple(proofs),
        galleries=tuple(galleries),
        commands=tuple(commands),
        warnings=(*result.warnings, *_doubts(result, proofs)),
        notes=tuple(notes),
    )


def _doubts(result: BenchResult, proofs: Sequence[Parity]) -> list[str]:
    """One line for each engine or peer that has something against it, the missing proof first."""
    unproven = {p.engine: p.why for p in proofs if p.verdict != "pass"}
    lines, unsteady = [], []
    for m in result.measured:
        doubts = [unproven[m.name]] if m.name in unproven else []
        for warning in m.warnings:
            if warning.startswith("unsteady"):
                unsteady.append(f"{m.name} {m.total.cov:.1f} %")
            elif not warning.startswith("p99"):
                doubts.append(warning)
        if doubts:
            lines.append(f"{m.name}: {'; '.join(doubts)}")
    if unsteady:
        lines.append(f"unsteady: CoV above {COV_LIMIT} % ({', '.join(unsteady)})")
    return lines


def summary_of(result: BenchResult, parity: Sequence[Parity]) -> str:
    """The answer in one sentence, for a reader who reads no table."""
    best = _best(result, parity)
    if best is None:
        return ""
    proof = next((p for p in parity if p.engine == best.name), None)
    time = f"{best.name} segments {_images(best.batch)} in {milliseconds(best.total.median)} ms on this machine"
    if proof is None or proof.mean is None or proof.verdict == "stale":
        return f"{time}; that its masks are right is not certified."
    figures = f"mean Dice {score(proof.mean)}, lowest {score(proof.min)}"
    if proof.verdict != "pass":
        return f"{time}, but its masks do not pass as those of the FP32 reference ({figures})."
    return f"{time}, and its masks agree with those of the FP32 reference ({figures}; 1 is pixel for pixel)."


def _images(count: int) -> str:
    return "an image" if count == 1 else f"{count} images"


def _best(result: BenchResult, parity: Sequence[Parity]) -> Measured | None:
    """The fastest certified engine, else the fastest engine, else the fastest of all."""
    engines = [m for m in result.measured if m.kind == "engine"]
    passed = {p.engine for p in parity if p.verdict == "pass"}
    candidates = [m for m in engines if m.name in passed] or engines or list(result.measured)
    return min(candidates, key=lambda m: m.total.median / m.batch, default=None)


def parity_beside(measured: Measured) -> Parity:
    """The certificate in a measured engine's folder, marked stale where it is not about what was timed."""
    path = Path(measured.source) / CERTIFICATE
    if not path.is_file():
        return Parity(measured.name, "none", f"no certificate; run: gms-rt parity {measured.source}")
    try:
        return parity_of_certificate(measured.name, read_certificate(path), measured)
    except (ArtifactError, KeyError, TypeError, ValueError) as error:
        return Parity(measured.name, "none", f"the certificate cannot be used ({error})")


def parity_of_certificate(name: str, certificate: Mapping[str, Any], measured: Measured | None = None) -> Parity:
    """A certificate as it stands in a report; with `measured` it must be about that engine on that device."""
    summary, gate, compared = certificate["summary"], certificate["gate"], certificate["compared"]
    stale = _stale(certificate, measured) if measured else ""
    verdict: Verdict = "stale" if stale else "pass" if certificate["verdict"] == "pass" else "fail"
    return Parity(
        engine=name,
        verdict=verdict,
        why=stale or "; ".join(certificate.get("reasons", ())),
        in_words=str(compared.get("in_words", "")),
        mean=float(summary["mean"]),
        min=float(summary["min"]),
        low=float(summary["interval"]["low"]),
        high=float(summary["interval"]["high"]),
        worst=str(summary["worst"]),
        flipped=int(summary["flipped"]),
        pixels=int(summary["pixels"]),
        gate_mean=float(gate["mean"]),
        gate_min=float(gate["min"]),
        truth_mean=summary.get("truth_mean"),
        truth_mean_reference=summary.get("truth_mean_reference"),
        cases=tuple(
            ParityCase(
                str(c["name"]),
                float(c["dice"]),
                int(c["flipped"]),
                int(c["pixels"]),
                c["hd95"],
                c.get("truth_dice"),
                c.get("truth_dice_reference"),
            )
            for c in certificate["cases"]
        ),
    )


def _stale(certificate: Mapping[str, Any], measured: Measured) -> str:
    compared = certificate["compared"]
    if certificate["engine"]["manifest_sha256"] != measured.identity:
        return "the certificate is about an earlier build of this engine; certify it again"
    if (compared["device"], compared["backend"]) != (measured.device, measured.backend):
        return f"the certificate is about {compared['device']}; certify it on this device"
    if compared["arithmetic"] != measured.execution:
        return f"the certificate is about {compared['arithmetic']} arithmetic, {measured.execution} was timed"
    return ""


def headline_of(result: BenchResult, parity: Sequence[Parity]) -> list[Fact]:
    """The figures that a reader looks for first: the fastest certified engine's, else the fastest's."""
    best = _best(result, parity)
    if best is None:
        return []
    facts = [
        Fact("Median latency", f"{milliseconds(best.total.median)} ms", f"{best.name}, {best.total.count} inferences"),
        Fact("99th percentile", f"{milliseconds(best.total.p99)} ms", f"spread (CoV) {best.total.cov:.1f} %"),
        Fact("Throughput", f"{rate(best.throughput)}/s", f"images, batch {best.batch}, {best.lanes} stream"
             + ("s" if best.lanes > 1 else "")),
    ]  # fmt: skip
    proof = next((p for p in parity if p.engine == best.name), None)
    if proof is not None and proof.mean is not None:
        tone = "good" if proof.verdict == "pass" else "bad"
        facts.append(Fact("Agreement with FP32", score(proof.mean), f"mean Dice, lowest {score(proof.min)}", tone))
    else:
        facts.append(Fact("Agreement with FP32", "not certified", "a latency without proof", "bad"))
    others = [m for m in result.measured if m is not best]
    if others:
        slowest = max(others, key=lambda m: m.total.median / m.batch)
        gain = (slowest.total.median / slowest.batch) / (best.total.median / best.batch)
        facts.append(Fact(f"Against {slowest.name}", ratio(gain), "as fast, by medians per image"))
    return facts


def identity(machine: Machine | None = None) -> Identity:
    """This machine and its software."""
    here = machine or probe()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    hardware = [
        Fact("Processor", here.cpu.name, f"{here.cpu.architecture}, {here.cpu.cores} usable cores"),
        Fact("Instructions", ", ".join(here.cpu.features) or "none of note"),
        Fact("Memory", size(memory)),
    ]
    hardware += [Fact(f"GPU {g.index}", g.name, f"SM{g.sm}, {size(g.memory_bytes)}") for g in here.gpus]
    if not here.gpus:
        hardware.append(Fact("GPU", "none", here.driver_note))
    software = [Fact("System", f"{platform.system()} {platform.release()}"), Fact("Python", platform.python_version())]
    if here.driver:
        software.append(Fact("NVIDIA driver supports CUDA", here.driver))
    software += [Fact(name, version) for name, version in sorted(here.packages.items()) if version]
    return Identity(here.gpus[0].name if here.gpus else here.cpu.name, tuple(hardware), tuple(software))


def case_card(
    name: str,
    image: U8,
    engine: U8,
    *,
    reference: U8 | None = None,
    truth: U8 | None = None,
    facts: Sequence[Fact] = (),
    subtitle: str = "",
) -> Card:
    """A gallery card from masks (0/255): scan, reference or truth, engine, difference."""
    shots = [pictures.photo("source", image)]
    figures = list(facts)
    base = reference if reference is not None else truth
    if base is not None:
        label = "FP32 reference" if reference is not None else "truth"
        shots.append(pictures.photo(label, pictures.overlay(image, base, pictures.REFERENCE)))
    shots.append(pictures.photo("engine", pictures.overlay(image, engine)))
    if base is not None:
        shots.append(pictures.photo("difference", pictures.difference(image, engine, base)))
    if reference is not None:
        figures.append(Fact("Dice to FP32", score(metrics.dice(engine, reference))))
        figures.append(Fact("flipped", f"{metrics.differing_pixels(engine, reference):,} px"))
    if truth is not None:
        figures.append(Fact("Dice to truth", score(metrics.dice(engine, truth))))
    return Card(name, tuple(shots), tuple(figures), subtitle)


def golden_gallery(
    name: str, golden: Golden, produced: U8, *, limit: int = 12, worst_first: bool = True, prominent: bool = False
) -> Gallery:
    """The cases of a golden file with what the engine made of them (probabilities), the worst first."""
    masks, references = masks_of(produced), masks_of(golden.probabilities)
    dices = [metrics.dice(m, r) for m, r in zip(masks, references, strict=True)]
    order = sorted(range(len(dices)), key=lambda i: dices[i]) if worst_first else list(range(len(dices)))
    cards = tuple(
        case_card(
            golden.names[i],
            golden.images[i],
            masks[i],
            reference=references[i],
            truth=None if golden.truth is None else golden.truth[i],
        )
        for i in order[:limit]
    )
    return Gallery(
        f"Worst cases: {name}" if worst_first else name,
        cards,
        lead="Sorted by agreement with the FP32 reference, the lowest first." if worst_first else "",
        legend=(*pictures.overlay_legend(), *pictures.difference_legend()),
        prominent=prominent,
    )


def masks_of(probabilities: U8) -> U8:
    """Masks of 0 and 255 at one half."""
    return ((probabilities >= THRESHOLD) * 255).astype("uint8")


def now() -> str:
    """The time for `Report.created`, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
