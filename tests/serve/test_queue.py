"""The queue and the desk without HTTP: batches, deadlines, bounds, an end without loss."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.infer_engine import BrightnessRunner, brightness_engine
from support.serve_server import write_golden

from gms_rt.arrays import U8
from gms_rt.engine.loaded import Engine
from gms_rt.errors import NativeError
from gms_rt.infer.options import InferOptions
from gms_rt.scan.segmenter import Segmenter
from gms_rt.serve import model as served
from gms_rt.serve.counters import Counters
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.desk import Desk
from gms_rt.serve.held import ByteBudget, Held
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.model import ServedModel
from gms_rt.serve.queue import EngineQueue, QueueSettings
from gms_rt.serve.refusals import BusyError, ClosedError, LateError, forget_frames


class Gate:
    """An engine that works only once it is opened, and tells the sizes of its batches."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.sizes: list[int] = []
        self.fault: Exception | None = None

    def infer(self, images: U8) -> NDArray[Any]:
        self.begun.set()
        assert self.open.wait(10)
        self.sizes.append(len(images))
        if self.fault is not None:
            raise self.fault
        return images[..., 0]


def image(value: int) -> U8:
    return np.full((2, 2, 3), value, np.uint8)


@contextmanager
def queue(gate: Gate, **settings: Any) -> Iterator[EngineQueue]:
    made = EngineQueue(Segmenter(gate.infer, 2, 2), QueueSettings("gate", **settings), Counters())
    try:
        yield made
    finally:
        gate.open.set()
        made.close()


def test_what_waits_shares_an_inference_and_each_gets_its_own() -> None:
    gate = Gate()
    with queue(gate, batch=4) as made:
        first = made.submit(image(0), Deadline(10))
        assert gate.begun.wait(10)
        tickets = [made.submit(image(n), Deadline(10)) for n in range(1, 7)]
        gate.open.set()
        maps = [ticket.map() for ticket in [first, *tickets]]
    assert [int(found[0, 0]) for found in maps] == list(range(7))
    assert gate.sizes == [1, 4, 2]


def test_a_late_image_never_reaches_the_engine() -> None:
    gate = Gate()
    with queue(gate, batch=4) as made:
        made.submit(image(0), Deadline(10))
        assert gate.begun.wait(10)
        late, gone, kept = Deadline(10), Deadline(10), Deadline(10)
        tickets = [made.submit(image(1), each) for each in (late, gone, kept)]
        late.at = 0.0
        gone.cancel()
        gate.open.set()
        assert tickets[2].map().shape == (2, 2)
        for ticket in tickets[:2]:
            with pytest.raises(LateError):
                ticket.result(10)
    assert gate.sizes == [1, 1]


def test_a_full_queue_refuses_or_lets_wait() -> None:
    gate = Gate()
    with queue(gate, depth=2) as made:
        made.submit(image(0), Deadline(10))
        assert gate.begun.wait(10)
        for n in (1, 2):
            made.submit(image(n), Deadline(10))
        with pytest.raises(BusyError) as told:
            made.submit(image(3), Deadline(10))
        assert told.value.retry_after is not None
        assert 1 <= told.value.retry_after <= 60
        with pytest.raises(LateError):
            made.submit(image(3), Deadline(0.01), wait=True)
        threading.Timer(0.05, gate.open.set).start()
        assert made.submit(image(4), Deadline(10), wait=True).map()[0, 0] == 4


def test_closing_works_off_what_waits() -> None:
    gate = Gate()
    with queue(gate) as made:
        tickets = [made.submit(image(n), Deadline(10)) for n in range(5)]
        threading.Timer(0.05, gate.open.set).start()
        made.close()
        assert [int(ticket.result(0)[0, 0]) for ticket in tickets] == list(range(5))
        with pytest.raises(ClosedError):
            made.submit(image(9), Deadline(10))


def test_an_engine_that_fails_tells_everybody_and_is_not_trusted_any_more() -> None:
    gate = Gate()
    gate.fault = NativeError("the device hangs")
    gate.open.set()
    with queue(gate) as made:
        for _ in range(2):  # the thread goes on
            with pytest.raises(NativeError, match="the device hangs"):
                made.submit(image(1), Deadline(10)).map()
        assert made.broken == "the device hangs"


def test_every_image_of_many_threads_comes_back_to_its_thread() -> None:
    gate = Gate()
    gate.open.set()
    wrong: list[int] = []

    def client(start: int) -> None:
        for n in range(start, 200, 8):
            if made.submit(image(n), Deadline(10), wait=True).map()[0, 0] != n:
                wrong.append(n)

    with queue(gate, batch=3, lanes=2, depth=4) as made:
        threads = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert sum(gate.sizes) == 200


def test_the_desk_takes_so_many_and_answers_them_all() -> None:
    counters = Counters()
    desk = Desk(3, 1, counters)
    open_ = threading.Event()
    results: list[Future[int]] = [desk.take(lambda n=n: open_.wait(10) and n, Deadline(10)) for n in range(3)]
    with pytest.raises(BusyError):
        desk.take(lambda: 9, Deadline(10))
    desk.close()
    with pytest.raises(ClosedError):
        desk.take(lambda: 9, Deadline(10))
    open_.set()
    desk.drain()
    assert [each.result(0) for each in results] == [0, 1, 2]


def test_a_late_request_is_not_begun_and_an_error_reaches_who_asked() -> None:
    desk = Desk(9, 1, Counters())
    open_, begun = threading.Event(), []
    first = desk.take(lambda: open_.wait(10), Deadline(10))
    late = desk.take(lambda: begun.append(1), Deadline(0.0))
    broken = desk.take(lambda: 1 // 0, Deadline(10))
    open_.set()
    desk.drain()
    assert first.result(0) is True
    with pytest.raises(LateError):
        late.result(0)
    with pytest.raises(ZeroDivisionError):
        broken.result(0)
    assert begun == []


def test_bytes_are_given_back_whatever_happens() -> None:
    budget = ByteBudget(10, Counters())
    held = Held(budget)
    with held, pytest.raises(BusyError):
        held.take(8)
        held.take(3)
    with pytest.raises(LateError):
        held.take(1)
    with Held(budget) as again:
        again.take(10)


class Shifted(BrightnessRunner):
    """Masks that are not those of one image at a time."""

    def _infer(self, images: U8, probabilities: U8) -> None:
        super()._infer(images, probabilities)
        probabilities[:] = np.roll(probabilities, 1, axis=2)


@pytest.mark.parametrize(
    ("kind", "together", "sizes", "reason"),
    [
        (BrightnessRunner, 2.0, [1, 4, 4, 1], ""),  # of ten images two are too few for the engine of four
        (BrightnessRunner, 5.0, [1] * 10, "one after the other"),
        (Shifted, 2.0, [1] * 10, "not those of one image"),
    ],
)
def test_batches_are_used_where_they_are_faster_and_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BrightnessRunner],
    together: float,
    sizes: list[int],
    reason: str,
) -> None:
    monkeypatch.setattr(served, "_seconds", lambda predictor, images: together if len(images) > 1 else 1.0)
    write_golden(tmp_path)
    counters = Counters()
    engine = brightness_engine(tmp_path)
    model = ServedModel("brightness", engine, InferOptions(), ServeLimits(), counters)
    several = Engine(tmp_path, engine.manifest, kind(batch=4))
    model.gain_from_batches(several)
    assert reason in model.batch_notice
    assert bool(reason) == bool(model.batch_notice)
    seen, begun, open_ = [], threading.Event(), threading.Event()

    def infer(runner: BrightnessRunner) -> Any:
        real = runner._infer

        def counted(images: U8, probabilities: U8) -> None:
            begun.set()
            assert open_.wait(10)
            seen.append(len(images))
            real(images, probabilities)

        return counted

    for runner in (engine.runner, several.runner):
        monkeypatch.setattr(runner, "_infer", infer(runner))
    first = model.queue.submit(np.zeros((64, 64, 3), np.uint8), Deadline(10))
    assert begun.wait(10)
    tickets = [model.queue.submit(np.full((64, 64, 3), n, np.uint8), Deadline(10)) for n in range(1, 10)]
    open_.set()
    assert [int(ticket.map()[0, 0]) for ticket in [first, *tickets]] == list(range(10))
    assert seen == sizes
    model.close()


def test_what_is_cancelled_ends_no_thread() -> None:
    desk, open_ = Desk(9, 1, Counters()), threading.Event()
    first = desk.take(lambda: open_.wait(10), Deadline(10))
    gone, last = desk.take(lambda: 1, Deadline(10)), desk.take(lambda: 2, Deadline(10))
    assert gone.cancel()
    open_.set()
    assert (first.result(10), last.result(10)) == (True, 2)
    desk.drain()
    gate = Gate()
    with queue(gate) as made:
        made.submit(image(0), Deadline(10))
        assert gate.begun.wait(10)
        dropped, kept = made.submit(image(1), Deadline(10)), made.submit(image(2), Deadline(10))
        assert dropped.cancel()
        gate.open.set()
        assert kept.map()[0, 0] == 2
    assert gate.sizes == [1, 1]


def test_frames_are_let_go_of_though_causes_go_round_in_a_circle() -> None:
    first, second = ValueError("first"), KeyError("second")
    try:
        raise first
    except ValueError:
        pass
    assert first.__traceback__ is not None
    first.__cause__, second.__context__, second.__cause__ = second, first, first
    forget_frames(second)
    assert first.__traceback__ is None
