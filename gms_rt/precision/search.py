"""The search for an INT8 engine that keeps the masks: give precision back where it hurts, as little as possible.

1. Quantise every candidate. If that passes the gate with room to spare, done; else take the calibrator that does best
   on the images that suffer most.
2. Rank the blocks by the damage that they do alone on those images (`ranking.py`).
3. Return the few blocks that do far more damage than they save time, whatever the gate says: on images to come they are
   what breaks masks, and they cost next to nothing. Return more, in the order of damage by time saved, until the gate
   is passed (by bisection). Where nothing passes, rank single blocks and do so again.
4. Try to win back what that returned, the most expensive first, and keep each that still passes.

What damage is, and why it is not Dice, stands in `damage.py`.

Every judgement is stored at once, so that an interrupted search goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.artifacts import read_json, sha256_bytes, write_json
from gms_rt.errors import ArtifactError, GateError
from gms_rt.graph.graph import Graph
from gms_rt.graph.run import Session
from gms_rt.precision.blocks import PrecisionBlock, convolution_blocks
from gms_rt.precision.calibrators import clips_from_histograms, int8_values
from gms_rt.precision.damage import returned_in_any_case, soft_dice_loss
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.int8 import int8_graph
from gms_rt.precision.ranges import Histogram
from gms_rt.precision.ranking import rank_blocks
from gms_rt.progress import OnProgress, silent

AUTO = ("minmax", "mse", "percentile:99.99")
RANKING_IMAGES = 16
WIN_BACK = 4
# Share of the gate's allowance within which plain INT8 is let through as it is.
CLEAR = 0.5
# Share of all damage below which a part of the graph is not taken apart, unless nothing passes otherwise.
CALM = 0.08


@dataclass(frozen=True)
class SearchResult:
    """What the search settled on."""

    nodes: list[str]  # the convolutions in INT8
    calibrator: str  # by name
    clips: dict[str, float]  # the clipping magnitude of each tensor that they take
    verdict: GateVerdict  # on all images
    rows: list[dict[str, Any]]  # each block: its size, what it costs, and what was decided
    evaluations: int  # how many assignments had to be run
    plain: bool = False  # the first assignment passed, so nothing was chosen by the images
    execution: str = "f32"  # the arithmetic of the rest, in which it was judged


@dataclass
class Search:
    """One search."""

    graph: Graph
    candidates: Sequence[str]  # convolutions that may be INT8
    histograms: dict[str, Histogram]  # of the tensors that the candidates take
    images: U8  # the gate's
    reference: U8  # their FP32 probabilities
    gate: Gate
    levels: int  # steps of a weight on one side of zero
    rounded: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)  # weights that were rounded together
    checkpoint: Path | None = None  # the file that makes the search resumable
    execution: str = "f32"  # the arithmetic of what is not INT8
    key: str = ""  # names the search: a checkpoint of another one is ignored
    progress: OnProgress = silent
    evaluations: int = 0
    _store: dict[str, list[float]] = field(default_factory=dict)  # Dice or damage of each image, by assignment
    _latest: tuple[tuple[str, ...], Session] | None = None  # of one assignment several things are asked in turn

    def run(self, calibrators: Sequence[str] = AUTO) -> SearchResult:
        """Find the assignment, or raise GateError with the table."""
        self._load()
        self.progress("plain int8", 0, 1)
        method = calibrators[0]
        verdict = self._judge(method, self.candidates)
        hardest = np.argsort(verdict.dice)[:RANKING_IMAGES]
        clear = self._clear(verdict)
        if not clear and len(calibrators) > 1:
            method = min(calibrators, key=lambda name: self._damage(name, self.candidates, hardest))
            verdict = self._judge(method, self.candidates)
        self.progress("plain int8", 1, 1)
        units = convolution_blocks(self.graph, self.candidates)
        if clear or (len(units) == 1 and verdict.passed):
            rows = [self._row(unit, None, "int8") for unit in units]
            return dataclasses.replace(self._found(list(self.candidates), method, verdict, rows), plain=True)
        return self._search(units, method, hardest)

    def _clear(self, verdict: GateVerdict) -> bool:
        """Whether plain INT8 passes with room to spare."""
        mean, tail = 1 - (1 - self.gate.mean) * CLEAR, 1 - (1 - self.gate.tail) * CLEAR
        return verdict.passed and verdict.mean >= mean and verdict.minimum >= tail

    def _search(self, blocks: list[PrecisionBlock], method: str, hardest: NDArray[np.intp]) -> SearchResult:
        # A calm part that was not taken apart may still hold what breaks the gate, beside blocks that could stay.
        for calm in (CALM, 0.0):
            units, damage = self._rank(blocks, method, hardest, calm)
            # Return first what hurts most for the time it saves.
            order = sorted(units, key=lambda unit: -damage[unit.name] / max(unit.saves, 1))
            free = returned_in_any_case(order, damage)
            kept, verdict = self._fewest_returned(order, free, method, hardest)
            if kept is not None:
                break
        else:
            rows = [self._row(unit, damage[unit.name], "returned") for unit in units]
            raise GateError(
                f"{verdict.failure()}; {_table(rows)}", fix="use --precision fp16, or more calibration images"
            )
        chosen = self._win_back(kept, [u for u in order[free:] if u not in kept], method, hardest)
        nodes = _nodes(self.candidates, chosen)
        verdict = self._judge(method, nodes)
        rows = [self._row(u, damage[u.name], "int8" if u in chosen else "returned") for u in units]
        return self._found(nodes, method, verdict, rows)

    def _rank(
        self, units: list[PrecisionBlock], method: str, hardest: NDArray[np.intp], calm: float = CALM
    ) -> tuple[list[PrecisionBlock], dict[str, float]]:
        """The damage that each block does alone, in the graph's order."""
        ground = self._damage(method, [], hardest) if self.execution != "f32" else 0.0

        def alone(members: Sequence[PrecisionBlock]) -> float:
            nodes = [node for unit in members for node in unit.nodes]
            return max(0.0, self._damage(method, nodes, hardest) - ground)

        found = rank_blocks(units, alone, calm, self.progress)
        place = {node: number for number, node in enumerate(self.candidates)}
        found.sort(key=lambda pair: place[pair[0].nodes[0]])
        return [unit for unit, _ in found], {unit.name: cost for unit, cost in found}

    def _fewest_returned(
        self, order: list[PrecisionBlock], free: int, method: str, hardest: NDArray[np.intp]
    ) -> tuple[list[PrecisionBlock] | None, GateVerdict]:
        """The shortest prefix of `order` to return so that the gate is passed, assuming that more is never worse.

        The first `free` blocks are returned in any case.
        """
        verdict = self._judge(method, _nodes(self.candidates, order[free:]), first=hardest)
        if verdict.passed:
            return order[free:], verdict
        low, high = free, len(order)  # `low` returned blocks do not suffice; `high` (all) would be no INT8 at all
        passing: list[PrecisionBlock] | None = None
        worst = verdict
        while high - low > 1:
            middle = (low + high) // 2
            self.progress("search", high - low, len(order))
            rest = order[middle:]
            verdict = self._judge(method, _nodes(self.candidates, rest), first=hardest)
            if verdict.passed:
                high, passing = middle, rest
            else:
                low, worst = middle, verdict
        if passing is None:
            verdict = self._judge(method, _nodes(self.candidates, order[-1:]), first=hardest)
            if verdict.passed:
                return order[-1:], verdict
            worst = verdict
        return passing, worst

    def _win_back(
        self, kept: list[PrecisionBlock], returned: list[PrecisionBlock], method: str, hardest: NDArray[np.intp]
    ) -> list[PrecisionBlock]:
        chosen = list(kept)
        worth = sorted(returned, key=lambda unit: -unit.saves)[:WIN_BACK]
        for number, unit in enumerate(worth):
            self.progress("win back", number, len(worth))
            if self._judge(method, _nodes(self.candidates, [*chosen, unit]), first=hardest).passed:
                chosen.append(unit)
        self.progress("win back", len(worth), len(worth))
        return chosen

    def clips(self, method: str) -> dict[str, float]:
        """Clipping magnitudes of every candidate's input."""
        return clips_from_histograms(self.histograms, method)

    def _typed(self, method: str, nodes: Sequence[str]) -> Graph:
        values = int8_values(self.histograms, method, self.rounded)
        return int8_graph(self.graph, nodes, values, "cpu", levels=self.levels, skips=())

    def _session(self, method: str, nodes: Sequence[str]) -> Session:
        """An assignment, compiled; nothing in INT8 is the graph itself."""
        asked = (method, *nodes)
        if self._latest is None or self._latest[0] != asked:
            typed = self._typed(method, nodes) if nodes else self.graph
            self._latest = asked, Session(typed, execution=self.execution)
        return self._latest[1]

    def _damage(self, method: str, nodes: Sequence[str], which: NDArray[np.intp]) -> float:
        """How far the probabilities of some images are from FP32's, relative to the masks' size."""
        entry = _entry("damage", method, nodes, which)
        if len(self._store.get(entry, ())) != len(which):
            found = self._session(method, nodes).probabilities(self.images[which])
            self._keep(entry, soft_dice_loss(found, self.reference[which]))
        return float(np.mean(self._store[entry]))

    def _keep(self, entry: str, values: NDArray[np.float64]) -> None:
        self._store[entry] = [round(float(value), 8) for value in values]
        self.evaluations += 1
        if self.checkpoint is not None:
            write_json(self.checkpoint, {"key": self.key, "dice": self._store})

    def _judge(self, method: str, nodes: Sequence[str], *, first: NDArray[np.intp] | None = None) -> GateVerdict:
        """Dice on all images; only on those in `first` where they settle that the gate fails."""
        entry = _entry("dice", method, nodes)
        if not self._settled(entry, len(self.images)):
            session = self._session(method, nodes)
            self._keep(entry, self._dice(session, self.images, self.reference, first))
        return GateVerdict(np.array(self._store[entry]), self.gate)

    def _settled(self, entry: str, total: int) -> bool:
        """Whether the store answers: with all images, or with some that settle it for this gate."""
        known = self._store.get(entry)
        return known is not None and (
            len(known) == total or self.gate.fails_for_certain(np.array(known), total)
        )  # fmt: skip

    def _dice(self, session: Session, images: U8, reference: U8, first: NDArray[np.intp] | None) -> NDArray[np.float64]:
        if first is None:
            return judge(session.probabilities(images), reference, self.gate).dice
        part = judge(session.probabilities(images[first]), reference[first], self.gate)
        if self.gate.fails_for_certain(part.dice, len(images)):
            return part.dice
        dice = np.empty(len(images))
        dice[first] = part.dice
        rest = np.setdiff1d(np.arange(len(images)), first)
        if len(rest):
            dice[rest] = judge(session.probabilities(images[rest]), reference[rest], self.gate).dice
        return dice

    def _load(self) -> None:
        if self.checkpoint is None or not self.checkpoint.is_file():
            return
        try:
            data = read_json(self.checkpoint)
        except ArtifactError:
            return  # a damaged checkpoint costs time, nothing else
        if data.get("key") == self.key and isinstance(data.get("dice"), dict):
            self._store = dict(data["dice"])

    def _found(self, nodes: list[str], method: str, verdict: GateVerdict, rows: list[dict[str, Any]]) -> SearchResult:
        clips = self.clips(method)
        taken = {node.input[0] for node in self.graph.nodes if node.name in set(nodes)}
        used = {name: value for name, value in clips.items() if name in taken}
        return SearchResult(nodes, method, used, verdict, rows, self.evaluations, execution=self.execution)

    def _row(self, unit: PrecisionBlock, damage: float | None, decision: str) -> dict[str, Any]:
        return {
            "block": unit.name,
            "convolutions": len(unit.nodes),
            "gflop": round(unit.flop / 1e9, 4),
            "damage": None if damage is None else round(damage, 5),
            "decision": decision,
        }


def _entry(kind: str, method: str, nodes: Sequence[str], which: NDArray[np.intp] | None = None) -> str:
    """The name of a judgement in the store."""
    text = "\n".join([kind, method, *sorted(nodes), *(map(str, which.tolist()) if which is not None else [])])
    return sha256_bytes(text.encode())[:24]


def _nodes(candidates: Sequence[str], units: Sequence[PrecisionBlock]) -> list[str]:
    wanted = {name for unit in units for name in unit.nodes}
    return [name for name in candidates if name in wanted]


def _table(rows: list[dict[str, Any]]) -> str:
    lines = "; ".join(f"{row['block']} {row['damage']} {row['decision']}" for row in rows)
    return f"block, damage, decision: {lines}"
