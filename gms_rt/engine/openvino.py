"""The CPU's part of a build: compile the typed graph as the runtime will, and report what it executes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gms_rt.errors import GmsError
from gms_rt.graph.graph import Graph
from gms_rt.graph.layer_counts import check_int8_execution, computing_layers, layers_in
from gms_rt.graph.run import Session
from gms_rt.precision.cpu_choice import CpuChoice
from gms_rt.precision.recipe import PrecisionRecipe
from gms_rt.precision.returned import cpu_form, runs_in_f32
from gms_rt.runtime.device import probe


def inspect_execution(graph: Graph, choice: CpuChoice, quantised: int, recipe: PrecisionRecipe) -> dict[str, Any]:
    """Compile for this CPU and count its layers by arithmetic; refuse what is not the arithmetic that was chosen."""
    asked = choice.execution
    session = Session(graph, execution=asked, form=cpu_form(recipe, graph))
    if not runs_in_f32(session, recipe.returned):
        raise GmsError("the CPU runtime does not run the returned blocks in f32", fix="use --precision fp32")
    executed = session.executed_layers()
    found: dict[str, Any] = {"cpu": probe().processor, "asked": asked, "layers": executed}
    if choice.milliseconds:
        found["milliseconds"] = choice.milliseconds
    if quantised:
        found["int8_layers"] = check_int8_execution(executed, quantised)
    if asked != "f32" and quantised and not layers_in(executed, asked):
        raise GmsError(
            f"asked for int8 with the rest in {asked}, but the CPU runtime runs no layer in {asked}",
            fix="build again: the arithmetic is chosen anew",
        )
    if asked != "f32" and not quantised and not computing_layers(executed).get(asked):
        raise GmsError(f"asked for {asked}, but the CPU runtime computes no layer in it", fix="use --precision fp32")
    return found


def batch_stays_open(fixed: Graph, opened: Graph) -> bool:
    """Whether the graph with an open batch gives, for two pictures at once, what it gives for each alone."""
    _, height, width = fixed.size
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    alone = Session(fixed).probabilities(images)
    try:
        together = Session(opened, batch=2).probabilities(images)
    except GmsError:
        return False  # typed for one batch only: a shape inside is a constant
    return bool(np.abs(alone.astype(np.int16) - together).max() <= 1)
