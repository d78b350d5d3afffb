"""The search for an INT8 engine that keeps the masks: give precision back where it hurts, as little as possible.

1. Quantise every candidate. If that passes the gate, done; else take the calibrator that does best on the images that
   suffer most.
2. Rank the blocks: quantise one block alone and look at the Dice it costs on those images. A stage that costs next to
   nothing as a whole is one block, and stays INT8 while the others are ranked, which makes that faster.
3. Return blocks to the higher precision in the order of damage by time saved, until the gate is passed (by bisection).
4. Try to win back returned blocks, the most expensive first, and keep each that still passes.

Every judgement is stored at once, so that an interrupted search goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.artifacts import read_json, sha256_bytes, write_json
from gms_rt.errors import ArtifactError, GateError
from gms_rt.graph.graph import Graph, stage
from gms_rt.graph.run import Session
from gms_rt.precision.blocks import PrecisionBlock, convolution_blocks
from gms_rt.precision.calibrators import clips_from_histograms
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.int8 import int8_graph
from gms_rt.precision.ranges import Histogram
from gms_rt.progress import OnProgress, silent

AUTO = ("mse", "percentile:99.99", "minmax")
RANKING_IMAGES = 16
WIN_BACK = 8
# Share of the gate's allowance below which a whole stage counts as harmless.
HARMLESS = 0.5


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
    checkpoint: Path | None = None  # the file that makes the search resumable
    execution: str = "f32"  # the arithmetic of what is not INT8
    key: str = ""  # names the search: a checkpoint of another one is ignored
    progress: OnProgress = silent
    evaluations: int = 0
    _store: dict[str, list[float]] = field(default_factory=dict)  # Dice of each image, by assignment

    def run(self, calibrators: Sequence[str] = AUTO) -> SearchResult:
        """Find the assignment, or raise GateError with the table."""
        self._load()
        self.progress("plain int8", 0, 1)
        method = calibrators[0]
        verdict = self._judge(method, self.candidates)
        hardest = np.argsort(verdict.dice)[:RANKING_IMAGES]
        if not verdict.passed and len(calibrators) > 1:
            method = max(calibrators, key=lambda name: self._judge(name, self.candidates, hardest).mean)
            verdict = self._judge(method, self.candidates)
        self.progress("plain int8", 1, 1)
        units = convolution_blocks(self.graph, self.candidates)
        if verdict.passed:
            rows = [self._row(unit, None, "int8") for unit in units]
            found = self._found(list(self.candidates), method, verdict, rows)
            return dataclasses.replace(found, plain=method == calibrators[0])
        return self._search(units, method, hardest)

    def _search(self, units: list[PrecisionBlock], method: str, hardest: NDArray[np.intp]) -> SearchResult:
        units, damage = self._rank(units, method, hardest)
        # Return first what hurts most for the time it saves; the square keeps harmful blocks ahead of cheap ones.
        order = sorted(units, key=lambda unit: -(damage[unit.name] ** 2) / max(unit.saves, 1))
        kept, verdict = self._fewest_returned(order, method, hardest)
        if kept is None:
            rows = [self._row(unit, damage[unit.name], "returned") for unit in units]
            raise GateError(
                f"{verdict.failure()}; {_table(rows)}", fix="use --precision fp16, or more calibration images"
            )
        chosen = self._win_back(kept, [u for u in order if u not in kept], method, hardest)
        nodes = _nodes(self.candidates, chosen)
        verdict = self._judge(method, nodes)
        rows = [self._row(u, damage[u.name], "int8" if u in chosen else "returned") for u in units]
        return self._found(nodes, method, verdict, rows)

    def _rank(
        self, units: list[PrecisionBlock], method: str, hardest: NDArray[np.intp]
    ) -> tuple[list[PrecisionBlock], dict[str, float]]:
        """The Dice each block costs alone. A stage that costs next to nothing as a whole is not taken apart."""
        stages: dict[str, list[PrecisionBlock]] = {}
        for unit in units:
            stages.setdefault(stage(unit.name), []).append(unit)
        damage: dict[str, float] = {}
        calm: list[PrecisionBlock] = []
        parts: list[PrecisionBlock] = []
        for number, (name, members) in enumerate(stages.items()):
            self.progress("damage by stage", number, len(stages))
            whole = PrecisionBlock(
                f"{name}/* ({len(members)} blocks)",
                tuple(node for unit in members for node in unit.nodes),
                sum(unit.flop for unit in members),
                sum(unit.saves for unit in members),
            )
            verdict = self._judge(method, whole.nodes, hardest)
            harmless = (
                1 - verdict.mean <= (1 - self.gate.mean) * HARMLESS
                and 1 - verdict.minimum <= (1 - self.gate.tail) * HARMLESS
            )
            if harmless:
                damage[whole.name] = 1 - verdict.mean
                calm.append(whole)
            else:
                parts += members
        always = [node for whole in calm for node in whole.nodes]
        ground = 1 - self._judge(method, always, hardest).mean if calm else 0.0
        for number, unit in enumerate(parts):
            self.progress("damage by block", number, len(parts))
            cost = 1 - self._judge(method, [*always, *unit.nodes], hardest).mean
            damage[unit.name] = max(0.0, cost - ground)
        self.progress("damage by block", len(parts), len(parts))
        return [*calm, *parts], damage

    def _fewest_returned(
        self, order: list[PrecisionBlock], method: str, hardest: NDArray[np.intp]
    ) -> tuple[list[PrecisionBlock] | None, GateVerdict]:
        """The shortest prefix of `order` to return so that the gate is passed, assuming that more is never worse."""
        low, high = 0, len(order)  # `low` returned blocks do not suffice; `high` (all) would be no INT8 at all
        passing: list[PrecisionBlock] | None = None
        worst = None
        while high - low > 1:
            middle = (low + high) // 2
            self.progress("search", high - low, len(order))
            rest = order[middle:]
            verdict = self._judge(method, _nodes(self.candidates, rest), first=hardest)
            if verdict.passed:
                high, passing = middle, rest
            else:
                low, worst = middle, verdict
        if passing is None and order:
            verdict = self._judge(method, _nodes(self.candidates, order[-1:]), first=hardest)
            if verdict.passed:
                return order[-1:], verdict
            worst = verdict
        return passing, worst if worst is not None else self._judge(method, self.candidates)

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

    def _judge(
        self,
        method: str,
        nodes: Sequence[str],
        which: NDArray[np.intp] | None = None,
        *,
        first: NDArray[np.intp] | None = None,
    ) -> GateVerdict:
        """Dice on all images or on those in `which`; only on those in `first` where they settle that the gate fails."""
        images = self.images if which is None else self.images[which]
        reference = self.reference if which is None else self.reference[which]
        text = "\n".join([method, *sorted(nodes), *(map(str, which.tolist()) if which is not None else [])])
        entry = sha256_bytes(text.encode())[:24]
        if not self._settled(entry, len(images)):
            typed = int8_graph(self.graph, nodes, self.clips(method), "cpu", levels=self.levels, skips=())
            dice = self._dice(Session(typed, execution=self.execution), images, reference, first)
            self._store[entry] = [round(float(value), 6) for value in dice]
            self.evaluations += 1
            if self.checkpoint is not None:
                write_json(self.checkpoint, {"key": self.key, "dice": self._store})
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
        return SearchResult(nodes, method, used, verdict, rows, self.evaluations)

    def _row(self, unit: PrecisionBlock, damage: float | None, decision: str) -> dict[str, Any]:
        return {
            "block": unit.name,
            "convolutions": len(unit.nodes),
            "gflop": round(unit.flop / 1e9, 4),
            "damage": None if damage is None else round(damage, 5),
            "decision": decision,
        }


def _nodes(candidates: Sequence[str], units: Sequence[PrecisionBlock]) -> list[str]:
    wanted = {name for unit in units for name in unit.nodes}
    return [name for name in candidates if name in wanted]


def _table(rows: list[dict[str, Any]]) -> str:
    lines = "; ".join(f"{row['block']} {row['damage']} {row['decision']}" for row in rows)
    return f"block, damage, decision: {lines}"
