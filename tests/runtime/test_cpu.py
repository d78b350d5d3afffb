"""The CPU runner: results, what it says about itself, batches side by side, life and threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from support.native_graphs import conv_graph, expected_mean, images, mean_graph

from gms_rt.errors import NativeError, UsageError
from gms_rt.runtime import cpu
from gms_rt.runtime.base import Runner
from gms_rt.runtime.binding import NativeRunner
from gms_rt.runtime.cpu import CpuRunner
from gms_rt.runtime.options import CpuSettings


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conv_graph(tmp_path_factory.mktemp("slow") / "conv.onnx", size=96, width=16, depth=4)


def test_infer_and_info(tmp_path: Path) -> None:
    with CpuRunner(mean_graph(tmp_path / "m.onnx"), CpuSettings(threads=1)) as runner:
        assert isinstance(runner, Runner)
        info = runner.info
        assert (info.backend, info.batch, info.height, info.width) == ("cpu", 1, 8, 8)
        assert (info.execution, info.lanes, info.threads) == ("f32", 1, 1)
        assert info.device
        assert str(info.details["runtime"]).startswith("OpenVINO")
        for count in (0, 1, 3):
            np.testing.assert_array_equal(runner.infer(images(count)), expected_mean(images(count)))
        with pytest.raises(UsageError, match="do not fit"):
            runner.infer(np.zeros((1, 9, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="closed"):
        runner.infer(images(1))
    runner.close()


def test_quantised_is_part_of_the_execution(tmp_path: Path) -> None:
    with CpuRunner(mean_graph(tmp_path / "m.onnx"), quantised=True) as runner:
        assert runner.info.execution == "i8+f32"


def test_the_same_masks_as_onnxruntime(slow: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(slow), providers=["CPUExecutionProvider"])
    rgb = images(3, 96, 96)
    reference = np.stack([session.run(None, {"image": image[None]})[0][0, ..., 0] for image in rgb])
    with CpuRunner(slow) as runner:
        masks = runner.infer(rgb)
    # Both compute in float32; a value on the edge of rounding may fall to either side.
    difference = np.abs(masks.astype(int) - reference)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_bench(slow: Path, mode: str) -> None:
    with CpuRunner(slow, CpuSettings(mode=mode, lanes=2, threads=2)) as runner:  # type: ignore[arg-type]
        timings = runner.bench(images(2, 96, 96), seconds=0.2, iterations=5, warmup=0.05)
    assert timings.lanes == 2 and timings.batch == 1
    assert len(timings.total) >= 5
    assert timings.wall_seconds >= 0.2 and timings.warmup_seconds >= 0.05
    assert (timings.total >= timings.compute).all() and (timings.compute > 0).all()
    # Two lanes overlap, so the sum of the latencies is more than the wall time, and never more than twice.
    assert timings.total.sum() / 1000 <= 2.05 * timings.wall_seconds
    assert timings.images_per_second == pytest.approx(len(timings.total) / timings.wall_seconds)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[NativeRunner]:
    """The library's runners in the order in which they are opened."""
    runners: list[NativeRunner] = []
    really = NativeRunner.open_cpu

    def open_cpu(graph: Path, settings: CpuSettings | None = None) -> NativeRunner:
        runners.append(really(graph, settings))
        return runners[-1]

    monkeypatch.setattr(NativeRunner, "open_cpu", open_cpu)
    return runners


def test_a_long_batch_is_measured_both_ways(
    slow: Path, monkeypatch: pytest.MonkeyPatch, opened: list[NativeRunner]
) -> None:
    # Whatever the machine: a second compilation promises to pay for itself, and lanes are fast enough.
    monkeypatch.setattr(cpu, "HOPED_GAIN", 1e9)
    monkeypatch.setattr(cpu, "NEEDED_GAIN", 0.0)
    rgb = images(160, 96, 96)
    with NativeRunner.open_cpu(slow, CpuSettings(mode="throughput", lanes=0, threads=2)) as wide:
        lanes = wide.info.lanes  # two, or one where OpenVINO counts the cores otherwise
    opened.clear()
    with CpuRunner(slow, CpuSettings(threads=2)) as runner:
        reference = np.concatenate([runner.infer(part) for part in np.array_split(rgb, 20)])
        assert "batch_lanes" not in runner.info.details  # short batches decide nothing
        masks = runner.infer(rgb)
        assert runner.info.details["batch_lanes"] == lanes
        assert len(opened) == 2
        difference = np.abs(masks.astype(int) - reference)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.001
        again = runner.infer(rgb)
        np.testing.assert_array_equal(again[40:], masks[40:])
        assert len(opened) == 2  # decided once
    for native in opened:
        with pytest.raises(UsageError, match="closed"):
            _ = native.info


def test_lanes_are_dropped_where_they_are_not_faster(
    slow: Path, monkeypatch: pytest.MonkeyPatch, opened: list[NativeRunner]
) -> None:
    monkeypatch.setattr(cpu, "HOPED_GAIN", 1e9)
    monkeypatch.setattr(cpu, "NEEDED_GAIN", 1e9)
    rgb = images(64, 96, 96)
    with CpuRunner(slow, CpuSettings(threads=2)) as runner:
        masks = runner.infer(rgb)
        assert runner.info.details["batch_lanes"] == 1
        with pytest.raises(UsageError, match="closed"):
            _ = opened[1].info
        np.testing.assert_array_equal(runner.infer(rgb), masks)
        assert len(opened) == 2  # decided once


def test_a_batch_too_short_to_pay_does_not_open_a_second_graph(
    slow: Path, monkeypatch: pytest.MonkeyPatch, opened: list[NativeRunner]
) -> None:
    monkeypatch.setattr(cpu, "HOPED_GAIN", 0.0)
    with CpuRunner(slow, CpuSettings(threads=2)) as runner:
        runner.infer(images(64, 96, 96))
        assert len(opened) == 1 and "batch_lanes" not in runner.info.details


def test_threads_share_a_runner_while_it_is_closed(slow: Path) -> None:
    runner = CpuRunner(slow, CpuSettings(threads=2))
    expected = runner.infer(images(3, 96, 96))
    wrong: list[BaseException] = []
    finished: list[bool] = []
    working = threading.Barrier(5, timeout=60)

    def work() -> None:
        try:
            np.testing.assert_array_equal(runner.infer(images(3, 96, 96)), expected)
            working.wait()
            while True:
                np.testing.assert_array_equal(runner.infer(images(3, 96, 96)), expected)
        except UsageError:
            finished.append(True)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    working.wait()
    runner.close()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert wrong == []
    assert len(finished) == 4


def test_an_engine_survives_an_exception_in_its_block(tmp_path: Path) -> None:
    graph = mean_graph(tmp_path / "m.onnx")
    with pytest.raises(NativeError, match="mine"), CpuRunner(graph) as runner:
        raise NativeError("mine")
    with pytest.raises(UsageError, match="closed"):
        runner.infer(images(1))
