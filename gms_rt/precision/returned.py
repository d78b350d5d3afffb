"""Blocks that go back to f32 where all of BF16 or FP16 misses the gate: as few as the gate needs.

1. All blocks together are returned on the images that suffer most: if that does not suffice, nothing does.
2. On the same images each block is returned alone. What that wins, by the time it costs, is its place.
3. The fewest blocks in that order with which the gate is met are found by bisection, on all images.
4. The most expensive of them are tried without, and each that is not needed stays low.

A block that this CPU's runtime does not run in f32 among the others is left out: its own report is asked each time.
The images that chose promise nothing about others.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.errors import GateError, GmsError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import COMPUTE
from gms_rt.graph.openvino_ir import IrGraph, IrModel
from gms_rt.graph.run import Session
from gms_rt.precision.blocks import PrecisionBlock, convolution_blocks
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.recipe import PrecisionRecipe
from gms_rt.progress import OnProgress, silent

_RANKING_IMAGES, _TRIED_AGAIN = 16, 6
_COMPUTING = ("Convolution", "Deconvolution", "MatMul", "FullyConnected")


@dataclass
class BlockReturn:
    """One search for the blocks to return."""

    graph: Graph  # FP32
    recipe: PrecisionRecipe  # of bf16 or fp16, everything low
    execution: str  # "bf16" or "f16"
    images: U8
    reference: U8  # their FP32 probabilities
    gate: Gate
    progress: OnProgress = silent
    _forms: dict[frozenset[str], IrGraph] = field(default_factory=dict)

    def run(self, verdict: GateVerdict) -> tuple[PrecisionRecipe, GateVerdict]:
        """The recipe with the returned blocks and what the gate says of it, or GateError; `verdict` is all low's."""
        hardest = np.argsort(verdict.dice)[:_RANKING_IMAGES]
        candidates = [node.name for node in self.graph.nodes if node.op_type in COMPUTE]
        units = convolution_blocks(self.graph, [name for name in candidates if name not in self.recipe.kept])
        self._check_all(units, hardest)
        ground = float(verdict.dice[hardest].mean())
        gains: dict[str, float] = {}
        for number, unit in enumerate(units):
            self.progress("what a block in f32 wins", number, len(units))
            alone = self._judge(unit.nodes, self.images[hardest], self.reference[hardest])
            if alone is not None:
                gains[unit.name] = alone.mean - ground
        order = sorted((u for u in units if u.name in gains), key=lambda u: -gains[u.name] / max(u.flop, 1))
        order.sort(key=lambda u: gains[u.name] <= 0)  # what wins nothing alone comes last, the cheapest first
        count, found = self._fewest(order)
        chosen, found = self._without_spare(order[:count], found)
        rows = [self._row(unit, gains.get(unit.name), chosen) for unit in units]
        returned = [name for unit in chosen for name in unit.nodes]
        reasons = dict.fromkeys(returned, f"returned to f32: all in {self.execution} misses the gate")
        recipe = replace(self.recipe, kept=self.recipe.kept | reasons, returned=returned, blocks=rows)
        return recipe, found

    def _check_all(self, units: list[PrecisionBlock], hardest: NDArray[np.intp]) -> None:
        """Raise GateError where all blocks together do not suffice: then which one wins most need not be found out."""
        self.progress("every block in f32", 0, 1)
        try:
            graph, form = self._form(_nodes(units))
            session = Session(graph, execution=self.execution, form=form)
        except GmsError:
            return  # some cannot be together, or nothing would be left; the others are found one by one
        part = judge(session.probabilities(self.images[hardest]), self.reference[hardest], self.gate, unseen=False)
        if self.gate.fails_for_certain(part.dice, len(self.images)):
            raise _not_enough(f"{part.failure()} on the {len(hardest)} hardest images")

    def _fewest(self, order: list[PrecisionBlock]) -> tuple[int, GateVerdict]:
        low, high = 0, len(order)
        best = self._judge(_nodes(order), self.images, self.reference)
        if best is None or not best.passed:
            raise _not_enough("OpenVINO does not run them in f32 together" if best is None else best.failure())
        while high - low > 1:
            middle = (low + high) // 2
            self.progress("fewest blocks in f32", high - low, len(order))
            verdict = self._judge(_nodes(order[:middle]), self.images, self.reference)
            if verdict is not None and verdict.passed:
                high, best = middle, verdict
            else:
                low = middle
        return high, best

    def _without_spare(
        self, chosen: list[PrecisionBlock], best: GateVerdict
    ) -> tuple[list[PrecisionBlock], GateVerdict]:
        kept = list(chosen)
        for number, unit in enumerate(sorted(chosen, key=lambda u: -u.flop)[:_TRIED_AGAIN]):
            self.progress("blocks that need not be in f32", number, _TRIED_AGAIN)
            rest = [each for each in kept if each is not unit]
            verdict = self._judge(_nodes(rest), self.images, self.reference) if rest else None
            if verdict is not None and verdict.passed:
                kept, best = rest, verdict
        return kept, best

    def _judge(self, nodes: Collection[str], images: U8, reference: U8) -> GateVerdict | None:
        """What the gate says with these nodes in f32; None where the runtime does not run them so."""
        try:
            graph, form = self._form(nodes)
            session = Session(graph, execution=self.execution, form=form)
        except GmsError:
            return None
        if not runs_in_f32(session, nodes):
            return None
        return judge(session.probabilities(images), reference, self.gate, unseen=False)

    def _form(self, nodes: Collection[str]) -> tuple[Graph, IrModel]:
        # In BF16 the graph is FP32 whatever is returned; in FP16 a returned node's constants are FP32 too.
        key = frozenset(nodes) if self.recipe.precision == "fp16" else frozenset()
        typed = replace(self.recipe, kept=self.recipe.kept | dict.fromkeys(key, "")).apply(self.graph, "cpu")
        if key not in self._forms:
            self._forms = {key: IrGraph(typed)}
        return typed, self._forms[key].keeping(nodes)

    def _row(self, unit: PrecisionBlock, gain: float | None, chosen: list[PrecisionBlock]) -> dict[str, Any]:
        return {
            "block": unit.name,
            "convolutions": len(unit.nodes),
            "gflop": round(unit.flop / 1e9, 4),
            "damage": None if gain is None else round(gain, 5),
            "decision": "returned" if unit in chosen else self.execution,
        }


def _not_enough(why: str) -> GateError:
    return GateError(f"with every block that can be steered back in f32 too, {why}", fix="use --precision fp32 or fp16")


def runs_in_f32(session: Session, nodes: Collection[str]) -> bool:
    """Whether the runtime reports f32 for all of these ONNX nodes, each of which it runs as a layer of its own."""
    found: dict[str, str] = {}
    for layer in session.layer_report():
        if layer.kind in _COMPUTING:
            for part in (layer.name, *layer.parts):
                found[part.removesuffix("/WithoutBiases")] = layer.arithmetic
    return all(found.get(name) == "f32" for name in nodes)


def cpu_form(recipe: PrecisionRecipe, graph: Graph) -> IrModel | None:
    """The typed graph in OpenVINO's form with the returned nodes marked; None where nothing was returned."""
    return IrGraph(graph).keeping(recipe.returned) if recipe.returned else None


def _nodes(units: list[PrecisionBlock]) -> list[str]:
    return [name for unit in units for name in unit.nodes]
