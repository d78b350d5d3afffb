"""Workers as actors of a Ray cluster, fed by Ray Data: it places, restarts and scales them, and holds back what waits.

A row is a chunk of paths on its way there and a line of results on its way back. Blocks have one row, so that what a
dead node had is given out again chunk by chunk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from gms_rt.errors import GmsError, MissingExtraError, UsageError, line_from_error
from gms_rt.scale.chunk import Chunk, ChunkResult, chunk_from_line, error_from_value, result_from_line, value_from_error
from gms_rt.scale.cores import claim_cores
from gms_rt.scale.worker import Worker, WorkerSetup, setup_from_line
from gms_rt.telemetry import forbid_telemetry


class RayWorker:
    """An actor with one engine; Ray Data calls it with rows."""

    def __init__(self, setup: str, cores: int) -> None:
        forbid_telemetry()
        given = setup_from_line(setup)
        self._claim = claim_cores(cores)  # held for as long as the actor lives
        if self._claim is not None:
            given = dataclasses.replace(given, cores=self._claim.cores)
        self._worker = Worker(given)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Segment the chunks of some rows."""
        return {"result": [self._worker.result(chunk_from_line(str(line))).line() for line in rows["chunk"]]}


def _facts(setup: str) -> str:
    """What a worker would say of itself, from a node of the cluster."""
    forbid_telemetry()
    try:
        with Worker(setup_from_line(setup)) as worker:
            return json.dumps(worker.facts())
    except GmsError as error:
        return json.dumps({"error": value_from_error(error)})


class RayBackend:
    """Actors of a cluster. Use it as a context manager."""

    name = "ray"

    def __init__(self, setup: WorkerSetup, workers: int, gpus_per_worker: float, address: str | None) -> None:
        forbid_telemetry()  # before Ray reads its settings
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise MissingExtraError("--backend ray", "ray") from error
        self._ray = ray
        self._setup = setup
        self._address = address
        self._wanted = workers
        self._gpus = gpus_per_worker
        self._ours = False
        self.workers = workers
        self.cores_per_worker = 1
        self.lost = None  # Ray does not say

    def __enter__(self) -> RayBackend:
        ray = self._ray
        if not ray.is_initialized():
            # "local": Ray would else join a cluster of this machine, or one that is no longer there.
            alone = {"address": "local", "include_dashboard": False, "num_cpus": len(os.sched_getaffinity(0))}
            given: dict[str, Any] = {"address": self._address} if self._address else alone
            try:
                ray.init(log_to_driver=False, configure_logging=False, **given)
            except Exception as error:  # a bare one where a node does not start in time
                ray.shutdown()  # of what has started
                reason = line_from_error(error)
                if self._address:
                    raise UsageError(f"there is no cluster ({reason})", where=self._address) from error
                raise GmsError(
                    f"Ray does not start on this machine ({reason})", fix="use --backend processes"
                ) from error
            self._ours = True
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self.workers = self._wanted or max(1, cores // 2)
        self.cores_per_worker = max(1, cores // self.workers)
        threads = self._setup.load.threads or self.cores_per_worker
        # Where scans are on a disk, as many readers as `infer` has on so many cores.
        readers = self._setup.readers or (0 if self._setup.url else min(4, self.cores_per_worker))
        load = dataclasses.replace(self._setup.load, threads=threads)
        self._setup = dataclasses.replace(self._setup, load=load, readers=readers)
        return self

    def __exit__(self, *error: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def facts(self) -> dict[str, Any]:
        """What a worker on some node says of itself; the others must be like it."""
        asked = self._ray.remote(_facts).options(num_cpus=self.cores_per_worker, num_gpus=self._gpus or None)
        with self._errors_explained():
            facts: dict[str, Any] = json.loads(self._ray.get(asked.remote(self._setup.line())))
        if "error" in facts:
            raise error_from_value(facts["error"])
        self._setup = dataclasses.replace(self._setup, key=facts["key"])
        return facts

    def results(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """What comes of the chunks, in any order. Ray gives the chunks of a node that dies to others."""
        from ray.data import ActorPoolStrategy, DataContext, from_items

        DataContext.get_current().enable_progress_bars = False  # the verb has its own
        logging.getLogger("ray.data").setLevel(logging.WARNING)

        rows = [{"chunk": chunk.line()} for chunk in chunks]
        if not rows:
            return
        most = min(self.workers, len(rows))
        made = from_items(rows, override_num_blocks=len(rows)).map_batches(
            RayWorker,
            fn_constructor_args=(self._setup.line(), self.cores_per_worker),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=1, max_size=most, initial_size=most, max_tasks_in_flight_per_actor=2),
            num_cpus=self.cores_per_worker,
            num_gpus=self._gpus or None,
        )
        with self._errors_explained():
            for row in made.iter_rows():
                yield result_from_line(row["result"])

    @contextlib.contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, GmsError):
                raise cause from error
            raise GmsError(f"the cluster failed ({line_from_error(error)[:300]})", where=self._address) from error
