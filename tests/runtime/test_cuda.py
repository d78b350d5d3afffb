"""The binding's CUDA side over the fake driver: real callbacks from C into Python, and their failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_cuda import HEIGHT, WIDTH, FakeDriver, expected
from support.native_graphs import images

from gms_rt.errors import ArtifactError, DeviceError, NativeError, UsageError
from gms_rt.runtime.binding import NativeRunner
from gms_rt.runtime.cuda import CudaLane, LaneCalls, current_device, probe_cuda
from gms_rt.runtime.options import CudaSettings, GraphUse


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    made = FakeDriver()
    made.library.fake_cuda_reset()
    yield made
    made.assert_clean()


def open_runner(driver: FakeDriver, calls: dict[str, Any] | None = None, **options: Any) -> NativeRunner:
    settings = CudaSettings(**{"height": HEIGHT, "width": WIDTH, "driver": driver.path} | options)
    return NativeRunner.open_cuda(settings, LaneCalls(**{"enqueue": driver.enqueue(settings.batch)} | (calls or {})))


@pytest.mark.parametrize("cuda_graph", ["auto", "always", "never"])
@pytest.mark.parametrize(("batch", "lanes"), [(1, 1), (2, 3)])
def test_masks_come_back(driver: FakeDriver, batch: int, lanes: int, cuda_graph: GraphUse) -> None:
    prepared: list[CudaLane] = []
    released: list[bool] = []
    with open_runner(
        driver,
        {"prepare": prepared.append, "release": lambda: released.append(True)},
        batch=batch,
        lanes=lanes,
        cuda_graph=cuda_graph,
    ) as runner:
        about = runner.info
        assert (about.backend, about.device, about.lanes) == ("cuda", "Fake GPU", lanes)
        assert about.runtime == "CUDA driver 13.1"
        assert about.graphs == (0 if cuda_graph == "never" else lanes) and about.notice == ""
        assert [lane.index for lane in prepared] == list(range(lanes))
        for count in (1, 2, 7):
            rgb = images(count, HEIGHT, WIDTH)
            masks = np.zeros((count, HEIGHT, WIDTH), np.uint8)
            runner.infer(rgb, masks)
            np.testing.assert_array_equal(masks, expected(rgb, batch))
        assert released == []
    assert released == [True]


def test_bench_separates_the_parts(driver: FakeDriver) -> None:
    with open_runner(driver) as runner:
        result = runner.bench(images(2, HEIGHT, WIDTH), seconds=0, iterations=6, warmup=0)
    assert len(result.total) == 6
    # The fake device needs a quarter of a millisecond for each thing on a stream.
    for part in (result.h2d, result.compute, result.d2h):
        np.testing.assert_allclose(part, 0.25 * 2)
    np.testing.assert_allclose(result.total, 1.5)


def test_an_exception_in_prepare_is_the_cause(driver: FakeDriver) -> None:
    def prepare(lane: CudaLane) -> None:
        raise ArtifactError("this plan is foreign", where="x.plan")

    with pytest.raises(ArtifactError, match=r"x\.plan: this plan is foreign"):
        open_runner(driver, {"prepare": prepare})


def test_an_exception_in_enqueue_is_the_cause(driver: FakeDriver) -> None:
    calls = 0

    def enqueue(lane: CudaLane) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # within the capture
            raise RuntimeError("no kernel")
        driver.enqueue()(lane)

    with pytest.raises(NativeError, match="no kernel") as caught:
        open_runner(driver, {"enqueue": enqueue}, cuda_graph="always")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_work_that_cannot_be_captured_runs_without_a_graph(driver: FakeDriver) -> None:
    captured: list[int] = []

    def enqueue(lane: CudaLane) -> None:
        if lane.capturing:
            captured.append(lane.index)
            if lane.index == 1:
                raise RuntimeError("this allocates")
        driver.enqueue(2)(lane)

    with open_runner(driver, {"enqueue": enqueue}, batch=2, lanes=3) as runner:
        assert captured == [0, 1]  # once it is known, no other lane tries
        assert runner.info.graphs == 0
        assert runner.info.notice == "no CUDA graph, every inference is queued anew: this allocates"
        rgb = images(7, HEIGHT, WIDTH)
        masks = np.zeros((7, HEIGHT, WIDTH), np.uint8)
        runner.infer(rgb, masks)
        np.testing.assert_array_equal(masks, expected(rgb, 2))


def test_a_device_that_hangs_is_left_alone(driver: FakeDriver) -> None:
    released: list[bool] = []
    runner = open_runner(driver, {"release": lambda: released.append(True)}, wait_seconds=0.05)
    driver.library.fake_cuda_hang(True)
    rgb, masks = images(1, HEIGHT, WIDTH), np.zeros((1, HEIGHT, WIDTH), np.uint8)
    with pytest.raises(DeviceError, match=r"50 ms.*end the process"):
        runner.infer(rgb, masks)
    runner.close()
    assert released == []
    driver.library.fake_cuda_hang(False)


def test_a_device_that_another_process_has_is_busy(driver: FakeDriver) -> None:
    with open_runner(driver):
        log = [driver.library.fake_cuda_call(i) for i in range(40)]
    driver.library.fake_cuda_reset()
    driver.library.fake_cuda_fail(log.index(b"cuDevicePrimaryCtxRetain") + 1, 46)
    with pytest.raises(DeviceError, match="another process has the device") as caught:
        open_runner(driver)
    assert "new process" not in str(caught.value)


def test_a_device_is_made_current_and_left(driver: FakeDriver) -> None:
    with current_device(0, driver=driver.path):
        assert driver.library.fake_cuda_depth() == 1 and driver.library.fake_cuda_contexts() == 1
    assert driver.library.fake_cuda_depth() == 0
    with pytest.raises(ValueError, match="anything"), current_device(0, driver=driver.path):
        raise ValueError("anything")
    assert driver.library.fake_cuda_depth() == 0
    with (
        pytest.raises(DeviceError, match=r"cuda:3: CUDA device 3 cannot be used \(cuDeviceGet answers 101\)"),
        current_device(3, driver=driver.path),
    ):
        pass


def test_an_exception_during_infer_leaves_the_runner_usable(driver: FakeDriver) -> None:
    failing = False

    def enqueue(lane: CudaLane) -> None:
        if failing:
            raise RuntimeError("once")
        driver.enqueue()(lane)

    with open_runner(driver, {"enqueue": enqueue}, cuda_graph="never") as runner:
        rgb, masks = images(1, HEIGHT, WIDTH), np.zeros((1, HEIGHT, WIDTH), np.uint8)
        failing = True
        with pytest.raises(NativeError, match="once"):
            runner.infer(rgb, masks)
        failing = False
        runner.infer(rgb, masks)
        np.testing.assert_array_equal(masks, expected(rgb, 1))


def test_an_enqueue_that_does_nothing_is_noticed(driver: FakeDriver) -> None:
    with pytest.raises(NativeError, match="queued nothing"):
        open_runner(driver, {"enqueue": lambda lane: None})


def test_device_lost_is_a_device_error(driver: FakeDriver) -> None:
    runner = open_runner(driver)
    driver.library.fake_cuda_fail(5, 719)
    rgb, masks = images(1, HEIGHT, WIDTH), np.zeros((1, HEIGHT, WIDTH), np.uint8)
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
        runner.infer(rgb, masks)
    with pytest.raises(DeviceError, match="close this runner"):
        runner.infer(rgb, masks)
    runner.close()


def test_out_of_memory_at_open(driver: FakeDriver) -> None:
    # The calls up to the first allocation: driver and device, context, stream.
    with open_runner(driver):
        log = [driver.library.fake_cuda_call(i) for i in range(40)]
    position = log.index(b"cuMemAlloc_v2") + 1
    driver.library.fake_cuda_reset()
    driver.library.fake_cuda_fail(position, 2)
    with pytest.raises(NativeError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        open_runner(driver)


def test_probe(driver: FakeDriver) -> None:
    about = probe_cuda(driver=driver.path)
    assert (about.name, about.sm, about.driver, about.count) == ("Fake GPU", 80, (13, 1), 1)
    with pytest.raises(DeviceError, match="there is no CUDA device 2"):
        probe_cuda(2, driver=driver.path)
    with pytest.raises(UsageError):
        probe_cuda(-1, driver=driver.path)
    with pytest.raises(DeviceError, match="no CUDA driver"):
        probe_cuda(driver=Path("/nowhere/libcuda.so.1"))


def test_wrong_numbers_are_refused(driver: FakeDriver) -> None:
    for name, value in (("batch", 0), ("height", -1), ("width", 2**31), ("lanes", 0), ("lanes", 65), ("warmup", 0),
                        ("wait_seconds", -1), ("wait_seconds", 5e6), ("cuda_graph", "perhaps")):  # fmt: skip
        with pytest.raises(UsageError):
            open_runner(driver, {"enqueue": driver.enqueue()}, **{name: value})
