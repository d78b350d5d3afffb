"""The TensorRT runner: without a GPU it refuses cleanly; over the fake driver its own steps are followed.

`FakeTensorRt`'s networks copy device memory through the fake driver, so capture, replay, lanes and lifetimes are
exercised for real; only TensorRT's arithmetic is not.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_cuda import HEIGHT, WIDTH, FakeDriver, expected
from support.fake_tensorrt import FakeTensorRt
from support.native_graphs import expected_mean, images, mean_graph

from gms_rt.bench.latency import gpu_of_runners
from gms_rt.errors import ArtifactError, DeviceError, MissingExtraError, NativeError, UsageError
from gms_rt.runtime.cuda import probe_cuda
from gms_rt.runtime.device import probe
from gms_rt.runtime.kernel_cache import KeptKernels
from gms_rt.runtime.options import CudaSettings, GraphUse
from gms_rt.runtime.tensorrt import TensorRtRunner
from gms_rt.runtime.tensorrt_module import tensorrt_log


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    made = FakeDriver()
    made.library.fake_cuda_reset()
    yield made
    made.assert_clean()


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "tensorrt-11.4-sm80.plan"
    path.write_bytes(b"a plan")
    return path


def install(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, *, batch: int = 1, rtx: bool = False) -> FakeTensorRt:
    module = FakeTensorRt(driver, batch, rtx)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings" if rtx else "tensorrt", module)
    return module


def open_runner(plan: Path, driver: FakeDriver, flavour: str = "tensorrt", **options: Any) -> TensorRtRunner:
    settings = CudaSettings(**{"height": HEIGHT, "width": WIDTH, "driver": driver.path} | options)
    return TensorRtRunner(plan, flavour, settings)


@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize("cuda_graph", ["never", "auto"])
def test_both_flavours(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path, rtx: bool, cuda_graph: GraphUse
) -> None:
    module = install(monkeypatch, driver, batch=2, rtx=rtx)
    flavour = "tensorrt-rtx" if rtx else "tensorrt"
    with open_runner(plan, driver, flavour=flavour, batch=2, lanes=2, cuda_graph=cuda_graph) as runner:
        assert runner.info.backend == flavour
        assert runner.info.device == "Fake GPU"
        assert runner.info.lanes == 2
        assert runner.info.details["version"] == "11.4.0"
        assert runner.info.details["cuda_graphs"] == (2 if cuda_graph == "auto" else 0)
        assert runner.info.details["gpu"] == 0
        assert module.events.count("no marks") == 2
        executed = module.events.count("execute")
        rgb = images(7, HEIGHT, WIDTH)
        np.testing.assert_array_equal(runner.infer(rgb), expected(rgb, 2))
        assert module.events.count("execute") - executed == (0 if cuda_graph == "auto" else 4)
        timings = runner.bench(rgb, seconds=0, iterations=5, warmup=0)
        assert len(timings.total) == 5 and timings.batch == 2 and timings.lanes == 2
        assert (timings.h2d > 0).all() and (timings.compute > 0).all() and (timings.d2h > 0).all()
    assert module.events[-3:] == ["context dropped", "context dropped", "engine dropped"]


def test_the_report_s_gpu_is_the_one_that_the_runner_is_on(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path
) -> None:
    install(monkeypatch, driver)
    driver.library.fake_cuda_devices(2)
    with open_runner(plan, driver, device=1) as second, open_runner(plan, driver) as first:
        assert gpu_of_runners([second.info, first.info]) == 1
        assert gpu_of_runners([first.info]) == 0
        assert gpu_of_runners([replace(first.info, backend="cpu")]) is None


def test_a_damaged_plan(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path) -> None:
    install(monkeypatch, driver)
    plan.write_bytes(b"half a p")
    with pytest.raises(ArtifactError, match="magic tag does not match") as caught:
        open_runner(plan, driver)
    assert plan.name in str(caught.value) and "build the engine again" in str(caught.value)
    plan.unlink()
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_runner(plan, driver)


def test_a_foreign_plan(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path) -> None:
    module = install(monkeypatch, driver)
    module.script["type"] = "f32"
    with pytest.raises(ArtifactError, match="it must have one uint8 image"):
        open_runner(plan, driver)
    module.script.clear()
    with pytest.raises(ArtifactError, match="does not take 3 images"):
        open_runner(plan, driver, batch=3)
    module.script["no context"] = True
    with pytest.raises(NativeError, match="cannot create an execution context"):
        open_runner(plan, driver)


@pytest.mark.parametrize(("call", "cuda_graph"), [(1, "auto"), (2, "auto"), (3, "always")])
def test_a_refused_execution(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path, call: int, cuda_graph: GraphUse
) -> None:
    module = install(monkeypatch, driver)
    module.script["refuse"] = call
    with pytest.raises(NativeError, match="no such kernel"):
        open_runner(plan, driver, cuda_graph=cuda_graph)
    assert "context dropped" in module.events and "engine dropped" in module.events


def test_a_refused_capture_is_told_of_and_done_without(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path
) -> None:
    module = install(monkeypatch, driver)
    module.script["refuse"] = 3  # two warm-ups, then the capture
    rgb = images(3, HEIGHT, WIDTH)
    with open_runner(plan, driver) as runner:
        assert runner.info.details["cuda_graphs"] == 0
        assert "no such kernel" in str(runner.info.details["notice"])
        np.testing.assert_array_equal(runner.infer(rgb), expected(rgb, 1))


def test_tensorrt_is_asked_whether_it_can_be_captured(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path
) -> None:
    module = install(monkeypatch, driver, rtx=True)
    module.script["capturable"] = False
    rgb = images(3, HEIGHT, WIDTH)
    with open_runner(plan, driver, flavour="tensorrt-rtx", lanes=2) as runner:
        executed = module.events.count("execute")
        assert executed == 2 + 1 + 2  # the capture itself called nothing: two warm-ups a lane, and one more try
        assert runner.info.details["cuda_graphs"] == 0
        assert "cannot be captured" in str(runner.info.details["notice"])
        np.testing.assert_array_equal(runner.infer(rgb), expected(rgb, 1))
    with pytest.raises(NativeError, match="cannot be captured"):
        open_runner(plan, driver, flavour="tensorrt-rtx", cuda_graph="always")


def test_one_logger_serves_every_runner(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path) -> None:
    module = install(monkeypatch, driver)
    with open_runner(plan, driver):
        first = module.logger
    module.script["refuse"] = module.events.count("execute") + 1
    with pytest.raises(NativeError, match=r"\(no such kernel\)$"):
        open_runner(plan, driver)
    assert module.logger is first is tensorrt_log(module).logger
    # An error of one runner is not told to the next.
    module.script.clear()
    plan.write_bytes(b"half a p")
    with pytest.raises(ArtifactError) as caught:
        open_runner(plan, driver)
    assert "no such kernel" not in str(caught.value)


def test_what_is_heard_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> None:
    module = install(monkeypatch, driver)
    log = tensorrt_log(module)
    with log.listening() as heard:
        for number in range(1000):
            log.logger.log(module.ILogger.ERROR, f"error\n  {number}")
            log.logger.log(module.ILogger.WARNING, "again")
    log.logger.log(module.ILogger.ERROR, "too late")
    assert len(heard.errors) < 100 and heard.last(2) == ["error 998", "error 999"]
    assert list(heard.warnings) == ["again"]


def test_a_device_that_hangs_keeps_what_it_uses(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path
) -> None:
    module = install(monkeypatch, driver)
    runner = open_runner(plan, driver, wait_seconds=0.05)
    driver.library.fake_cuda_hang(True)
    with pytest.raises(DeviceError, match="a kernel does not end"):
        runner.infer(images(1, HEIGHT, WIDTH))
    runner.close()
    del runner
    gc.collect()
    assert "context dropped" not in module.events  # its destructor would wait for the device
    driver.library.fake_cuda_hang(False)


def test_tensorrt_is_not_touched_without_a_device(monkeypatch: pytest.MonkeyPatch, plan: Path) -> None:
    class Explosive(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"tensorrt.{name} was used")

    monkeypatch.setitem(sys.modules, "tensorrt", Explosive("tensorrt"))
    with pytest.raises(DeviceError, match="no CUDA driver"):
        TensorRtRunner(plan, "tensorrt", CudaSettings(driver=Path("/nowhere/libcuda.so.1")))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path) -> None:
    machine = replace(probe(), board=None)  # on a Jetson it is JetPack that is named
    monkeypatch.setattr("gms_rt.runtime.tensorrt_module.probe", lambda: machine)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gms-rt\[tensorrt\]'"):
        open_runner(plan, driver)
    with pytest.raises(UsageError, match="unknown flavour"):
        open_runner(plan, driver, flavour="tensorflow")


def test_pycuda_gives_the_primary_context_where_installed(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver, plan: Path
) -> None:
    from gms_rt.runtime import tensorrt

    events: list[str] = []

    class Context:
        def push(self) -> None:
            events.append("push")

        def pop(self) -> None:
            events.append("pop")

    class Device:
        def __init__(self, ordinal: int) -> None:
            events.append(f"device {ordinal}")

        def retain_primary_context(self) -> Context:
            events.append("retain")
            return Context()

    fake = types.ModuleType("pycuda.driver")
    fake.init = lambda: events.append("init")  # type: ignore[attr-defined]
    fake.Device = Device  # type: ignore[attr-defined]
    package = types.ModuleType("pycuda")
    package.driver = fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: types.SimpleNamespace(name=name))
    assert tensorrt.pycuda_context(1) is not None
    assert events == ["init", "device 1", "retain", "push"]


def has_gpu() -> bool:
    try:
        probe_cuda()
    except DeviceError:
        return False
    return True


def test_a_real_plan(tmp_path: Path) -> None:
    """Built by TensorRT for RTX anywhere; run where there is a GPU, refused in words where there is none."""
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    graph = mean_graph(tmp_path / "mean.onnx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(graph.read_bytes())
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    capability = trt.ComputeCapability
    config.set_compute_capability(capability.CURRENT if has_gpu() else capability.SM80, 0)
    plan = tmp_path / "mean.plan"
    plan.write_bytes(bytes(builder.build_serialized_network(network, config)))
    settings = CudaSettings(height=8, width=8, lanes=2)
    if not has_gpu():
        with pytest.raises(DeviceError, match="CUDA"):
            TensorRtRunner(plan, "tensorrt-rtx", settings)
        return
    for cuda_graph in ("auto", "never"):
        with TensorRtRunner(plan, "tensorrt-rtx", replace(settings, cuda_graph=cuda_graph)) as runner:
            np.testing.assert_array_equal(runner.infer(images(5)), expected_mean(images(5)))
            assert len(runner.bench(images(2), seconds=0.1, iterations=10).total) >= 10


def open_with_kernels(plan: Path, driver: FakeDriver, folder: Path, **options: Any) -> None:
    settings = CudaSettings(**{"height": HEIGHT, "width": WIDTH, "driver": driver.path} | options)
    TensorRtRunner(plan, "tensorrt-rtx", settings, kernels=KeptKernels(folder, "0" * 64)).close()


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver) -> FakeTensorRt:
    return install(monkeypatch, driver, rtx=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's own, for kernels."""
    own = tmp_path / "kernels"
    own.mkdir(mode=0o700)
    return own


def taken(module: FakeTensorRt) -> list[str]:
    return [event for event in module.events if event.startswith("kernels taken")]


def test_compiled_kernels_are_kept_for_the_next_start(
    driver: FakeDriver, plan: Path, rtx: FakeTensorRt, folder: Path
) -> None:
    open_with_kernels(plan, driver, folder, lanes=2)
    assert rtx.events.count("runtime cache") == 1  # all lanes share it
    assert not taken(rtx)
    (kept,) = folder.iterdir()
    open_with_kernels(plan, driver, folder)
    assert rtx.events.count("kernels taken: b'compiled here'") == 1
    # Another TensorRT-RTX has a file of its own.
    rtx.__version__ = "11.5.0"
    open_with_kernels(plan, driver, folder)
    assert len(list(folder.iterdir())) == 2 and kept.is_file()


def test_kernels_of_another_driver_are_replaced(
    driver: FakeDriver, plan: Path, rtx: FakeTensorRt, folder: Path
) -> None:
    open_with_kernels(plan, driver, folder)
    (kept,) = folder.iterdir()
    before = kept.read_bytes()
    rtx.script |= {"other driver": True, "kernels": b"compiled anew"}
    open_with_kernels(plan, driver, folder)
    assert kept.read_bytes() != before and kept.read_bytes().endswith(b"compiled anew")


def test_no_changed_byte_of_kept_kernels_reaches_tensorrt(
    driver: FakeDriver, plan: Path, rtx: FakeTensorRt, folder: Path
) -> None:
    open_with_kernels(plan, driver, folder)
    (kept,) = folder.iterdir()
    good = kept.read_bytes()
    rtx.events.clear()
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 1 << place % 8
        kept.write_bytes(changed)
        open_with_kernels(plan, driver, folder)
        assert kept.read_bytes() == good  # compiled again, and kept
    assert not taken(rtx)


def test_a_folder_that_others_can_write_is_not_used(
    driver: FakeDriver, plan: Path, rtx: FakeTensorRt, folder: Path
) -> None:
    open_with_kernels(plan, driver, folder)
    rtx.events.clear()
    folder.chmod(0o777)
    open_with_kernels(plan, driver, folder)
    assert not taken(rtx)
    open_with_kernels(plan, driver, folder.parent / "absent")
    assert not (folder.parent / "absent").exists()
