"""What TensorRT tells of a plan's layers: how long each took, of which type it is, and which ONNX nodes are in it.

Times come from TensorRT's profiler, which records CUDA events between the layers of one execution context; types from
its engine inspector, as far as the plan was built to tell them. Both are the same in TensorRT 8.6 to 11, on a Jetson as
elsewhere, and in TensorRT-RTX. A profiled inference cannot be captured into a CUDA graph, and waits for each layer.
"""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass
from typing import Any

# Words that TensorRT's versions have for a tensor's type, in the order in which they are looked for.
_WORDS = {
    "": ("uint8", "int64", "int32", "bool"),
    "i8": ("int8",),
    "f8": ("fp8", "float8"),
    "bf16": ("bf16", "bfloat16"),
    "f16": ("half", "fp16", "float16"),
    "f32": ("float", "fp32"),
}


@dataclass(frozen=True)
class PlanLayer:
    """One layer of a plan."""

    name: str
    kind: str  # TensorRT's word; "" where the plan does not tell
    arithmetic: str  # i8, f8, bf16, f16, f32; "" where the plan does not tell
    milliseconds: float  # median; 0 for a layer that the profiler did not name
    origin: str  # what names its ONNX nodes


class LayerWatch:
    """Hears of one execution context. `attach` it before the first inference, `start` before each that counts."""

    def __init__(self) -> None:
        self._runs: list[dict[str, float]] = []
        self._described = "{}"
        self._profiler: Any = None  # TensorRT does not keep it alive

    def attach(self, trt: Any, engine: Any, context: Any) -> None:
        """Listen to a context from now on, and ask what its engine is made of."""
        watch = self

        class Profiler(trt.IProfiler):  # type: ignore[misc]  # the base class exists at run time only
            """Hands on what each layer took."""

            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                watch._hear(layer_name, ms)

        self._profiler = Profiler()
        context.profiler = self._profiler
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context
        self._described = inspector.get_engine_information(trt.LayerInformationFormat.JSON)

    def start(self) -> None:
        """The next inference counts; what was heard before the first one does not."""
        self._runs.append({})

    def layers(self) -> list[PlanLayer]:
        """The engine's layers in its own order, with the median of each over the inferences that counted."""
        names = dict.fromkeys(name for run in self._runs for name in run)
        times = {name: statistics.median(run.get(name, 0.0) for run in self._runs) for name in names}
        entries = dict(_entries(self._described))
        return [
            PlanLayer(
                name,
                str(entries.get(name, {}).get("LayerType", "")),
                layer_arithmetic(entries.get(name, {})),
                times.get(name, 0.0),
                str(entries.get(name, {}).get("Metadata") or name),
            )
            for name in dict.fromkeys([*entries, *times])
        ]

    def _hear(self, layer: str, milliseconds: float) -> None:
        if self._runs:
            self._runs[-1][layer] = self._runs[-1].get(layer, 0.0) + milliseconds


def _entries(described: str) -> list[tuple[str, dict[str, Any]]]:
    """The inspector's layers by name; one that was built to tell no more is its name only."""
    try:
        listed = json.loads(described).get("Layers", [])
    except (ValueError, AttributeError):
        return []
    pairs = [(entry.get("Name"), entry) if isinstance(entry, dict) else (entry, {}) for entry in listed]
    return [(name, entry) for name, entry in pairs if isinstance(name, str)]


def layer_arithmetic(entry: dict[str, Any]) -> str:
    """The type in which a layer of the inspector's report computes: its weights', else its first input's that is one.

    >>> half = {"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
    >>> layer_arithmetic({"Weights": {"Type": "Int8", "Count": 9}, "Outputs": [half]})
    'i8'
    >>> layer_arithmetic({"Inputs": [{"Datatype": "UInt8"}], "Outputs": [half]})
    'f16'
    >>> layer_arithmetic({"Name": "only a name"})
    ''
    """
    weights = entry.get("Weights")
    found = [_type_in_words(str(weights.get("Type", "")))] if isinstance(weights, dict) else []
    for side in ("Inputs", "Outputs"):
        for tensor in entry.get(side) or []:
            if isinstance(tensor, dict):
                words = [str(value) for key, value in tensor.items() if "type" in key.lower()]
                found.append(_type_in_words(" ".join(words)))
    return next(filter(None, found), "")


def _type_in_words(text: str) -> str:
    """A type from TensorRT's words for it, "" for none that computes."""
    return next((name for name, words in _WORDS.items() if any(word in text.lower() for word in words)), "")


def nodes_in_origin(origin: str, known: list[str]) -> tuple[str, ...]:
    """The nodes, in the order of `known`, that a layer's metadata or name speaks of.

    >>> nodes_in_origin("[ONNX Layer: encoder/down.1]\\x1e[ONNX Layer: encoder/act]", ["encoder/act", "encoder/down"])
    ('encoder/act',)
    >>> nodes_in_origin("{ForeignNode[lmm/a...lmm/b.1]}", ["lmm/a", "lmm/b", "lmm/b.1"])
    ('lmm/a', 'lmm/b.1')
    >>> nodes_in_origin("encoder/conv + PWN(encoder/act)", ["encoder/conv", "encoder/act"])
    ('encoder/conv', 'encoder/act')
    """
    named = re.findall(r"\[ONNX Layer: ([^\]\x1e]*)\]", origin)
    words = set(named) if named else set(re.split(r"[^\w./:-]+|\.{3}", origin))
    return tuple(name for name in known if name in words)
