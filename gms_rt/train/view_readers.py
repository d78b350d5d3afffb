"""Views read ahead of the training steps: by threads, or for a GPU by processes.

Python lets one thread of a process run at a time, and a GPU's next kernels are launched by such a thread: readers in
the same process would make it wait. A view is a pure function of seed, case and view number, so that it does not
matter who reads it.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import cv2

from gms_rt.arrays import U8
from gms_rt.data.layouts import Case
from gms_rt.train.recipe import TrainingRecipe
from gms_rt.train.samples import Samples

_here: list[Samples] = []  # of a reading process


class ViewReaders:
    """So many readers of the views of some cases."""

    def __init__(self, samples: Samples, count: int, *, processes: bool) -> None:
        self._pool: Executor
        if processes:
            # A process that knows the GPU must not be forked; this one forks from a small server that does not.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            self._view = _view_here
            start = (samples.cases, samples.recipe)
            self._pool = ProcessPoolExecutor(count, context, initializer=_open_here, initargs=start)
        else:
            self._view = samples.view
            self._pool = ThreadPoolExecutor(count, thread_name_prefix="views")

    def ask(self, number: int, view: int) -> Future[tuple[U8, U8]]:
        """The view of this number of this case, soon."""
        return self._pool.submit(self._view, number, view)

    def close(self) -> None:
        """End the readers."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _open_here(cases: Sequence[Case], recipe: TrainingRecipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process ends its readers
    cv2.setNumThreads(1)
    _here[:] = [Samples(cases, recipe)]


def _view_here(number: int, view: int) -> tuple[U8, U8]:
    return _here[0].view(number, view)
