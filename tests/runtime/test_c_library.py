"""The example program in C, built with the installed library.

Its own C tests are run by `scripts/check-native`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from support.native_build import FLAGS, NATIVE, compiler, installed_library, run
from support.native_graphs import crashing_graph, mean_graph
from support.trees import ROOT

from gms_rt.artifacts import sha256_file
from gms_rt.cli import infer
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


def mean_engine(folder: Path) -> Path:
    """An engine folder whose mask is the mean of the channels, 32 rows of 48 pixels."""
    folder.mkdir()
    graph = mean_graph(folder / "model.onnx", height=32, width=48)
    value = json.loads((ROOT / "tests/golden/engine-v1/engine.json").read_text())
    value |= {"height": 32, "width": 48, "precision": "fp32", "execution": "f32", "targets": ["cpu"], "plans": []}
    value |= {"files": {"model.onnx": sha256_file(graph)}}
    (folder / "engine.json").write_text(json.dumps(value))
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "GMS_RT_OPENVINO": str(find_openvino())}


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("size", [(90, 130), (64, 96), (20, 17), (33, 48), (211, 40)])
def test_the_example_makes_the_mask_of_infer(
    segment: Path, tmp_path: Path, size: tuple[int, int], grey: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On x86-64 byte for byte, for scans that shrink, grow or do both on their way to the network's size."""
    monkeypatch.setenv("GMS_RT_STATE", str(tmp_path / "state"))
    engine = mean_engine(tmp_path / "engine")
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    noise = np.random.default_rng(size[0]).integers(-60, 60, (*size, 3))
    disc = 255 / (1 + np.exp((np.hypot(rows - size[0] / 2, columns - size[1] / 2) - min(size) / 3) / 2))
    scan = np.clip(disc[..., None] + noise, 0, 255).astype(np.uint8)
    scan = scan[..., 0] if grey else scan
    write_ppm(tmp_path / "scan.ppm", scan)
    cv2.imwrite(str(tmp_path / "scan.png"), scan if grey else scan[..., ::-1])
    out = tmp_path / "mask.pgm"
    scan_and_png = [str(tmp_path / "scan.ppm"), str(tmp_path / "mask.png")]
    run([str(segment), str(engine), str(tmp_path / "scan.ppm"), str(out), *scan_and_png], env=environment())
    results = tmp_path / "results"
    arguments = [str(tmp_path / "scan.png"), "--engine", str(engine), "--device", "cpu", "--out", str(results)]
    done = CliRunner().invoke(infer.command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (written,) = results.rglob("masks/**/*.png")
    expected = cv2.imread(str(written), cv2.IMREAD_GRAYSCALE)
    mask = cv2.imread(str(out), cv2.IMREAD_GRAYSCALE)
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(cv2.imread(scan_and_png[1], cv2.IMREAD_UNCHANGED), mask)
    # Elsewhere than on x86-64 the package's OpenCV rounds otherwise, by two levels at most (scan/geometry.py).
    assert np.mean(mask != expected) <= (0 if platform.machine() == "x86_64" else 0.02)
    assert (Path(scan_and_png[1]).read_bytes() == written.read_bytes()) == np.array_equal(mask, expected)


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


def test_the_example_takes_several_images(segment: Path, tmp_path: Path) -> None:
    """Of different sizes, one after the other; the first that fails ends it."""
    engine, levels = mean_engine(tmp_path / "engine"), (0, 255, 128)
    sizes = [(40, 50), (9, 70), (64, 96)]
    names = []
    for number, (level, size) in enumerate(zip(levels, sizes, strict=True)):
        write_ppm(tmp_path / f"{number}.ppm", np.full((*size, 3), level, np.uint8))
        names += [str(tmp_path / f"{number}.ppm"), str(tmp_path / f"{number}.pgm")]
    run([str(segment), str(engine), *names], env=environment())
    for number, (level, size) in enumerate(zip(levels, sizes, strict=True)):
        mask = cv2.imread(str(tmp_path / f"{number}.pgm"), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(mask, np.full(size, 255 if level >= 128 else 0, np.uint8))

    names[2:2] = [str(tmp_path / "none.ppm"), str(tmp_path / "none.pgm")]
    (tmp_path / "2.pgm").unlink()
    done = subprocess.run([str(segment), str(engine), *names], env=environment(), capture_output=True, check=False)
    assert done.returncode == 1 and b"none.ppm" in done.stderr and not (tmp_path / "2.pgm").exists()
    odd = subprocess.run([str(segment), str(engine), *names[:3]], env=environment(), capture_output=True, check=False)
    assert odd.returncode == 2 and b"usage" in odd.stderr


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
