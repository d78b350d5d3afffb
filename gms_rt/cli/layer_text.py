"""An engine's layers as text: stages first, then layers, the one that is farthest from FP32 first."""

from __future__ import annotations

from collections.abc import Sequence

from gms_rt.cli.console import table
from gms_rt.engine.layer_profile import EngineProfile, LayerProfile

_SHORT = 0.01  # milliseconds; layers that take less are counted, not shown


def rows_to_show(
    layers: Sequence[LayerProfile], worth: Sequence[str], *, every: bool = False
) -> tuple[LayerProfile, ...]:
    """The layers that a reader looks for: what takes time, and what is named as worth a better type."""
    every = every or not any(each.milliseconds for each in layers)  # nothing was timed
    return tuple(each for each in layers if every or each.milliseconds >= _SHORT or each.name in worth)


def layers_text(found: EngineProfile, *, shown: Sequence[LayerProfile]) -> str:
    """Times by stage and layer, and what to look at."""
    rows = [
        [
            each.name,
            each.kind or "-",
            each.arithmetic or "-",
            f"{each.milliseconds:.3f}",
            f"{each.gflop:.3f}",
            "-" if each.distance is None else f"{each.distance:.2e}",
        ]
        for each in shown
    ]
    total = found.milliseconds or 1.0
    stages = [[name, f"{ms:.3f}", f"{100 * ms / total:.0f} %"] for name, ms in found.stages.items()]
    folded = len(found.layers) - len(shown)
    return "\n".join(
        [
            f"{found.milliseconds:.2f} ms in layers on {found.device}, floating point in {found.execution}; "
            f"an inference takes {found.inference:.2f} ms",
            "",
            table(stages, header=["stage", "ms", "share"]),
            "",
            table(rows, header=["layer (largest distance first)", "kind", "runs in", "ms", "GFLOP", "distance"]),
            *([f"and {folded} layers below {_SHORT:g} ms (--all shows them)"] if folded else []),
            "",
            f"times: {found.timed}",
            f"distance: of what a layer puts out, relative to {found.compared}",
            f"worth a better type: {', '.join(found.worth) or 'none'} (they add most to the distance)",
        ]
    )
