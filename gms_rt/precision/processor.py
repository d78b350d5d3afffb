"""The form in which a quantised graph is given to a CPU: the same values, computed by what its runtime does well."""

from __future__ import annotations

from gms_rt.graph.graph import Graph
from gms_rt.precision.concat_as_sum import summed_joins
from gms_rt.precision.upsampling import pointwise_upsampling


def for_processor(typed: Graph) -> Graph:
    """A graph with Q/DQ pairs as OpenVINO runs it rightly and fastest."""
    return pointwise_upsampling(summed_joins(typed))
