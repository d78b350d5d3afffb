"""What the FP32 graph makes of the gate's images: the masks that every other precision is compared with."""

from __future__ import annotations

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes
from gms_rt.graph.graph import Graph
from gms_rt.graph.run import Session
from gms_rt.precision.images import ImageSet

_SETS = 3  # those of one INT8 build: the search's, the gate's, both together


class Fp32Masks:
    """Probabilities of the FP32 graph. The latest sets are kept: a build's parts and the next precision need them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, int], U8] = {}

    def of(self, graph: Graph, graph_sha256: str, images: ImageSet) -> U8:
        """The probabilities of `images`, in their order; `graph_sha256` is the hash of the graph's file."""
        order = sha256_bytes("".join(images.each_sha256()).encode())
        key = (graph_sha256, order, graph.size[0])
        found = self._kept.pop(key, None)
        if found is None:
            found = Session(graph).probabilities(images.images)
        self._kept[key] = found  # the latest stands last
        while len(self._kept) > _SETS:
            del self._kept[next(iter(self._kept))]
        return found


# What builds share unless they are given one of their own.
SHARED = Fp32Masks()
