"""The binding of the C library: loading, CPU runs in place, refusals, threads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.native_build import NATIVE, check_structures, compiler, numbers_from_c, run
from support.native_graphs import FLOAT, conv_graph, expected_mean, images, mean_graph, save

from gms_rt.errors import ArtifactError, DeviceError, NativeError, UsageError
from gms_rt.runtime import binding, library
from gms_rt.runtime.arithmetic import cpu_arithmetic
from gms_rt.runtime.binding import SAMPLE, NativeRunner
from gms_rt.runtime.options import CpuSettings, Execution


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return mean_graph(tmp_path / "mean.onnx")


def test_masks_equal_numpy(graph: Path) -> None:
    with NativeRunner.open_cpu(graph) as runner:
        about = runner.info
        assert (about.backend, about.batch, about.height, about.width) == ("cpu", 1, 8, 8)
        assert about.execution == "f32"
        assert about.runtime.startswith("OpenVINO 20")
        for count in (0, 1, 2, 9):
            rgb = images(count)
            masks = np.full((count, 8, 8), 77, np.uint8)
            runner.infer(rgb, masks)
            np.testing.assert_array_equal(masks, expected_mean(rgb))


@pytest.mark.parametrize("batch", [2, 4])
@pytest.mark.parametrize("lanes", [1, 3])
def test_batches_are_padded(tmp_path: Path, batch: int, lanes: int) -> None:
    path = mean_graph(tmp_path / "b.onnx", batch=batch, height=5, width=7)
    with NativeRunner.open_cpu(path, CpuSettings(lanes=lanes)) as runner:
        for count in (1, batch - 1, batch, 2 * batch + 1, 13):
            rgb = images(count, 5, 7)
            masks = np.zeros((count, 5, 7, 1), np.uint8)
            runner.infer(rgb, masks)
            np.testing.assert_array_equal(masks[..., 0], expected_mean(rgb))


def test_free_batch_size_is_chosen(tmp_path: Path) -> None:
    path = mean_graph(tmp_path / "free.onnx", batch="N")
    for asked, real in ((0, 1), (3, 3)):
        with NativeRunner.open_cpu(path, CpuSettings(batch=asked)) as runner:
            assert runner.info.batch == real
            masks = np.zeros((4, 8, 8), np.uint8)
            runner.infer(images(4), masks)
            np.testing.assert_array_equal(masks, expected_mean(images(4)))


def test_fixed_batch_size_is_kept(graph: Path) -> None:
    with pytest.raises(UsageError, match="a batch of 3 was asked for, the graph's is fixed at 1"):
        NativeRunner.open_cpu(graph, CpuSettings(batch=3))


def test_output_without_channels(tmp_path: Path) -> None:
    path = mean_graph(tmp_path / "rank3.onnx", output_rank=3)
    with NativeRunner.open_cpu(path) as runner:
        masks = np.zeros((1, 8, 8), np.uint8)
        runner.infer(images(1), masks)
        np.testing.assert_array_equal(masks, expected_mean(images(1)))


def test_arrays_are_used_in_place(graph: Path) -> None:
    store = np.zeros((6, 8, 8), np.uint8)
    with NativeRunner.open_cpu(graph) as runner:
        runner.infer(images(6)[2:4], store[2:4])
    np.testing.assert_array_equal(store[2:4], expected_mean(images(6)[2:4]))
    assert not store[:2].any() and not store[4:].any()


@pytest.mark.parametrize(
    ("rgb", "masks"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 8), np.uint8)),
        (np.zeros((1, 8, 9, 3), np.uint8), np.zeros((1, 8, 8), np.uint8)),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.uint8)),
        (np.zeros((1, 8, 16, 3), np.uint8)[:, :, ::2], np.zeros((1, 8, 8), np.uint8)),
        (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8)),
        (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8), np.int8)),
        (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 16), np.uint8)[..., ::2]),
        (np.zeros((1, 8, 8, 3), np.uint8), np.frombuffer(bytes(64), np.uint8).reshape(1, 8, 8)),
    ],
)
def test_arrays_that_do_not_fit(graph: Path, rgb: np.ndarray, masks: np.ndarray) -> None:
    with NativeRunner.open_cpu(graph) as runner, pytest.raises(UsageError, match="do not fit"):
        runner.infer(rgb, masks)


def test_bench_fills_samples(graph: Path) -> None:
    with NativeRunner.open_cpu(graph, CpuSettings(lanes=2)) as runner:
        result = runner.bench(images(3), seconds=0.05, iterations=7, warmup=0.01)
        assert len(result.total) >= 7
        assert result.wall_seconds >= 0.05
        assert result.warmup_seconds >= 0.01
        assert (result.lanes, result.batch) == (2, 1)
        assert (result.compute > 0).all()
        np.testing.assert_allclose(result.total, result.h2d + result.compute + result.d2h, rtol=1e-12)
        assert result.total.sum() / 1000 <= result.wall_seconds * 2.001


@pytest.mark.parametrize("room", [1, 3, 64])
def test_bench_goes_on_where_the_array_of_samples_is_full(
    graph: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(binding, "CALL_SAMPLES", room)
    with NativeRunner.open_cpu(graph) as runner:
        result = runner.bench(images(3), seconds=0.02, iterations=1, warmup=0.01)
        assert len(result.total) > room
        assert result.wall_seconds >= 0.02 and result.warmup_seconds >= 0.01
        assert result.total.sum() / 1000 <= result.wall_seconds
        assert len(runner.bench(images(1), seconds=0, iterations=130, warmup=0).total) == 130
        for seconds in (-1.0, float("nan"), 1e10):
            with pytest.raises(UsageError, match="times must be between"):
                runner.bench(images(1), seconds=seconds, iterations=1, warmup=0)
        with pytest.raises(UsageError, match="at least one iteration"):
            runner.bench(images(1), seconds=0, iterations=0, warmup=0)


def test_lanes_can_be_narrowed(graph: Path) -> None:
    with NativeRunner.open_cpu(graph, CpuSettings(lanes=3)) as runner:
        runner.set_lanes(2)
        assert (runner.info.lanes, runner.info.used_lanes) == (3, 2)
        with pytest.raises(UsageError, match="4 lanes were asked for, 3 are open"):
            runner.set_lanes(4)


def test_threads_option_is_obeyed(graph: Path) -> None:
    with NativeRunner.open_cpu(graph, CpuSettings(threads=1)) as runner:
        assert runner.info.threads == 1


@pytest.mark.parametrize(("execution", "there"), [("bf16", cpu_arithmetic().bf16), ("f16", cpu_arithmetic().fp16)])
def test_low_precision_is_real_or_refused(graph: Path, execution: Execution, there: bool) -> None:
    if there:
        with NativeRunner.open_cpu(graph, CpuSettings(execution=execution)) as runner:
            assert runner.info.execution == execution
    else:
        with pytest.raises(DeviceError, match=f"no {execution} arithmetic"):
            NativeRunner.open_cpu(graph, CpuSettings(execution=execution))


def test_wrong_numbers_are_refused(graph: Path) -> None:
    for options in ({"threads": -1}, {"lanes": 2**32}, {"batch": -5}, {"lanes": 65}, {"threads": 100_000}):
        with pytest.raises(UsageError):
            NativeRunner.open_cpu(graph, CpuSettings(**options))
    with pytest.raises(UsageError, match="give f32, bf16, f16 or as built"):
        NativeRunner.open_cpu(graph, CpuSettings(execution="int8"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="zero byte"):
        NativeRunner.open_cpu(Path("a\0b.onnx"))
    with pytest.raises(UsageError, match="is not a folder"):
        NativeRunner.open_cpu(graph, CpuSettings(cache=graph))


def test_compiled_graphs_are_cached(graph: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for _ in range(2):
        with NativeRunner.open_cpu(graph, CpuSettings(cache=cache)) as runner:
            masks = np.zeros((1, 8, 8), np.uint8)
            runner.infer(images(1), masks)
            np.testing.assert_array_equal(masks, expected_mean(images(1)))
    assert any(cache.iterdir())


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_was_imported_stays_while_the_runner_lives(tmp_path: Path, lanes: int) -> None:
    """OpenVINO works on the weights where they were handed over; much of it, so that freed memory is gone at once."""
    path = conv_graph(tmp_path / "wide.onnx", size=32, width=128, depth=3)
    cache = tmp_path / "cache"
    cache.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    results = []
    for _ in range(3):
        with NativeRunner.open_cpu(path, CpuSettings(cache=cache, lanes=lanes, threads=2)) as runner:
            masks = np.zeros((6, 32, 32), np.uint8)
            for _ in range(3):
                runner.infer(pictures, masks)
                runner.bench(pictures, seconds=0.0, iterations=5, warmup=0.0)
            results.append(masks.copy())
    (blob,) = cache.iterdir()
    assert blob.stat().st_size > 1_000_000
    for again in results[1:]:
        np.testing.assert_array_equal(again, results[0])


def test_damaged_files(graph: Path, tmp_path: Path) -> None:
    content = graph.read_bytes()
    damaged = tmp_path / "damaged.onnx"
    for length in (0, 1, len(content) // 2, len(content) - 1):
        damaged.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match=r"ONNX|empty"):
            NativeRunner.open_cpu(damaged)
    damaged.write_bytes(b"<html>404</html>")
    with pytest.raises(ArtifactError, match="is not an ONNX file"):
        NativeRunner.open_cpu(damaged)
    with pytest.raises(ArtifactError, match=r"absent\.onnx"):
        NativeRunner.open_cpu(tmp_path / "absent.onnx")
    with pytest.raises(ArtifactError, match=r"no engine\.json"):
        NativeRunner.open_cpu(tmp_path)
    with pytest.raises(ArtifactError, match="is not a file"):
        NativeRunner.open_cpu(Path("/dev/null"))


def test_absent_external_weights(tmp_path: Path) -> None:
    import onnx

    path = conv_graph(tmp_path / "conv.onnx", size=16)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    (tmp_path / "weights.data").unlink()
    with pytest.raises(ArtifactError, match=r"'weights\.data', which is not there; copy that file too"):
        NativeRunner.open_cpu(path)


def test_graphs_that_break_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    mean_graph(path, input_type=FLOAT)
    with pytest.raises(ArtifactError, match="the input is not uint8"):
        NativeRunner.open_cpu(path)
    mean_graph(path, output_type=FLOAT)
    with pytest.raises(ArtifactError, match="the output is not uint8"):
        NativeRunner.open_cpu(path)
    mean_graph(path, channels=1)
    with pytest.raises(ArtifactError, match=re.escape("the input is uint8 [1, 8, 8, 1], it must be uint8")):
        NativeRunner.open_cpu(path)
    from onnx import helper

    save(
        path,
        [helper.make_node("Concat", ["a", "b"], ["mask"], axis=3)],
        [("a", 2, [1, 8, 8, 3]), ("b", 2, [1, 8, 8, 3])],
        [("mask", 2, [1, 8, 8, 6])],
    )
    with pytest.raises(ArtifactError, match="2 inputs and 1 outputs"):
        NativeRunner.open_cpu(path)
    save(path, [helper.make_node("Identity", ["a"], ["b"])], [("a", 2, [1, 8, 8, 3])], [("b", 2, [1, 8, 8, 3])])
    with pytest.raises(ArtifactError, match=re.escape("the output is uint8 [1, 8, 8, 3]")):
        NativeRunner.open_cpu(path)
    save(path, [helper.make_node("NoSuchOp", ["a"], ["b"])], [("a", 2, [1, 8, 8, 3])], [("b", 2, [1, 8, 8, 1])])
    with pytest.raises(ArtifactError, match="NoSuchOp"):
        NativeRunner.open_cpu(path)


def test_a_fork_only_forgets(graph: Path) -> None:
    """The threads of the runtime are not in the new process: closing there would wait for them for ever."""
    code = """
import os, signal, sys, threading
from pathlib import Path
import numpy as np
from gms_rt.errors import NativeError
from gms_rt.runtime.cpu import CpuRunner

runner = CpuRunner(Path(sys.argv[1]))
image = np.zeros((1, 8, 8, 3), np.uint8)
runner.infer(image)
native = runner._native
native._changed.acquire()  # as if another thread were at work
runner._lifecycle.acquire()
child = os.fork()
if child == 0:
    signal.alarm(20)
    calls = [lambda: runner.infer(image), lambda: native.infer(image, image[..., 0].copy()), lambda: native.info]
    for call in calls:
        try:
            call()
            os._exit(3)
        except NativeError as error:
            assert "'spawn'" in error.line(), error.line()
    runner.close()
    native.close()
    del runner, native
    os._exit(0)
native._changed.release()
runner._lifecycle.release()
_, status = os.waitpid(child, 0)
runner.infer(image)
runner.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-c", code, str(graph)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize("variable", ["GMS_RT_LIBRARY", "GMS_RT_OPENVINO"])
def test_a_relative_library_is_refused(graph: Path, variable: str) -> None:
    """After a change of folder it would be another file."""
    code = "import sys, pathlib; from gms_rt.runtime.binding import check_graph; check_graph(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(graph)],
        env={**os.environ, variable: "lib/that.so"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and f"{variable} must be an absolute path" in done.stderr


def test_missing_openvino_says_how_to_fix(graph: Path) -> None:
    with pytest.raises(NativeError, match="pip install openvino"):
        NativeRunner.open_cpu(graph, CpuSettings(openvino=Path("/nowhere/libopenvino_c.so")))


def test_openvino_is_found_without_importing_it(graph: Path) -> None:
    code = (
        "import sys, pathlib; from gms_rt.runtime.binding import NativeRunner;"
        "assert 'ctypes' in sys.modules;"
        f"NativeRunner.open_cpu(pathlib.Path({str(graph)!r})).close();"
        "assert 'openvino' not in sys.modules and 'onnx' not in sys.modules and 'torch' not in sys.modules"
    )
    run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(NATIVE.parent.parent)})


def test_library_is_looked_for_at_first_use_only(tmp_path: Path) -> None:
    absent = tmp_path / "libgms_rt.so"
    code = (
        "import gms_rt.runtime.library as b\n"
        "from gms_rt.errors import GmsError\n"
        "try: b.load_library()\n"
        "except GmsError as error: print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(NATIVE.parent.parent), "GMS_RT_LIBRARY": str(absent)}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "GMS_RT_LIBRARY" in said
    absent.write_bytes(b"not a library")
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "cannot be loaded" in said and "scripts/build-native" in said


def test_library_of_another_abi_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "old.c"
    names = re.findall(r"\b(gmsrt_[a-z_]+)\(", (NATIVE / "include" / "gms_rt.h").read_text())
    functions = sorted(set(names) - {"gmsrt_abi_version"})
    source.write_text(
        "int gmsrt_abi_version(void) { return 99; }\n" + "".join(f"void {n}(void) {{}}\n" for n in functions)
    )
    old = tmp_path / "libold.so"
    run([compiler(), "-shared", "-fPIC", str(source), "-o", str(old)])
    code = "import gms_rt.runtime.library as b\ntry: b.load_library()\nexcept Exception as error: print(error)\n"
    env = {**os.environ, "PYTHONPATH": str(NATIVE.parent.parent), "GMS_RT_LIBRARY": str(old)}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "ABI version 99, this package needs 3" in said


def test_structures_have_the_size_of_the_header(tmp_path: Path) -> None:
    pairs = {
        "gmsrt_cpu_options": library.CpuOptions,
        "gmsrt_cuda_lane": library.Lane,
        "gmsrt_cuda_options": library.CudaOptions,
        "gmsrt_info": library.Info,
        "gmsrt_device": library.Device,
        "gmsrt_processor": library.Processor,
        "gmsrt_bench_options": library.BenchLimits,
        "gmsrt_bench_result": library.BenchOutcome,
    }
    check_structures(pairs, tmp_path)
    lines = ['#include "gms_rt.h"', "#include <stdio.h>", "int main(void) {"]
    lines.append('printf("%zu\\n%d\\n", sizeof(gmsrt_sample), GMSRT_ABI_VERSION); return 0; }')
    assert numbers_from_c(lines, tmp_path) == [SAMPLE.itemsize, library.ABI_VERSION]


def test_many_threads_share_a_runner(graph: Path) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(60):
                rgb = images(1 + i % 5, seed=seed * 100 + i)
                masks = np.zeros(rgb.shape[:3], np.uint8)
                runner.infer(rgb, masks)
                np.testing.assert_array_equal(masks, expected_mean(rgb))
        except BaseException as error:
            failures.append(error)

    with NativeRunner.open_cpu(graph, CpuSettings(lanes=2)) as runner:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_the_gil_is_released(tmp_path: Path) -> None:
    path = conv_graph(tmp_path / "slow.onnx", size=128, width=32, depth=6)
    counted = 0
    with NativeRunner.open_cpu(path, CpuSettings(threads=1)) as runner:
        # One call into the library that lasts for a time, however fast the machine is.
        options = {"seconds": 1.0, "iterations": 1, "warmup": 0.0}
        worker = threading.Thread(target=runner.bench, args=(images(1, 128, 128),), kwargs=options)
        worker.start()
        while worker.is_alive():
            counted += 1
            time.sleep(0.0005)
        worker.join()
    # With the GIL held, the loop would not turn once within the call.
    assert counted > 5


def test_close_waits_for_calls_and_later_calls_are_refused(tmp_path: Path) -> None:
    path = conv_graph(tmp_path / "slow.onnx", size=96, width=16, depth=4)
    runner = NativeRunner.open_cpu(path)
    outcomes: list[str] = []
    started = threading.Barrier(4)

    def work() -> None:
        rgb, masks = images(2, 96, 96), np.zeros((2, 96, 96), np.uint8)
        started.wait()
        try:
            while True:
                runner.infer(rgb, masks)
                outcomes.append("done")
        except UsageError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    time.sleep(0.05)  # most likely they are within a call; what is asked below holds in any case
    runner.close()
    runner.close()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert sum("this engine is closed" in outcome for outcome in outcomes) == 3
    with pytest.raises(UsageError, match="closed"):
        _ = runner.info


def _resident_kilobytes() -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def test_memory_does_not_grow(graph: Path) -> None:
    with NativeRunner.open_cpu(graph) as runner:
        rgb, masks = images(1), np.zeros((1, 8, 8), np.uint8)
        for _ in range(500):
            runner.infer(rgb, masks)
        before = _resident_kilobytes()
        for _ in range(10_000):
            runner.infer(rgb, masks)
        assert _resident_kilobytes() - before < 5 * 1024


def test_opening_and_closing_does_not_leak(graph: Path) -> None:
    for _ in range(3):
        NativeRunner.open_cpu(graph).close()
    before = _resident_kilobytes()
    for _ in range(15):
        NativeRunner.open_cpu(graph).close()
    assert _resident_kilobytes() - before < 15 * 1024
