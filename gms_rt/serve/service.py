"""The models, the desk and the limits of one service: what HTTP and all other ways in have in common."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # before Python 3.11 another than the builtin
from pathlib import Path
from typing import TypeVar

from gms_rt.errors import GmsError
from gms_rt.serve.counters import Counters
from gms_rt.serve.deadline import Deadline
from gms_rt.serve.desk import Desk
from gms_rt.serve.held import ByteBudget
from gms_rt.serve.limits import ServeLimits
from gms_rt.serve.model import ServedModel
from gms_rt.serve.refusals import ClosedError, UnknownError

T = TypeVar("T")
_PREFIX = "gms-rt-serve-"


class Service:
    """Served engines. Ready once `check` has passed; `drain` answers what was taken and closes everything."""

    def __init__(
        self, models: Sequence[ServedModel], limits: ServeLimits, counters: Counters, *, keep: Path | None = None
    ) -> None:
        self.models = {model.name: model for model in models}
        self.limits = limits
        self.counters = counters
        self.keep = keep
        workers = limits.workers or max(4, 2 * sum(model.ahead for model in models))
        self.desk = Desk(limits.requests, workers, counters)
        self.bytes = ByteBudget(limits.all_bytes, counters)
        self._checked = False
        self._draining = threading.Event()
        self._scratch = Scratch()

    @property
    def scratch(self) -> Path:
        """The folder in which requests have their folders."""
        return self._scratch.root

    def check(self) -> None:
        """Run every engine's golden pictures; the service is ready if none raises."""
        for model in self.models.values():
            model.check_golden()
        self._checked = True
        self.counters.ready.set(1)

    def reason_not_ready(self) -> str:
        """Why requests are not taken, or ""."""
        if self._draining.is_set():
            return "the service is ending"
        if not self._checked:
            return "the golden pictures are still being checked"
        return next((f"{m.name} failed: {m.queue.broken}" for m in self.models.values() if m.queue.broken), "")

    def check_ready(self) -> None:
        """Raise `ClosedError` where requests are not taken."""
        reason = self.reason_not_ready()
        if reason:
            raise ClosedError(reason, fix="come back when /v2/health/ready says so")

    def model(self, name: str | None) -> ServedModel:
        """A model by name; without one the first."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise UnknownError("there is no such model", where=name[:80], fix=f"ask for {', '.join(self.models)}")
        return self.models[name]

    def take(self, work: Callable[[], T], deadline: Deadline) -> Future[T]:
        """Take a request: its answer, sooner or later, or `BusyError` or `ClosedError` now."""
        self.check_ready()
        return self.desk.take(work, deadline)

    def close_door(self) -> None:
        """Take nothing more; what was taken is still answered."""
        self._draining.set()
        self.counters.ready.set(0)
        self.desk.close()

    def drain(self) -> None:
        """Close the door, answer what was taken, close the engines."""
        self.close_door()
        self.desk.drain()
        for model in self.models.values():
            model.close()
        self._scratch.close()


class Scratch:
    """The folder of a process for what requests send, in the system's temporary folder, readable by this user alone.

    What a killed process left is removed by the next one.
    """

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()))
        self._guard = threading.Lock()
        self._closed = False
        self._root, self._lock = _locked_folder()

    @property
    def root(self) -> Path:
        """The folder; a new one where something that cleans temporary folders has removed it."""
        with self._guard:
            if not self._closed and not self._root.is_dir():
                os.close(self._lock)
                self._root, self._lock = _locked_folder()
            return self._root

    def close(self) -> None:
        """Remove the folder."""
        self._closed = True
        shutil.rmtree(self._root, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def _locked_folder() -> tuple[Path, int]:
    root = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return root, lock


def _sweep(place: Path) -> None:
    """Remove folders of processes that are gone: nobody holds their lock."""
    for folder in place.glob(f"{_PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(lock)


def result_within(future: Future[T], deadline: Deadline) -> T:
    """The answer to what was taken; `LateError` where it does not come in time. For callers without an event loop."""
    try:
        return future.result(deadline.left + 1.0)
    except FutureTimeout:
        deadline.cancel()
        deadline.check()
        raise GmsError("was not answered") from None
