"""The example program in C, built with the installed library.

Its own C tests are run by `scripts/check-native`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.native_build import FLAGS, NATIVE, compiler, installed_library, run
from support.native_graphs import crashing_graph, mean_graph

from gms_rt.runtime.library import find_openvino


@pytest.fixture(scope="module")
def installed() -> Path:
    """The library installed below a folder, as `cmake --install` does it."""
    return installed_library()


@pytest.fixture(scope="module")
def segment(installed: Path) -> Path:
    """The example, built with the installed library."""
    program = installed / "segment"
    run(
        [
            compiler(),
            *FLAGS[:2],
            str(NATIVE / "examples" / "segment.c"),
            f"-I{installed / 'include'}",
            f"-L{installed / 'lib'}",
            "-lgms_rt",
            f"-Wl,-rpath,{installed / 'lib'}",
            "-o",
            str(program),
        ]
    )
    return program


def write_ppm(path: Path, rgb: np.ndarray) -> None:
    kind = b"P6" if rgb.ndim == 3 else b"P5"
    path.write_bytes(kind + b"\n# a comment\n%d %d\n255\n" % (rgb.shape[1], rgb.shape[0]) + rgb.tobytes())


def environment() -> dict[str, str]:
    return {**os.environ, "GMS_RT_OPENVINO": str(find_openvino())}


@pytest.mark.parametrize("grey", [False, True])
def test_the_example_segments_an_image(segment: Path, tmp_path: Path, grey: bool) -> None:
    graph = mean_graph(tmp_path / "mean.onnx", height=32, width=48)
    rows, columns = np.mgrid[0:90, 0:130]
    disc = 255 / (1 + np.exp((np.hypot(rows - 45, columns - 60) - 30) / 2))
    scan = disc.astype(np.uint8) if grey else np.repeat(disc.astype(np.uint8)[..., None], 3, -1)
    write_ppm(tmp_path / "scan.ppm", scan)
    out = tmp_path / "mask.pgm"
    run([str(segment), str(graph), str(tmp_path / "scan.ppm"), str(out)], env=environment())
    mask = cv2.imread(str(out), cv2.IMREAD_GRAYSCALE)
    assert mask.shape == (90, 130)
    assert set(np.unique(mask)) == {0, 255}
    small = cv2.resize(disc.astype(np.uint8), (48, 32), interpolation=cv2.INTER_LINEAR)
    reference = cv2.resize(small, (130, 90), interpolation=cv2.INTER_LINEAR) >= 128
    assert np.logical_xor(mask > 0, reference).mean() < 0.005


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an 8-bit binary PGM or PPM"),
        (b"P6\n4 4\n255\nshort", "not an 8-bit binary PGM or PPM"),
        (b"P6\n4 4\n65535\n" + bytes(96), "not an 8-bit binary PGM or PPM"),
        (b"P5\n-4 4\n255\n" + bytes(16), "not an 8-bit binary PGM or PPM"),
        (b"P5\n99999999999 9\n255\n", "not an 8-bit binary PGM or PPM"),
    ],
)
def test_the_example_refuses_other_files(segment: Path, tmp_path: Path, content: bytes, said: str) -> None:
    graph = mean_graph(tmp_path / "mean.onnx")
    (tmp_path / "scan.ppm").write_bytes(content)
    done = subprocess.run(
        [str(segment), str(graph), str(tmp_path / "scan.ppm"), str(tmp_path / "mask.pgm")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and said in done.stderr
    assert not (tmp_path / "mask.pgm").exists()


def test_the_example_survives_a_graph_that_crashes_openvino(segment: Path, tmp_path: Path) -> None:
    """The installed library finds its trial program beside itself."""
    write_ppm(tmp_path / "scan.ppm", np.zeros((4, 4, 3), np.uint8))
    done = subprocess.run(
        [str(segment), str(crashing_graph(tmp_path / "bad.onnx")), str(tmp_path / "scan.ppm"), str(tmp_path / "m.pgm")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "bad.onnx: " in done.stderr and done.stderr.count("\n") == 1


def test_the_example_starts_without_openvino(segment: Path, tmp_path: Path) -> None:
    write_ppm(tmp_path / "scan.ppm", np.zeros((4, 4, 3), np.uint8))
    graph = mean_graph(tmp_path / "mean.onnx")
    done = subprocess.run(
        [str(segment), str(graph), str(tmp_path / "scan.ppm"), str(tmp_path / "mask.pgm")],
        env={**os.environ, "GMS_RT_OPENVINO": "/nowhere/libopenvino_c.so"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "pip install openvino" in done.stderr
