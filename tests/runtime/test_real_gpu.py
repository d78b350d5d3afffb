"""On a real GPU, and only there: what the other tests show with a fake driver. TensorRT is not needed.

What ruins a context is done in a process of its own, because nothing in such a process can use the GPU again.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.gpu_kernels import SIDE, Work, inverted, no_gpu
from support.native_build import FLAGS, NATIVE, compiler, run, scratch
from support.native_graphs import images
from support.trees import ROOT

from gms_rt.errors import DeviceError
from gms_rt.runtime.binding import NativeRunner
from gms_rt.runtime.cuda import CudaLane, LaneCalls, current_device, probe_cuda
from gms_rt.runtime.device import probe
from gms_rt.runtime.library import library_path
from gms_rt.runtime.options import CudaSettings, GraphUse

WHY = no_gpu()
pytestmark = pytest.mark.skipif(bool(WHY), reason=WHY)


def infer(runner: NativeRunner, count: int) -> tuple[np.ndarray, np.ndarray]:
    rgb = images(count, SIDE, SIDE)
    masks = np.zeros(rgb.shape[:3], np.uint8)
    runner.infer(rgb, masks)
    return masks, inverted(rgb)


@pytest.mark.parametrize("cuda_graph", ["always", "never"])
@pytest.mark.parametrize(("batch", "lanes"), [(1, 1), (1, 4), (3, 2)])
def test_masks_are_right_and_times_are_told(batch: int, lanes: int, cuda_graph: GraphUse) -> None:
    with Work(batch).open(batch=batch, lanes=lanes, cuda_graph=cuda_graph) as runner:
        assert runner.info.graphs == (lanes if cuda_graph == "always" else 0)
        for count in (1, 7):
            np.testing.assert_array_equal(*infer(runner, count))
        timings = runner.bench(images(7, SIDE, SIDE), seconds=0.05, iterations=20, warmup=0.01)
        for part in (timings.h2d, timings.compute, timings.d2h):
            assert (part > 0).all()
        np.testing.assert_allclose(timings.total, timings.h2d + timings.compute + timings.d2h)


@pytest.mark.parametrize("spoil", ["wait", "allocate", "refuse"])
def test_what_cannot_be_captured_runs_without_a_graph(spoil: str) -> None:
    work = Work()

    def enqueue(lane: CudaLane) -> None:
        if spoil == "refuse" and lane.capturing:
            raise RuntimeError("this cannot be captured")
        work.enqueue(lane)
        if spoil == "wait":
            work.cuda.cuStreamSynchronize(ctypes.c_void_p(lane.stream))
        if spoil == "allocate":
            pointer = ctypes.c_uint64()
            if work.cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(1024)) == 0:
                work.cuda.cuMemFree_v2(pointer)

    settings = CudaSettings(height=SIDE, width=SIDE, lanes=2)
    with NativeRunner.open_cuda(settings, LaneCalls(enqueue, work.prepare)) as runner:
        assert runner.info.graphs == 0 and "no CUDA graph" in runner.info.notice
        np.testing.assert_array_equal(*infer(runner, 5))


def test_nothing_is_left_in_the_device_s_memory() -> None:
    work, free, total = Work(), ctypes.c_size_t(), ctypes.c_size_t()

    def left() -> int:
        work.open(lanes=4).close()
        assert work.cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
        return free.value

    with current_device(0):
        left()
        first = left()
        for _ in range(20):
            last = left()
    assert first - last < 2**22  # the driver gives memory back in pieces of two MiB


def in_a_process(code: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    head = f"import sys; sys.path[:0] = [{str(ROOT / 'tests')!r}, {str(ROOT)!r}]\n"
    head += "import numpy as np, time\nfrom support.gpu_kernels import SIDE, Work\nfrom gms_rt.errors import GmsError\n"
    head += "rgb = np.zeros((1, SIDE, SIDE, 3), np.uint8)\nmasks = np.zeros((1, SIDE, SIDE), np.uint8)\n"
    head += "def told(call):\n    try:\n        call()\n        print('good')\n    except GmsError as error:\n"
    head += "        print(type(error).__name__, error.line())\n"
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, timeout=seconds)


def test_after_an_error_that_stays_only_a_new_process_helps() -> None:
    done = in_a_process(
        "good, work = Work().open(), Work()\n"
        "bad = work.open(cuda_graph='never')\n"
        "work.illegal = True\n"
        "told(lambda: bad.infer(rgb, masks))\n"
        "told(lambda: good.infer(rgb, masks))\n"
        "bad.close(); good.close()\n"
        "told(lambda: Work().open())\n"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all("CUDA_ERROR_ILLEGAL_ADDRESS (700)" in line for line in lines), lines
    assert all(line.startswith("DeviceError") and "only a new process" in line for line in lines), lines
    with Work().open() as runner:  # this process is not touched by that
        np.testing.assert_array_equal(*infer(runner, 1))


def test_a_kernel_that_does_not_end_in_time_stops_nobody() -> None:
    start = time.monotonic()
    done = in_a_process(
        "work = Work()\n"
        "runner = work.open(cuda_graph='never', wait_seconds=0.3, lanes=2)\n"
        "work.spin_milliseconds = 20000\n"
        "start = time.monotonic()\n"
        "told(lambda: runner.infer(rgb, masks))\n"
        "told(lambda: runner.infer(rgb, masks))\n"
        "runner.close()\n"
        "print(time.monotonic() - start)\n"
    )
    assert done.returncode == 0, done.stderr
    *lines, seconds = done.stdout.splitlines()
    assert all(line.startswith("DeviceError") and "300 ms" in line for line in lines) and len(lines) == 2, lines
    assert float(seconds) < 5
    assert time.monotonic() - start < 15  # the end of the process takes the kernel along


def test_a_fork_is_told_what_to_do() -> None:
    done = in_a_process(
        "import os\n"
        "Work().open().close()\n"
        "if os.fork() == 0:\n"
        "    told(lambda: Work().open())\n"
        "    sys.stdout.flush(); os._exit(0)\n"
        "os.wait()\n"
    )
    assert "(3)" in done.stdout and "fork" in done.stdout, done.stdout + done.stderr


def test_a_device_is_found_by_its_number() -> None:
    about, machine = probe_cuda(), probe()
    assert (about.name, about.sm) == (machine.gpus[0].name, machine.gpus[0].sm)
    with pytest.raises(DeviceError, match="there is no CUDA device"):
        probe_cuda(about.count)
    with pytest.raises(DeviceError, match="cannot be used"), current_device(about.count):
        pass


def test_the_c_tests_pass_on_the_real_driver(tmp_path: Path) -> None:
    library = library_path()
    program = scratch() / "test_cuda_real"
    source = NATIVE / "tests" / "test_cuda.c"
    link = [str(library), f"-Wl,-rpath,{library.parent}", "-lpthread", "-ldl"]
    run([compiler(), *FLAGS, "-D_GNU_SOURCE", str(source), "-o", str(program), *link])
    done = subprocess.run([program, "libcuda.so.1"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "real driver" in done.stdout, done.stdout + done.stderr
