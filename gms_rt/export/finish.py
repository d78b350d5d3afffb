"""The end of every export: flips, what the graph says of itself, its reference, its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gms_rt.classes import SegmentClass
from gms_rt.data.reference_pictures import ReferencePictures, phantom_pictures
from gms_rt.export.options import ExportOptions
from gms_rt.export.reference import Segmenting, write_golden
from gms_rt.graph.flips import average_over_views
from gms_rt.graph.graph import Graph
from gms_rt.graph.join import describe_graph
from gms_rt.graph.write import write_graph
from gms_rt.scan.flips import FLIPS, mean_over_flips


@dataclass(frozen=True)
class ModelFacts:
    """What a graph says of the model that it was made of."""

    source: Mapping[str, Any]  # where it comes from
    classes: Sequence[SegmentClass] = ()  # what its mask shows
    tokenizer: Mapping[str, Any] = field(default_factory=dict)  # the frozen one in it
    properties: Mapping[str, str] = field(default_factory=dict)  # further metadata, by their whole names


class OverFlips:
    """A model whose masks are the mean over flips, as its graph computes them."""

    def __init__(self, model: Segmenting, flips: str) -> None:
        self._model, self._flips = model, flips

    def segment(self, images: Tensor) -> Tensor:
        """uint8 N×H×W×3 images to uint8 N×H×W probabilities."""

        def infer(views: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            found: np.ndarray[Any, Any] = self._model.segment(torch.from_numpy(np.ascontiguousarray(views))).numpy()
            return found

        return torch.from_numpy(np.rint(mean_over_flips(infer, images.numpy(), self._flips)).astype(np.uint8))


def finish_graph(
    graph: Graph,
    model: Segmenting,
    out: Path,
    options: ExportOptions,
    facts: ModelFacts,
    pictures: ReferencePictures | None = None,
) -> None:
    """Write a graph and its reference, of phantoms where no pictures are given."""
    source = dict(facts.source)
    if options.flips is not None:
        average_over_views(graph, FLIPS[options.flips], options.batch)
        model = OverFlips(model, options.flips)
        source["flips"] = options.flips
    describe_graph(graph.model, out.stem, dict(facts.tokenizer), source, facts.classes)
    for key, value in facts.properties.items():
        graph.model.metadata_props.add(key=key, value=value)
    pictures = pictures or phantom_pictures(options.height, options.width)
    write_golden(model, out.with_suffix(".golden.npz"), pictures)
    write_graph(graph, out, check=True)
