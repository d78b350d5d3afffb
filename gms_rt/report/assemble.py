"""From what a bench found to a report: certificates next to latencies, galleries of masks, commands to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.bench.latency import COV_LIMIT
from gms_rt.bench.proof import proof_from_folder
from gms_rt.bench.results import BenchResult
from gms_rt.bench.run import BenchOptions, BenchRun
from gms_rt.engine.golden import Golden
from gms_rt.report import pictures
from gms_rt.report.certificates import parity_from_proof
from gms_rt.report.headline import headline_facts, summary_sentence
from gms_rt.report.identity import identity_from_machine
from gms_rt.report.model import NOT_CLINICAL, Card, Command, Fact, Gallery, Parity, Report
from gms_rt.report.text import score
from gms_rt.scan.mask import mask_from_levels

_WORST = 4


def report_from_bench(run: BenchRun, *, title: str = "") -> Report:
    """The report of a whole bench."""
    parity = [parity_from_proof(proof) for proof in run.proofs]
    galleries = [
        golden_gallery(proof.engine, proof.golden, proof.produced, limit=_WORST)
        for proof in run.proofs
        if proof.golden is not None and proof.produced is not None
    ]
    return bench_report(
        run.result,
        title=title,
        lead=_lead(run.result, parity),
        parity=parity,
        galleries=galleries,
        commands=_commands(run.options, run.rebuild),
    )


def bench_report(
    result: BenchResult,
    *,
    title: str = "",
    lead: str = "",
    parity: Sequence[Parity] | None = None,
    galleries: Sequence[Gallery] = (),
    commands: Sequence[Command] = (),
    notes: Sequence[str] = (NOT_CLINICAL,),
) -> Report:
    """A report of one bench; certificates are read from the engines' folders unless given."""
    if parity is None:
        parity = [parity_from_proof(proof_from_folder(m)) for m in result.measured if m.kind == "engine"]
    engines = [m for m in result.measured if m.kind == "engine"]
    names = ", ".join(m.name for m in engines or result.measured)
    return Report(
        title=title or f"{names} on {result.device}",
        lead=lead,
        created=result.created,
        identity=identity_from_machine(),
        headline=tuple(headline_facts(result, parity)),
        bench=result,
        parity=tuple(parity),
        galleries=tuple(galleries),
        commands=tuple(commands),
        warnings=(*result.warnings, *_doubts(result, parity)),
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
        shots.append(pictures.photo(label, pictures.drawn_over(image, base, pictures.REFERENCE)))
    shots.append(pictures.photo("engine", pictures.drawn_over(image, engine)))
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
    masks, references = mask_from_levels(produced), mask_from_levels(golden.probabilities)
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


def _lead(result: BenchResult, parity: Sequence[Parity]) -> str:
    engines = [m for m in result.measured if m.kind == "engine"]
    peers = [m for m in result.measured if m.kind == "peer"]
    many = "engine" if len(engines) == 1 else "engines"
    against = f", timed turn by turn with {', '.join(p.name for p in peers)}" if peers else ""
    return f"{summary_sentence(result, parity)} {len(engines)} {many} measured{against}."


def _commands(options: BenchOptions, rebuild: Sequence[str]) -> list[Command]:
    lines = [Command(f"Build {f.name}", line) for f, line in zip(options.engines, rebuild, strict=True)]
    words = ["gms-rt", "bench"]
    for folder in options.engines:
        words += ["--engine", str(folder)]
    words += ["--against", ",".join(options.against)] if options.against else []
    for name, value in (
        ("--run", options.run),
        ("--graph", options.graph),
        ("--image", options.image),
        ("--device", options.device),
    ):
        words += [name, str(value)] if value is not None else []
    words += ["--seconds", f"{options.seconds:g}", "--warmup", f"{options.warmup:g}", "--rounds", str(options.rounds)]
    words += ["--threads", str(options.threads)] if options.threads else []
    words += ["--streams", str(options.streams)] if options.streams != 1 else []
    words += [] if options.sweep else ["--no-sweep"]
    words += [] if options.layers is None else ["--layers" if options.layers else "--no-layers"]
    lines.append(Command("Measure and report", shlex.join(words)))
    lines += [Command(f"Certify {f.name}", shlex.join(["gms-rt", "parity", str(f)])) for f in options.engines]
    return lines
