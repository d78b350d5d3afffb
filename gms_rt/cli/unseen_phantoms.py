"""What the demo's engines make of phantoms that nothing was trained on: Dice to the true masks and the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gms_rt import metrics
from gms_rt.arrays import U8
from gms_rt.bench.results import BenchResult
from gms_rt.demo.phantoms import phantom
from gms_rt.demo.seeds import UNSEEN_SEEDS
from gms_rt.engine.select import load
from gms_rt.graph.count import work_from_graph
from gms_rt.graph.read import read_graph
from gms_rt.report.assemble import case_card
from gms_rt.report.model import Fact, Gallery
from gms_rt.report.pictures import difference_legend, overlay_legend
from gms_rt.report.text import score

_COUNT = 24  # phantoms, those without a lesion left out
_SHOWN = 0  # of them, in the report


@dataclass(frozen=True)
class UnseenScore:
    """What one engine made of them. Dice is the mean over all, at 224x224."""

    phantoms: int
    gflop: float  # of one picture
    truth: float  # Dice to the true masks
    teacher: float | None  # Dice to the masks of the first engine, the bundled model's at FP16; None: it is that one
    image: U8  # the phantom that is shown
    mask: U8  # the engine's of it
    true_mask: U8


def unseen_scores(engines: Sequence[Path]) -> dict[str, UnseenScore]:
    """Each engine's scores by name; the first one is the teacher of the others."""
    drawn = [case for case in (phantom(seed, 224, 224) for seed in UNSEEN_SEEDS[:_COUNT]) if case.lesions]
    found: dict[str, UnseenScore] = {}
    told: list[U8] = []
    for engine in engines:
        with load(engine) as opened:
            masks = [opened(case.rgb) for case in drawn]
        found[engine.name] = UnseenScore(
            phantoms=len(drawn),
            gflop=work_from_graph(read_graph(engine / "model.onnx")).flop / 1e9,
            truth=_mean_dice(masks, [case.mask for case in drawn]),
            teacher=_mean_dice(masks, told) if told else None,
            image=drawn[_SHOWN].rgb,
            mask=masks[_SHOWN],
            true_mask=drawn[_SHOWN].mask,
        )
        told = told or masks
    return found


def unseen_gallery(scores: dict[str, UnseenScore], bench: BenchResult) -> Gallery:
    """A card for each engine: one phantom, and what all of them say."""
    times = {measured.name: measured.total.median for measured in bench.measured}
    first = next(iter(scores))
    cards = []
    for name, found in scores.items():
        facts = [
            Fact("GFLOP", f"{found.gflop:.3g}"),
            Fact("median", f"{times[name]:.2f} ms"),
            Fact("Dice to truth, mean", score(found.truth)),
        ]
        if found.teacher is not None:
            facts.append(Fact(f"Dice to {first}, mean", score(found.teacher)))
        if name != first:
            facts.append(Fact(f"speed of {first}", f"{times[first] / times[name]:.1f}x"))
        cards.append(case_card(name, found.image, found.mask, truth=found.true_mask, facts=facts))
    count = scores[first].phantoms
    return Gallery(
        f"The bundled model and its edge student on {count} unseen phantoms",
        tuple(cards),
        lead=f"Nothing was trained on these {count} phantoms with a lesion; one of them is shown. {first} is the "
        "teacher: the masks of the other engines are compared with its masks and with the true ones.",
        legend=(*overlay_legend(), *difference_legend()),
        prominent=True,
    )


def _mean_dice(masks: Sequence[U8], others: Sequence[U8]) -> float:
    return float(np.mean([metrics.dice(mask, other) for mask, other in zip(masks, others, strict=True)]))
