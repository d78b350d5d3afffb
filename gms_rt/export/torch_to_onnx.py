"""One torch module to ONNX, every name in it beginning with its stage's."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gms_rt.errors import GmsError, MissingExtraError
from gms_rt.graph.finite import not_finite
from gms_rt.telemetry import quiet_module


@dataclass(frozen=True)
class ExportStage:
    """One part of the pipeline as a module whose `forward` takes `value, *more`."""

    name: str
    module: nn.Module
    examples: tuple[Tensor, ...]  # inputs of the right shapes and types; only these matter
    outputs: int = 1  # how many tensors come out


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not numbers."""
    for name, value in weights.items():
        finite = torch.isfinite(value)
        if not finite.all():
            raise not_finite(name, int((~finite).sum()), value.numel(), "the model")


def export_stage(stage: ExportStage, opset: int, batch: tuple[int, int]) -> Any:
    """The ONNX model of a stage, for a batch from the first to the second of `batch`."""
    import onnx

    try:
        import onnxscript  # noqa: F401 - the exporter needs it and says so late
    except ImportError as error:
        raise MissingExtraError("export", "train") from error
    low, high = batch
    shapes: tuple[Any, ...] | None = None
    if low < high:
        several = {0: torch.export.Dim("batch", min=low, max=high)}
        more = tuple(several for _ in stage.examples[1:])  # one argument to the exporter
        shapes = (several, more) if more else (several,)
    with _silence(), torch.no_grad():
        program = torch.onnx.export(
            stage.module,
            stage.examples,
            dynamo=True,
            opset_version=opset,
            input_names=_numbered("in", len(stage.examples)),
            output_names=_numbered("out", stage.outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
    if program is None:
        raise GmsError("torch gave no graph", where=f"stage {stage.name}")
    model = _simplify(program.model_proto)
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = node.name or node.output[0]
    if model.functions:
        raise GmsError("torch left functions in the graph", where=f"stage {stage.name}")
    return onnx.compose.add_prefix(model, f"{stage.name}/")


def _numbered(name: str, count: int) -> list[str]:
    return [name, *(f"{name}{number}" for number in range(1, count))]


def _simplify(model: Any) -> Any:
    """The graph after onnxsim, where that is installed, makes it smaller, and agrees."""
    try:
        onnxsim = quiet_module("onnxsim")
    except ImportError:
        return model
    with _silence():
        smaller, same = onnxsim.simplify(model)
    return smaller if same and len(smaller.graph.node) < len(model.graph.node) else model


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Exporters print to stdout and warn about their own insides; errors still come out."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
