"""Opening engines leaves the thread's signal stack as it was: a signal must never be handled on freed memory."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.native_graphs import conv_graph

from gms_rt.bench.roofline import matrix_ceiling
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.runtime.cpu import CpuRunner
from gms_rt.runtime.signal_stack import signal_stack


def _place() -> tuple[int | None, int, int]:
    found = signal_stack()
    assert found is not None
    return found.pointer, found.flags, found.size


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return conv_graph(tmp_path / "g.onnx", size=16, width=4, depth=1)


@pytest.mark.parametrize("opener", [CpuRunner, lambda path: Session(read_graph(path))], ids=["runner", "session"])
def test_engines_may_end_in_any_order(graph: Path, opener: Callable[[Path], object]) -> None:
    before = _place()
    first = opener(graph)
    second = opener(graph)
    assert _place() == before
    for engine in (first, second):
        if isinstance(engine, CpuRunner):
            engine.close()
    del first, engine
    del second
    assert _place() == before
    handler = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell may have handed down that it is ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, handler)


def test_measuring_the_ceilings_leaves_it_alone() -> None:
    before = _place()
    assert matrix_ceiling("f32", 1, 0.02).value > 0
    assert _place() == before
