"""Which blocks of a graph do how much damage: a part is quantised alone, and taken apart where it does much.

A part that does next to nothing stays one block, any other is divided in two, down to single blocks. A stage's first
block sees what the stage is given, and breaks rare masks: where it saves next to nothing it is told apart in any case,
and its damage is taken for as large as the part's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gms_rt.graph.graph import stage
from gms_rt.precision.blocks import PrecisionBlock, united_block
from gms_rt.progress import OnProgress

# Share of what INT8 saves altogether below which a stage's first block is told apart from a calm part.
HEAD_SHARE = 0.001


def rank_blocks(
    units: Sequence[PrecisionBlock],
    alone: Callable[[Sequence[PrecisionBlock]], float],
    calm: float,
    progress: OnProgress,
) -> list[tuple[PrecisionBlock, float]]:
    """Blocks with the damage that each does alone; parts of at most `calm` of all damage are one block.

    Of two halves only the first is tried: what one does not do of the damage of both, the other does.
    """
    stages: dict[str, list[PrecisionBlock]] = {}
    for unit in units:
        stages.setdefault(stage(unit.name), []).append(unit)
    parts = []
    for number, members in enumerate(stages.values()):
        progress("damage by stage", number, len(stages))
        parts.append((members, alone(members)))
    total = sum(cost for _, cost in parts)
    small = HEAD_SHARE * sum(unit.saves for unit in units)
    heads = {members[0].name for members in stages.values() if members[0].saves <= small}
    found: list[tuple[PrecisionBlock, float]] = []
    while parts:
        progress("damage by block", len(found), len(found) + len(parts))
        members, cost = parts.pop(0)
        if len(members) == 1 or cost <= calm * total:
            head = int(len(members) > 1 and members[0].name in heads)
            found += [(unit, cost) for unit in members[:head]]
            found.append((united_block(members[head:]), cost))
            continue
        half = len(members) // 2
        first = min(cost, alone(members[:half]))
        parts += [(members[:half], first), (members[half:], cost - first)]
    progress("damage by block", len(found), len(found))
    return found
