"""A graph in memory, opened by the C library with the real OpenVINO: the same masks as from its file."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from support.native_graphs import conv_graph, crashing_graph

from gms_rt.runtime import library as c
from gms_rt.runtime.binding import NativeRunner
from gms_rt.runtime.options import CpuSettings, Trial, native_cpu_options


def open_memory(content: bytes, settings: CpuSettings) -> NativeRunner:
    library, handle = c.load_library(), ctypes.c_void_p()
    options = native_cpu_options(library, settings)
    buffer = ctypes.create_string_buffer(content, len(content))
    library.gmsrt_open_cpu_memory.restype = ctypes.c_int32
    size = ctypes.c_size_t(len(content))
    status = library.gmsrt_open_cpu_memory(buffer, size, ctypes.byref(options), ctypes.byref(handle))
    ctypes.memset(buffer, 0xA5, len(content))  # it is the caller's again
    c.check_status(library, status)
    return NativeRunner(library, handle)


@pytest.mark.parametrize("trial", ["always", "auto", "never"])
def test_masks_are_those_of_the_file(tmp_path: Path, trial: Trial) -> None:
    graph = tmp_path / "graph.onnx"
    conv_graph(graph, size=32, width=8, depth=2)
    rgb = np.random.default_rng(3).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    masks = [np.zeros((5, 32, 32), np.uint8) for _ in range(2)]
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    settings = CpuSettings(trial=trial, cache=cache)
    with NativeRunner.open_cpu(graph, settings) as runner:
        runner.infer(rgb, masks[0])
    kept = sorted(cache.iterdir())
    with open_memory(graph.read_bytes(), settings) as runner:
        runner.infer(rgb, masks[1])
    np.testing.assert_array_equal(*masks)
    assert len(np.unique(masks[0])) > 2
    assert sorted(cache.iterdir()) == kept  # the same graph, so the same compiled graph


def test_a_graph_that_crashes_openvino_is_an_error(tmp_path: Path) -> None:
    content = crashing_graph(tmp_path / "bad.onnx").read_bytes()
    with pytest.raises(Exception, match=r"the graph in memory: .* crashed on this graph"):
        open_memory(content, CpuSettings(trial="always"))


def test_openvinos_form_of_a_graph_is_told_from_damage() -> None:
    """`gmsrt_engine_read` gives it where nodes keep f32; its constants are in another file."""
    with pytest.raises(Exception, match="whose constants are in another file; open the engine's folder"):
        open_memory(b'<?xml version="1.0"?>\n<net name="a" version="11"></net>', CpuSettings())
