"""One engine that segments chunks, by the very code of `gms-rt infer`; also a process that does so on request.

    python -m gms_rt.scale.worker

reads lines on standard input: the setup, then chunks. It answers each with one line: what it is, then results. When
its input ends before it was told to, whoever started it is gone, and it ends at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gms_rt.engine.select import LoadOptions, load
from gms_rt.errors import DeviceError, GmsError
from gms_rt.infer import InferJob, InferOptions, OutFolder
from gms_rt.infer.case import ScanCase
from gms_rt.infer.journal import Entry
from gms_rt.infer.pipeline import Pipeline
from gms_rt.infer.run import run_record
from gms_rt.infer.sources import FoundSources, Source
from gms_rt.infer.tuning import tuned_process
from gms_rt.peers.child import peak_resident_bytes
from gms_rt.scale.attempts import TOGETHER, Attempts
from gms_rt.scale.chunk import Chunk, ChunkResult, chunk_from_line, error_from_value, value_from_error
from gms_rt.scale.remote import RemoteFolder
from gms_rt.telemetry import forbid_telemetry

END = "end"  # the last line that a worker is sent
_READERS = 8  # threads that read where each waits for a network


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker is to be; it travels as a line of JSON."""

    engine: str  # folder, at the same place for all workers
    out: str  # folder, the same for all workers
    options: InferOptions
    load: LoadOptions
    url: str | None = None  # the file system's folder that sources are below; None: their paths are on this machine
    readers: int = 0  # threads that read scans; 0: as many as `infer` has, and 8 where they are elsewhere
    cores: tuple[int, ...] = ()  # that the worker keeps to; none: all that it may use
    key: str | None = None  # of the results that are asked for: a worker that would make others refuses

    def line(self) -> str:
        """The setup as text."""
        return json.dumps(dataclasses.asdict(self))


def setup_from_line(line: str) -> WorkerSetup:
    """What `WorkerSetup.line` wrote."""
    value = json.loads(line)
    value |= {"options": InferOptions(**value["options"]), "load": LoadOptions(**value["load"])}
    return WorkerSetup(**(value | {"cores": tuple(value["cores"])}))


class Worker:
    """One engine with the options of a run. Use it as a context manager."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._stack = contextlib.ExitStack()
        self._remote = RemoteFolder(setup.url) if setup.url else None
        if setup.cores:
            os.sched_setaffinity(0, setup.cores)
        try:
            self._stack.enter_context(tuned_process())
            engine = self._stack.enter_context(load(setup.engine, **setup.load.keywords()))
            out = OutFolder(Path(setup.out))  # held by the one who gives out the chunks
            readers = setup.readers or (_READERS if self._remote else 0)
            self._job = InferJob(engine, out, setup.options, readers)
            self._settings = self._job.settings
            if setup.key not in (None, self._settings.key):
                info = engine.runner.info
                raise DeviceError(
                    f"{socket.gethostname()} runs it as {info.execution} on {info.device}, unlike the first worker, "
                    "so that its masks may differ",
                    where=setup.engine,
                    fix="use workers of one kind",
                )
        except BaseException:
            self._stack.close()
            raise
        self._attempts = Attempts(Path(setup.out))

    def facts(self) -> dict[str, Any]:
        """What this worker is: the key of its results, and the head of run.json."""
        engine = self._job.engine
        record = run_record(self._job, FoundSources([], Path(), 0))
        return {"key": self._settings.key, "record": record, "notice": engine.notice, "worker": worker_name()}

    def result(self, chunk: Chunk) -> ChunkResult:
        """Segment a chunk's sources; what is written is in its place and on the disk when this returns."""
        start = time.perf_counter()
        entries: list[Entry] = []
        busy: dict[str, float] = {}
        threads: dict[str, int] = {}
        error: GmsError | None = None
        try:
            for sources, given_up in self._parts(chunk):
                if given_up:
                    entries += [self._entry(self._failure(source)) for source in sources]
                else:
                    cases, pipeline = self._run(sources)
                    entries += map(self._entry, cases)
                    for stage, spent in pipeline.busy.items():
                        busy[stage] = busy.get(stage, 0.0) + spent
                    threads = pipeline.threads
                self._attempts.end(Chunk(sources).id)
            self._attempts.end(chunk.id)
        except Exception as raised:
            # It lives, so it is no reason to work alone: the marks count those who died.
            error = error_from_value(value_from_error(raised))
            self._attempts.end(chunk.id)
        peak = peak_resident_bytes() or 0
        seconds = time.perf_counter() - start
        return ChunkResult(chunk.id, entries, error, worker_name(), seconds, busy, threads, peak)

    def _parts(self, chunk: Chunk) -> Iterator[tuple[tuple[Source, ...], bool]]:
        """The chunk as a whole, or its sources one by one after workers died of it; and which of these to give up."""
        together = self._attempts.begin(chunk.id) <= TOGETHER
        if together or len(chunk.sources) == 1:
            yield chunk.sources, not together
            return
        for source in chunk.sources:
            yield (source,), self._attempts.begin(Chunk((source,)).id) > 1

    def _run(self, sources: Sequence[Source]) -> tuple[list[ScanCase], Pipeline]:
        scratch = Path(tempfile.mkdtemp(prefix="gms-rt-scale-")) if self._remote else None

        def bring(source: Source) -> Source:
            assert self._remote is not None
            assert scratch is not None
            return self._remote.bring(source, scratch)

        def done(cases: Sequence[ScanCase]) -> None:
            for case in cases if scratch else ():
                for path in case.source.paths:
                    path.unlink(missing_ok=True)

        pipeline = Pipeline(
            self._settings,
            workers=self._job.threads,
            find=lambda name, digest: None,
            done=done,
            bring=bring if self._remote else None,
        )
        try:
            return [case for cases in pipeline.run(sources) for case in cases], pipeline
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def _failure(self, source: Source) -> ScanCase:
        case = ScanCase(0, source, self._settings)
        case.fail("ended the process that read it; it may be damaged, or need more memory than there is")
        return case

    def _entry(self, case: ScanCase) -> Entry:
        return Entry(self._settings.key, case.source.name, case.digest, case.rows, case.files)

    def close(self) -> None:
        """Release the engine."""
        self._stack.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def worker_name() -> str:
    """This process among all of a cluster."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _lines(stream: IO[bytes]) -> queue.SimpleQueue[str]:
    """Lines as they arrive. The end of the stream ends the process."""
    found: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            found.put(line.decode().rstrip("\n"))
            if line == END.encode() + b"\n":
                return
        os._exit(1)

    threading.Thread(target=read, name="worker-input", daemon=True).start()
    return found


def main() -> None:
    """Serve the one who started this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it
    forbid_telemetry()
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what libraries print does not belong to the answers
    lines = _lines(sys.stdin.buffer)

    def answer(line: str) -> None:
        answers.write(line + "\n")
        answers.flush()

    try:
        worker = Worker(setup_from_line(lines.get()))
    except Exception as error:
        answer(json.dumps({"error": value_from_error(error)}))
        return
    with worker:
        answer(json.dumps(worker.facts()))
        while (line := lines.get()) != END:
            answer(worker.result(chunk_from_line(line)).line())


if __name__ == "__main__":
    main()
