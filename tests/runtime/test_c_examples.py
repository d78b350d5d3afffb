"""The examples beside `segment.c`, built with the installed library and run: C++, TensorRT, FFmpeg, Rust.

The masks of those that resize are the package's own, byte for byte.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.native_build import NATIVE, compiler, fake, installed_library, pkg_config, run
from support.native_graphs import expected_mean, mean_graph
from support.trees import ROOT

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes, sha256_file
from gms_rt.engine.manifest import MANIFEST
from gms_rt.runtime.library import find_openvino
from gms_rt.scan.geometry import resize_image, resize_probability

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


def package_mask(rgb: U8) -> U8:
    """What the package makes of an image with `mean_graph` of 32 by 48."""
    levels = expected_mean(resize_image(np.ascontiguousarray(rgb), 32, 48))
    return np.where(resize_probability(levels, *rgb.shape[:2]) >= 0.5, 255, 0).astype(np.uint8)


def openvino_environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "GMS_RT_OPENVINO": str(find_openvino()), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quick start of docs/integrators.md."""
    program = tmp_path_factory.mktemp("quick") / "quick"
    flags = [*pkg_config("gms_rt", "--cflags", "--libs"), f"-Wl,-rpath,{installed_library() / 'lib'}"]
    strict = ["-std=c99", "-O1", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    run([compiler(), *strict, str(EXAMPLES / "quick.c"), *flags, "-o", str(program)])
    return program


def test_the_quick_start_is_the_documents_and_of_one_screen() -> None:
    program = (EXAMPLES / "quick.c").read_text()
    assert f"```c\n{program}```" in (ROOT / "docs/integrators.md").read_text()
    assert program.count("\n") <= 36


def test_the_quick_start_gives_the_packages_mask(quick: Path, tmp_path: Path) -> None:
    rgb = scene(1, 90, 130)[0]
    command = [quick, mean_engine(tmp_path / "engine"), "130", "90"]
    env = openvino_environment(tmp_path)
    done = subprocess.run(command, input=rgb.tobytes(), env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == package_mask(rgb).tobytes()
    done = subprocess.run([quick, tmp_path, "1", "1"], input=b"rgb", env=env, capture_output=True, check=False)
    assert done.returncode == 1 and done.stdout == b"" and done.stderr.count(b"\n") == 1


def test_the_document_explains_every_status() -> None:
    """With its cause, in the order of the header."""
    header = (NATIVE / "include" / "gms_rt.h").read_text()
    block = header[header.index("typedef int32_t gmsrt_status;") :]
    statuses = re.findall(r"(GMSRT_\w+) = \d+", block[: block.index("};")])
    explained = re.findall(r"^\| `(GMSRT_\w+)` \| (.+?) \|", (ROOT / "docs/integrators.md").read_text(), re.MULTILINE)
    assert [name for name, _ in explained] == statuses and len(statuses) > 14
    assert all(cause for _, cause in explained)


@pytest.fixture(scope="module")
def segment_cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with gms_rt.hpp."""
    return built_cpp(EXAMPLES / "segment.cpp", tmp_path_factory.mktemp("cpp") / "segment")


def mean_engine(folder: Path) -> Path:
    """An engine folder of `mean_graph`, 32 by 48."""
    folder.mkdir()
    graph = mean_graph(folder / "model.onnx", height=32, width=48)
    values = json.loads((ROOT / "tests/golden/engine-v1" / MANIFEST).read_text())
    values |= {"height": 32, "width": 48, "precision": "fp32", "execution": "f32", "targets": ["cpu"], "plans": []}
    values |= {"files": {"model.onnx": sha256_file(graph)}}
    (folder / MANIFEST).write_text(json.dumps(values))
    return folder


def test_cpp_gives_the_packages_mask(segment_cpp: Path, tmp_path: Path) -> None:
    rgb = scene(1, 90, 130)[0]
    (tmp_path / "scan.ppm").write_bytes(b"P6\n130 90\n255\n" + rgb.tobytes())
    command = [segment_cpp, mean_engine(tmp_path / "engine"), tmp_path / "scan.ppm", tmp_path / "mask.pgm"]
    done = subprocess.run(command, env=openvino_environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(cv2.imread(str(tmp_path / "mask.pgm"), cv2.IMREAD_GRAYSCALE), package_mask(rgb))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"P5\n1 1\n255\n1", "is not an 8-bit binary PPM"), (b"P6\n4 4\n255\nshort", "is cut short"), (None, "no-engine")],
)
def test_cpp_says_what_is_wrong(segment_cpp: Path, tmp_path: Path, content: bytes | None, said: str) -> None:
    (tmp_path / "scan.ppm").write_bytes(content or b"P6\n1 1\n255\n123")
    command = [segment_cpp, tmp_path / "no-engine", tmp_path / "scan.ppm", tmp_path / "mask.pgm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and said in done.stderr and not (tmp_path / "mask.pgm").exists()


@pytest.fixture(scope="module")
def segment_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with FFmpeg, or a skip where its development files or its program are not installed."""
    if shutil.which("ffmpeg") is None or shutil.which("pkg-config") is None:
        pytest.skip("no ffmpeg program, or no pkg-config")
    libraries = ["libavformat", "libavcodec", "libavutil"]
    said = subprocess.run(["pkg-config", "--cflags", "--libs", *libraries], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        pytest.skip("no libavformat-dev, libavcodec-dev, libavutil-dev")
    program = tmp_path_factory.mktemp("video") / "segment-video"
    flags = [*pkg_config("gms_rt", "--cflags", "--libs"), *said.stdout.split()]
    rpath = f"-Wl,-rpath,{installed_library() / 'lib'}"
    warnings = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    run([compiler(), *warnings, str(EXAMPLES / "video.c"), *flags, rpath, "-o", str(program)])
    return program


def scene(count: int, height: int, width: int) -> U8:
    """Frames in which a bright disc moves over noise."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[0:height, 0:width]
    frames = random.integers(0, 100, (count, height, width, 3), np.uint8)
    for i, frame in enumerate(frames):
        frame[np.hypot(rows - height / 2, columns - 20 - 9 * i) < height / 4] = (250, 200, 230)
    return frames


def encode(path: Path, raw: bytes, kind: str, width: int, height: int, *colour: str) -> None:
    """A lossless video of raw frames."""
    source = ["-f", "rawvideo", "-pixel_format", kind, "-video_size", f"{width}x{height}", *colour, "-i", "-"]
    # NUT has any format as it is, Matroska has the colours too.
    codec = "rawvideo" if path.suffix == ".nut" else "ffv1"
    target = ["-c:v", codec, "-pix_fmt", kind, *colour, str(path)]
    done = subprocess.run(
        ["ffmpeg", "-v", "error", "-y", *source, *target], input=raw, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def segmented(program: Path, tmp_path: Path, video: Path, *region: int) -> U8:
    graph = mean_graph(tmp_path / "mean.onnx", height=32, width=48)
    out = tmp_path / "masks.gray"
    done = subprocess.run(
        [program, graph, video, out, *map(str, region)],
        env=openvino_environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.frombuffer(out.read_bytes(), np.uint8)


@pytest.mark.parametrize("kind", ["nv12", "yuv420p", "bgr24", "gray"])
@pytest.mark.parametrize("region", [(), (13, 7, 81, 63)], ids=["whole", "region"])
def test_video_frames_are_segmented_as_the_package_does(
    segment_video: Path, tmp_path: Path, kind: str, region: tuple[int, ...]
) -> None:
    height, width = 90, 130
    rgb = scene(5, height, width)
    planes = [cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420) for frame in rgb]
    if kind == "bgr24":
        raw, frames = [frame[..., ::-1].tobytes() for frame in rgb], list(rgb)
    elif kind == "gray":
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in rgb]
        raw, frames = [one.tobytes() for one in grey], [cv2.cvtColor(one, cv2.COLOR_GRAY2RGB) for one in grey]
    elif kind == "yuv420p":
        raw, frames = [one.tobytes() for one in planes], [cv2.cvtColor(one, cv2.COLOR_YUV2RGB_I420) for one in planes]
    else:
        size = height * width
        pairs = [np.stack(np.split(one.ravel()[size:], 2), -1).reshape(-1, width) for one in planes]
        whole = [np.vstack([one[:height], pair]) for one, pair in zip(planes, pairs, strict=True)]
        raw, frames = [one.tobytes() for one in whole], [cv2.cvtColor(one, cv2.COLOR_YUV2RGB_NV12) for one in whole]
    encode(tmp_path / "video.nut", b"".join(raw), kind, width, height)
    got = segmented(segment_video, tmp_path, tmp_path / "video.nut", *region)
    x, y, columns, rows = region or (0, 0, width, height)
    expected = np.stack([package_mask(frame[y : y + rows, x : x + columns]) for frame in frames])
    assert 0.02 < (expected > 0).mean() < 0.9
    assert np.array_equal(got.reshape(expected.shape), expected)


def test_a_video_says_what_its_colours_are(segment_video: Path, tmp_path: Path) -> None:
    """The same bytes are other colours in BT.709: their mean is 135 there, and 124 in BT.601, as in a small frame."""
    raw = bytes([110]) * (64 * 48) + bytes([120]) * (32 * 24) + bytes([200]) * (32 * 24)
    seen = {}
    for name in ("bt709", "bt470bg", "unknown"):
        encode(tmp_path / f"{name}.mkv", raw, "yuv420p", 64, 48, "-colorspace", name, "-color_range", "tv")
        seen[name] = set(segmented(segment_video, tmp_path, tmp_path / f"{name}.mkv").tolist())
    assert seen == {"bt709": {255}, "bt470bg": {0}, "unknown": {0}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.mp4"], "nothing.mp4: No such file"),
        (["video.nut", "100", "0", "64", "10"], "the region 64 by 10 at (100, 0) is not inside the frame 130 by 90"),
        (["deep.nut"], "this format of pixels needs swscale"),
    ],
)
def test_a_video_that_cannot_be_segmented(segment_video: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    encode(tmp_path / "video.nut", scene(1, 90, 130).tobytes(), "bgr24", 130, 90)
    encode(tmp_path / "deep.nut", bytes(130 * 90 * 6), "rgb48le", 130, 90)
    graph = mean_graph(tmp_path / "mean.onnx", height=32, width=48)
    video, *region = arguments
    done = subprocess.run(
        [segment_video, graph, tmp_path / video, tmp_path / "out", *region],
        env=openvino_environment(tmp_path), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def segment_rust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example in Rust, or a skip where bindgen or rustc is not installed."""
    if shutil.which("bindgen") is None or shutil.which("rustc") is None:
        pytest.skip("no bindgen or no rustc")
    folder, prefix = tmp_path_factory.mktemp("rust"), installed_library()
    bindings = folder / "gms_rt.rs"
    wanted = ["--allowlist-function", "gmsrt_.*", "--allowlist-var", "GMSRT_.*"]
    run(["bindgen", *wanted, str(prefix / "include" / "gms_rt.h"), "-o", str(bindings)])
    program = folder / "segment"
    linked = ["-L", str(prefix / "lib"), "-l", "gms_rt", "-C", f"link-arg=-Wl,-rpath,{prefix / 'lib'}"]
    strict = ["--edition", "2021", "-O", "-D", "warnings"]
    env = {**os.environ, "GMS_RT_BINDINGS": str(bindings)}
    run(["rustc", *strict, str(EXAMPLES / "segment.rs"), *linked, "-o", str(program)], env=env)
    return program


def test_rust_gives_the_packages_mask(segment_rust: Path, tmp_path: Path) -> None:
    rgb = scene(1, 90, 130)[0]
    (tmp_path / "scan.ppm").write_bytes(b"P6\n130 90\n255\n" + rgb.tobytes())
    graph = mean_graph(tmp_path / "mean.onnx", height=32, width=48)
    command = [segment_rust, graph, tmp_path / "scan.ppm", tmp_path / "mask.pgm"]
    done = subprocess.run(command, env=openvino_environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(tmp_path / "mask.pgm"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(mask, package_mask(rgb)) and 0 < mask.mean() < 255


@pytest.mark.parametrize("content", [b"", b"P6\n4 4\n255\nshort", b"P5\n1 1\n255\n" + bytes(3), b"P6\n-1 4\n255\n"])
def test_rust_refuses_other_files(segment_rust: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "scan.ppm").write_bytes(content)
    command = [segment_rust, tmp_path / "mean.onnx", tmp_path / "scan.ppm", tmp_path / "mask.pgm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "not an 8-bit binary PPM" in done.stderr


def test_rust_says_what_the_library_says(segment_rust: Path, tmp_path: Path) -> None:
    (tmp_path / "scan.ppm").write_bytes(b"P6\n1 1\n255\n123")
    command = [segment_rust, tmp_path / "none.onnx", tmp_path / "scan.ppm", tmp_path / "mask.pgm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "none.onnx" in done.stderr and "(GMSRT_NOT_FOUND)" in done.stderr
