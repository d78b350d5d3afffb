"""What the FP32 graph makes of the gate's images: the masks that every other precision is compared with."""

from __future__ import annotations

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes
from gms_rt.graph.graph import Graph
from gms_rt.graph.run import Session
from gms_rt.precision.images import ImageSet


class Fp32Masks:
    """Probabilities of the FP32 graph. The latest are kept: the next precision of a graph needs the same ones."""

    def __init__(self) -> None:
        self._key: tuple[str, str, int] | None = None
        self._latest: U8 | None = None

    def of(self, graph: Graph, graph_sha256: str, images: ImageSet) -> U8:
        """The probabilities of `images`, in their order; `graph_sha256` is the hash of the graph's file."""
        order = sha256_bytes("".join(images.each_sha256()).encode())
        key = (graph_sha256, order, graph.size[0])
        if self._latest is None or self._key != key:
            self._key, self._latest = key, Session(graph).probabilities(images.images)
        return self._latest


# What builds share unless they are given one of their own.
SHARED = Fp32Masks()
