"""The gate of GPU plans, on a machine without a GPU: a plan's typed graph, emulated, must keep the masks too.

What is judged is the graph that TensorRT gets: its Q/DQ pairs, those around residuals among them, and its FP16 or BF16
remainder, each node's result rounded (`emulation.py`). All gate images are judged: it takes about twice FP32's time.
Where the gate is missed precision is given back, in the plan's graph alone:

- FP16, BF16: blocks to FP32, with what lies between their convolutions and the next block's;
- INT8: the pairs around residuals, then blocks to the FP16 remainder.

Images that chose promise nothing. So with images of its own (`RecipeRequest.search_images`) the search leaves the
gate's alone, which then judge once more; where a promise is asked for and these do not suffice for two verdicts,
nothing is given back. A plan that misses the gate all the same is an error: it is not built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gms_rt.artifacts import sha256_json
from gms_rt.errors import GateError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import COMPUTE
from gms_rt.graph.run import Session
from gms_rt.precision.emulation import emulated_session, low_type
from gms_rt.precision.fp32_masks import Fp32Masks
from gms_rt.precision.gate import Gate, GateVerdict, judge
from gms_rt.precision.images import ImageSet
from gms_rt.precision.int8 import quantised_skips
from gms_rt.precision.recipe import PrecisionRecipe
from gms_rt.precision.recipe_request import JudgedRecipe, RecipeRequest, gate_record
from gms_rt.precision.search import Search
from gms_rt.progress import OnProgress

PLAN = "tensorrt"  # every flavour gets this graph
_ARITHMETIC = {"fp16": "f16", "bf16": "bf16"}


@dataclass(frozen=True)
class PlanTools:
    """What judging needs besides the graph and the request."""

    masks: Fp32Masks  # FP32 masks, shared between builds
    checkpoint: Path | None  # the file in which an interrupted search goes on
    progress: OnProgress


def with_judged_plans(graph: Graph, judged: JudgedRecipe, request: RecipeRequest, tools: PlanTools) -> JudgedRecipe:
    """The recipe with what a plan's graph needs to keep the masks, and the verdict on that; GateError if none does.

    Nothing changes for a build without plans, in FP32, or without gate images.
    """
    recipe, images = judged.recipe, request.gate_images
    if set(request.targets) <= {"cpu"} or recipe.precision == "fp32" or images is None:
        return judged
    # A recipe that the gate's images chose makes a graph that they chose.
    chosen = recipe.precision == "int8" and judged.gate is not None and judged.gate["promise"] is None
    seen = chosen or (request.recorded is not None and not request.recorded_apart)
    recipe, record = _Judge(graph, request, images, tools, seen).run(recipe)
    if judged.gate is None or "cpu" not in request.targets:
        # The engine has no other form; how INT8 was searched for stays in the record.
        searched = {key: value for key, value in (judged.gate or {}).items() if key in ("evaluations", "search")}
        return dataclasses.replace(judged, recipe=recipe, gate=searched | record, plans=record)
    return dataclasses.replace(judged, recipe=recipe, plans=record)


@dataclass
class _Judge:
    graph: Graph  # FP32
    request: RecipeRequest
    images: ImageSet  # the gate's
    tools: PlanTools
    seen: bool  # the gate's images had a part in choosing the recipe

    def run(self, recipe: PrecisionRecipe) -> tuple[PrecisionRecipe, dict[str, Any]]:
        gate = self.request.gate
        looks = gate.looks(len(self.images.images))
        verdict = self._verdict(recipe, self.images, unseen=not self.seen, looks=looks)
        if verdict.passed:
            return recipe, self._record(recipe, verdict)
        why = verdict.failure()
        for pool, aim in self._pools():
            unseen = pool is not self.images and not self.seen and looks > 1
            if gate.coverage is not None and not unseen:
                break
            for changed in self._changed(recipe, pool, aim):
                verdict = self._verdict(changed, self.images, unseen=unseen, looks=looks)
                if verdict.passed:
                    return changed, self._record(changed, verdict) | {"returned": _given_back(recipe, changed, why)}
        raise GateError(
            f"a GPU's plan ({_words(recipe)}, emulated): {verdict.failure()} on {len(verdict.dice)} images",
            fix="use a higher precision, a wider gate, or --target cpu alone",
        )

    def _pools(self) -> list[tuple[ImageSet, Gate]]:
        """By which images to choose what is given back, and with what aim: the gate's come last."""
        gate, own = self.request.gate, self.request.search_images
        apart = [] if own is None else [(own, gate.stricter), (own, Gate(gate.mean, gate.tail))]
        return [*apart, (self.images, gate)]

    def _changed(self, recipe: PrecisionRecipe, pool: ImageSet, gate: Gate) -> Iterator[PrecisionRecipe]:
        """Recipes that give back something for plans, chosen by `pool`: the one that gives back least comes first."""
        if recipe.precision == "int8" and recipe.skips:
            recipe = dataclasses.replace(recipe, skips=[])
            if self._verdict(recipe, pool, unseen=False, gate=gate).passed:
                yield recipe
        choices = _int8_choices(self.graph, recipe) if recipe.precision == "int8" else _low_choices(self.graph, recipe)
        key = sha256_json([self.request.key, pool.sha256, PLAN, dataclasses.asdict(recipe)])
        place, said = self.tools.checkpoint, self.tools.progress
        search = _PlanSearch(
            self.graph,
            choices.candidates,
            {},
            pool.images,
            self.tools.masks.of(self.graph, self.request.graph_sha256, pool),
            gate,
            recipe.weight_levels,
            checkpoint=None if place is None else place.with_suffix(f".{key[:8]}.json"),
            execution=_ARITHMETIC[low_type(recipe.apply(self.graph, PLAN))],
            key=key,
            progress=lambda phase, *rest: said(f"plan: {phase.replace('int8', recipe.precision)}", *rest),
            typed=choices.typed,
        )
        try:
            found = search.run((PLAN,))
        except GateError:
            return
        yield choices.recipe(found.nodes)

    def _verdict(
        self, recipe: PrecisionRecipe, images: ImageSet, *, unseen: bool, looks: int = 1, gate: Gate | None = None
    ) -> GateVerdict:
        self.tools.progress("gate of the plan, emulated", 0, 1)
        reference = self.tools.masks.of(self.graph, self.request.graph_sha256, images)
        found = emulated_session(recipe.apply(self.graph, PLAN)).probabilities(images.images)
        self.tools.progress("gate of the plan, emulated", 1, 1)
        return judge(found, reference, gate or self.request.gate, unseen=unseen, looks=looks)

    def _record(self, recipe: PrecisionRecipe, verdict: GateVerdict) -> dict[str, Any]:
        low = _ARITHMETIC[low_type(recipe.apply(self.graph, PLAN))]
        how = f"emulated on a CPU: every node's result rounded to {low}, sums in f32"
        return gate_record(verdict, self.images, low) | {"how": how}


@dataclass(frozen=True)
class _Choices:
    """What a plan may have in the lower type, and the recipe with some of it so."""

    candidates: list[str]
    recipe: Callable[[Sequence[str]], PrecisionRecipe]
    typed: Callable[[Sequence[str]], Graph]


@dataclass
class _PlanSearch(Search):
    """The search, for a plan's graph and in its arithmetic."""

    typed: Callable[[Sequence[str]], Graph] = field(kw_only=True)

    def _session(self, method: str, nodes: Sequence[str]) -> Session:
        return emulated_session(self.typed(nodes))


def _int8_choices(graph: Graph, recipe: PrecisionRecipe) -> _Choices:
    """INT8 convolutions that may join the FP16 remainder."""
    candidates = recipe.int8_nodes(PLAN)

    def changed(nodes: Sequence[str]) -> PrecisionRecipe:
        kept = set(nodes)
        cpu_only = [name for name in recipe.int8 if name not in kept]
        skips = [name for name in quantised_skips(graph, kept) if name in set(recipe.skips)]
        return dataclasses.replace(recipe, cpu_only=cpu_only, skips=skips)

    def typed(nodes: Sequence[str]) -> Graph:
        return (changed(nodes) if nodes else remainder_recipe(recipe)).apply(graph, PLAN)

    return _Choices(candidates, changed, typed)


def remainder_recipe(recipe: PrecisionRecipe) -> PrecisionRecipe:
    """The recipe of a GPU graph that is an INT8 one's FP16 remainder and nothing else."""
    return dataclasses.replace(recipe, precision="fp16", int8=[], ranges={}, skips=[], cpu_only=[])


def _low_choices(graph: Graph, recipe: PrecisionRecipe) -> _Choices:
    """FP16 or BF16 convolutions and products that may return to FP32, each with the nodes up to the next of them."""
    apart = set(recipe.kept)
    candidates = [n.name for n in graph.nodes if n.op_type in COMPUTE and n.name not in apart]
    followers = _followers(graph, candidates)

    def changed(nodes: Sequence[str]) -> PrecisionRecipe:
        low = set(nodes)
        returned = {
            each: f"returned to fp32 on GPUs: all in {recipe.precision} misses the gate"
            for name in candidates
            if name not in low
            for each in followers[name]
        }
        return dataclasses.replace(recipe, plan_kept=recipe.plan_kept | returned)

    def typed(nodes: Sequence[str]) -> Graph:
        return changed(nodes).apply(graph, PLAN) if nodes else graph

    return _Choices(candidates, changed, typed)


def _followers(graph: Graph, candidates: Collection[str]) -> dict[str, list[str]]:
    """Each candidate with the nodes behind it, up to the next candidate."""
    found: dict[str, list[str]] = {name: [] for name in candidates}
    current: list[str] = []
    for node in graph.nodes:
        current = found.get(node.name, current)
        current.append(node.name)
    return found


def _given_back(before: PrecisionRecipe, after: PrecisionRecipe, why: str) -> dict[str, Any]:
    """What a plan's graph has in a higher type, for whoever reads the manifest."""
    blocks = [name for name in after.cpu_only if name not in set(before.cpu_only)]
    return {
        "to_fp16": len(blocks),
        "to_fp32": len(set(after.plan_kept) - set(before.plan_kept)),
        "skips": len(before.skips) - len(after.skips),
        "why": why,
    }


def _words(recipe: PrecisionRecipe) -> str:
    return "int8 with fp16" if recipe.precision == "int8" else recipe.precision


def plan_gate_text(record: dict[str, Any]) -> str:
    """A verdict on a plan's graph in a few words.

    >>> plan_gate_text({"mean": 0.9991, "minimum": 0.99, "images": 99, "how": "emulated on a CPU", "passed": True})
    'Dice to FP32 mean 0.9991, minimum 0.9900 on 99 images, emulated on a CPU'
    """
    return (
        f"Dice to FP32 mean {record['mean']:.4f}, minimum {record['minimum']:.4f} on {record['images']} images, "
        f"{record['how']}"
    )


def plan_notes(record: dict[str, Any] | None, precision: str) -> list[str]:
    """What to know of an engine's plans: that nothing judged them, or what had to be given back for the gate.

    >>> plan_notes(None, "fp16")
    ['the plans were not judged: there were no pictures to compare masks on']
    """
    if record is None:
        return [] if precision == "fp32" else ["the plans were not judged: there were no pictures to compare masks on"]
    given = record.get("returned")
    if given is None:
        return []
    parts = [
        f"{given['skips']} residuals without Q/DQ" if given["skips"] else "",
        f"{given['to_fp16']} convolutions back in fp16" if given["to_fp16"] else "",
        f"{given['to_fp32']} nodes back in fp32" if given["to_fp32"] else "",
    ]
    return [f"the plans have {', '.join(filter(None, parts))}: else {given['why']}"]
