"""What of an INT8 graph's remainder stays in f32 where the rest of it runs in BF16.

BF16 has eight bits as INT8 has, and it hurts where INT8 does: in the layers that see the picture first, which the
search has returned from INT8 for that very reason. On most pictures that does not show in Dice, on the worst of unseen
ones it does, so it is not left to a gate. On the images of the search that suffer most, stages whose floating
convolutions in f32 take away a part of the damage are returned, those first that take most for their operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gms_rt.arrays import F64, U8
from gms_rt.errors import GmsError
from gms_rt.graph.count import node_flop
from gms_rt.graph.graph import Graph, stage
from gms_rt.graph.openvino_ir import IrGraph
from gms_rt.graph.run import Session
from gms_rt.precision.cpu_choice import NEEDED_GAIN, CpuChoice, in_f32, latencies
from gms_rt.precision.damage import soft_dice_loss
from gms_rt.precision.int8 import QUANTISABLE
from gms_rt.precision.returned import runs_in_f32

IMAGES = 32  # those with the lowest Dice in BF16
# Damage that BF16 may add to INT8's own, as a share of that, before anything is returned.
WANTED = 0.25
# A stage is returned if that takes away this share of what BF16 adds.
_WORTH = 0.1
# Damage that no mask shows, whatever INT8's is.
_NOTHING = 2e-5


@dataclass(frozen=True)
class Remainder:
    """In which arithmetic what is not INT8 shall run."""

    cpu: CpuChoice
    returned: tuple[str, ...] = ()  # what of it stays in f32 all the same


@dataclass(frozen=True)
class Bf16Damage:
    """What BF16 does to the masks beside INT8, and what was returned to f32 for that."""

    returned: tuple[str, ...]  # floating convolutions that stay in f32
    int8: float  # damage with everything else in f32
    all_bf16: float  # with everything else in BF16
    damage: float  # with `returned` in f32

    @property
    def note(self) -> str:
        """What was found, for whoever reads the manifest."""
        stay = "convolution stays" if len(self.returned) == 1 else "convolutions stay"
        return (
            f"{len(self.returned)} {stay} in f32, because bf16 would add "
            f"{_share(self.all_bf16, self.int8)} to what int8 changes in the masks of the worst pictures, "
            f"and so adds {_share(self.damage, self.int8)}"
        )


def choose_remainder(typed: Graph, cpu: CpuChoice, images: U8, reference: U8, dice: F64) -> Remainder:
    """The arithmetic beside INT8 where BF16 is faster: that with some stages in f32, or f32 if that is as fast.

    `cpu` is the choice by time alone; `images` are those that chose INT8, `reference` their FP32 probabilities, `dice`
    what they keep in BF16.
    """
    hardest = np.argsort(dice)[:IMAGES]
    found = bf16_damage(typed, images[hardest], reference[hardest])
    if not found.returned:
        return Remainder(cpu)
    mixed = Session(typed, execution="bf16", form=IrGraph(typed).keeping(found.returned))
    full_ms, mixed_ms = latencies(Session(typed), mixed, images[:1].repeat(typed.size[0], 0))
    milliseconds = {"f32": round(full_ms, 3), "bf16": round(mixed_ms, 3)}
    if mixed_ms * NEEDED_GAIN > full_ms:
        why = f"{found.note}; that is not faster: {mixed_ms:.1f} ms against {full_ms:.1f} ms"
        return Remainder(CpuChoice("f32", in_f32("int8", why), milliseconds=milliseconds))
    note = f"what is not int8 runs in bf16: {mixed_ms:.1f} ms, in f32 it was {full_ms:.1f} ms; {found.note}"
    return Remainder(CpuChoice("bf16", note, milliseconds=milliseconds), found.returned)


def bf16_damage(typed: Graph, images: U8, reference: U8) -> Bf16Damage:
    """Find what must stay in f32 of an INT8 graph, by images that suffer with all of it in BF16."""

    def damage(session: Session) -> float:
        return float(soft_dice_loss(session.probabilities(images), reference).mean())

    int8, low = damage(Session(typed)), damage(Session(typed, execution="bf16"))
    wanted = int8 * (1 + WANTED) + _NOTHING
    if low <= wanted:
        return Bf16Damage((), int8, low, low)
    form = IrGraph(typed)

    def with_f32(nodes: list[str]) -> float | None:
        """The damage with these nodes in f32; None where the runtime does not run them so."""
        try:
            session = Session(typed, execution="bf16", form=form.keeping(nodes))
        except GmsError:
            return None
        return damage(session) if runs_in_f32(session, nodes) else None

    parts = _floating_by_stage(typed)
    gains: dict[str, float] = {}
    found: dict[tuple[str, ...], float] = {}
    for name, nodes in parts.items():
        alone = with_f32(nodes)
        if alone is not None and low - alone >= _WORTH * (low - int8):
            gains[name], found[tuple(nodes)] = low - alone, alone
    flop = {node.name: node_flop(typed, node) for node in typed.nodes}
    returned: list[str] = []
    best = low
    for name in sorted(gains, key=lambda name: -gains[name] / max(sum(flop[node] for node in parts[name]), 1)):
        if best <= wanted:
            break
        nodes = [*returned, *parts[name]]
        together = found[tuple(nodes)] if tuple(nodes) in found else with_f32(nodes)
        if together is not None and together < best:
            returned, best = nodes, together
    return Bf16Damage(tuple(returned), int8, low, best)


def _floating_by_stage(typed: Graph) -> dict[str, list[str]]:
    """The convolutions that are not quantised, by stage."""
    found: dict[str, list[str]] = {}
    for node in typed.nodes:
        if node.op_type in QUANTISABLE and node.input[1] in typed.initialisers:
            found.setdefault(stage(node.name), []).append(node.name)
    return found


def _share(damage: float, base: float) -> str:
    return f"{max(damage - base, 0.0) / base:.0%}" if base > 0 else "something"
