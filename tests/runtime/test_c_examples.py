"""The examples beside `segment.c`, built with the installed library and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.native_build import NATIVE, compiler, fake, installed_library, pkg_config, run
from support.trees import ROOT

from gms_rt.artifacts import sha256_bytes
from gms_rt.engine.manifest import MANIFEST

EXAMPLES = NATIVE / "examples"
STUB = NATIVE / "tests" / "tensorrt"
WARNINGS = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"]


def cpp_compiler() -> str:
    """The C++ compiler, or a skip."""
    compiler()
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler")
    return found


def built_cpp(source: Path, target: Path, *flags: str) -> Path:
    """A program of the installed library."""
    libraries = pkg_config("gms_rt", "--cflags", "--libs")
    rpath = f"-Wl,-rpath,{installed_library() / 'lib'}"
    run([cpp_compiler(), *WARNINGS, str(source), *flags, *libraries, rpath, "-o", str(target)])
    return target


@pytest.fixture(scope="module")
def segment_gpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with TensorRT's API, compiled against the tests' own headers, next to a fake driver."""
    folder = tmp_path_factory.mktemp("tensorrt")
    shutil.copy(fake("cuda"), folder / "libcuda.so.1")
    library = folder / "libnvinfer.so"
    run([cpp_compiler(), *WARNINGS, "-fPIC", "-shared", str(STUB / "NvInfer.cpp"), "-ldl", "-o", str(library)])
    return built_cpp(EXAMPLES / "tensorrt.cpp", folder / "segment-gpu", f"-I{STUB}", f"-L{folder}", "-lnvinfer")


def engine_folder(folder: Path, plan: bytes, **changes: object) -> Path:
    """An engine with one TensorRT plan for the fake driver's GPU."""
    values = json.loads((ROOT / "tests/golden/engine-v1" / MANIFEST).read_text())
    entry = {"target": "tensorrt", "file": "a.plan", "sha256": sha256_bytes(plan), "bytes": len(plan), "sm": 80}
    entry |= {"version": "10.13.3.9", "build_seconds": 1.0, "driver": None} | changes
    values |= {"plans": [entry], "targets": ["tensorrt"], "height": 4, "width": 6}
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps(values))
    (folder / "a.plan").write_bytes(plan)
    return folder


def on_the_gpu(program: Path, engine: Path, state: Path, images: bytes) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "LD_LIBRARY_PATH": str(program.parent), "GMS_RT_STATE": str(state)}
    return subprocess.run([program, engine], input=images, env=env, capture_output=True, check=False)


def vouched(folder: Path, plan: bytes) -> Path:
    """A state folder that says that this user built the plan."""
    (folder / "plans").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (folder / "plans" / (sha256_bytes(plan) + ".json")).write_text("{}")
    return folder


def test_tensorrt_runs_a_plan_that_was_checked(segment_gpu: Path, tmp_path: Path) -> None:
    plan = b"plan of a network"
    engine, state = engine_folder(tmp_path / "engine", plan), vouched(tmp_path / "state", plan)
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
    done = on_the_gpu(segment_gpu, engine, state, images.tobytes())
    assert done.returncode == 0, done.stderr
    assert b"TensorRT: plan of a network" in done.stderr and b"a.plan on GPU 0" in done.stderr
    masks = np.frombuffer(done.stdout, np.uint8).reshape(3, -1)
    assert np.array_equal(masks, images.reshape(3, -1)[:, :24])  # what the stub computes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sm": 87}, "built for SM87, this machine has SM80"),
        ({"version": "10.3.0"}, "10.3.0"),
        ({"sha256": "0" * 64}, "a.plan"),
    ],
)
def test_tensorrt_sees_no_byte_of_another_plan(
    segment_gpu: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    plan = b"plan of somebody"
    engine, state = engine_folder(tmp_path / "engine", plan, **changes), vouched(tmp_path / "state", plan)
    if "sha256" in changes:
        (state / "plans" / ("0" * 64 + ".json")).write_text("{}")
    done = on_the_gpu(segment_gpu, engine, state, bytes(72))
    assert done.returncode == 1 and done.stdout == b"" and b"TensorRT:" not in done.stderr
    assert said in done.stderr.decode() and done.stderr.count(b"\n") <= 2


def test_tensorrt_does_not_get_a_plan_that_nobody_vouches_for(segment_gpu: Path, tmp_path: Path) -> None:
    done = on_the_gpu(segment_gpu, engine_folder(tmp_path / "engine", b"plan x"), tmp_path / "none", bytes(72))
    assert done.returncode == 1 and b"TensorRT:" not in done.stderr


def test_tensorrt_refuses_a_plan_itself(segment_gpu: Path, tmp_path: Path) -> None:
    plan = b"damaged before it was hashed"
    engine, state = engine_folder(tmp_path / "engine", plan), vouched(tmp_path / "state", plan)
    done = on_the_gpu(segment_gpu, engine, state, bytes(72))
    assert done.returncode == 1 and b"TensorRT does not take the plan" in done.stderr
