"""Workers as processes of this machine: cores and GPUs are shared out, and a worker that dies is replaced."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from gms_rt.errors import GmsError, line_from_error
from gms_rt.peers.child import child_environment
from gms_rt.scale.chunk import Chunk, ChunkResult, error_from_value, result_from_line
from gms_rt.scale.worker import END, WorkerSetup

_AHEAD = 2  # chunks that a worker has, so that it need not wait for the next
_STILLBORN = 3  # workers in a row that end before they have done anything


@dataclass
class _Process:
    """One worker and the chunks that it has, the one it works on first."""

    slot: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    chunks: deque[Chunk] = field(default_factory=deque)
    facts: dict[str, Any] | None = None  # what it said of itself, when its engine was open
    read: bytearray = field(default_factory=bytearray)

    def send(self, line: str) -> None:
        """Write a line; one to a worker that has just died is lost, as what it had is."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def lines(self) -> list[str] | None:
        """What it has answered since the last call; None when it has ended."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        if not data:
            return None
        self.read += data
        *lines, rest = self.read.split(b"\n")
        self.read = bytearray(rest)
        return [line.decode() for line in lines]

    def last_words(self) -> str:
        """The last line of its log."""
        self.log.seek(0)
        lines = self.log.read()[-4096:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "without a word"


class ProcessBackend:
    """So many processes. Use it as a context manager, from one thread."""

    name = "processes"

    def __init__(self, setup: WorkerSetup, workers: int = 0, gpus_per_worker: float = 0.0) -> None:
        self._cores = sorted(os.sched_getaffinity(0))
        self.workers = workers or max(1, len(self._cores) // 2)
        self.cores_per_worker = max(1, len(self._cores) // self.workers)
        self.lost: int | None = 0  # workers that died and were replaced
        self._gpus_per_worker = gpus_per_worker
        threads = setup.load.threads or self.cores_per_worker
        self._setup = dataclasses.replace(setup, load=dataclasses.replace(setup.load, threads=threads))
        self._live: dict[int, _Process] = {}
        self._waiting: selectors.BaseSelector | None = None
        self._stillborn = 0

    def __enter__(self) -> ProcessBackend:
        self._waiting = selectors.DefaultSelector()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            for each in self._live.values():
                if error[0] is None and not each.chunks:
                    each.send(END)
                assert each.process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    each.process.stdin.close()  # without END, that ends it at once
            for each in self._live.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    each.process.wait(20)
        finally:  # also where Ctrl-C comes again, or comes only now: nobody stays behind
            for each in self._live.values():
                each.process.kill()
                each.process.wait()
                self._release(each)
            self._live.clear()
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def facts(self) -> dict[str, Any]:
        """What the first worker says of itself; the others must be like it."""
        while True:
            self._start_missing(1)
            for each, _ in self._heard():
                if each.facts is not None:
                    self._setup = dataclasses.replace(self._setup, key=each.facts["key"])
                    return each.facts

    def results(self, chunks: Iterable[Chunk]) -> Iterator[ChunkResult]:
        """What comes of the chunks, in any order. A chunk whose worker dies is given to another."""
        coming = iter(chunks)
        again: deque[Chunk] = deque()
        more = True
        while True:
            for each in sorted(self._live.values(), key=lambda e: len(e.chunks)):
                while each.facts is not None and len(each.chunks) < _AHEAD:
                    chunk = again.popleft() if again else next(coming, None)
                    if chunk is None:
                        more = False
                        break
                    each.chunks.append(chunk)
                    each.send(chunk.line())
            if not more and not again and not any(each.chunks for each in self._live.values()):
                return
            self._start_missing(self.workers if more or again else 1)
            for each, lines in self._heard():
                if lines is None:
                    again.extend(each.chunks)
                    continue
                for line in lines:
                    result = result_from_line(line)
                    each.chunks.popleft()
                    self._stillborn = 0
                    yield result

    def _start_missing(self, wanted: int) -> None:
        for slot in range(wanted):
            if slot not in self._live:
                self._live[slot] = self._started(slot)
                process = self._live[slot].process
                assert self._waiting is not None, "the backend is entered"
                assert process.stdout is not None
                self._waiting.register(process.stdout, selectors.EVENT_READ, self._live[slot])

    def _heard(self) -> Iterator[tuple[_Process, list[str] | None]]:
        """Wait for workers: who has answered, and lines of results; None of one that has died."""
        assert self._waiting is not None, "the backend is entered"
        for key, _ in self._waiting.select():
            each: _Process = key.data
            lines = each.lines()
            if lines is None:
                self._bury(each)
            elif each.facts is None and lines:
                facts = json.loads(lines.pop(0))
                if "error" in facts:
                    raise error_from_value(facts["error"])
                each.facts = facts
            yield each, lines

    def _bury(self, each: _Process) -> None:
        assert self._waiting is not None, "the backend is entered"
        assert each.process.stdout is not None
        self._waiting.unregister(each.process.stdout)
        code = each.process.wait()
        self.lost = (self.lost or 0) + 1
        self._stillborn += each.facts is None
        words = each.last_words()
        self._release(each)
        del self._live[each.slot]
        if self._stillborn >= _STILLBORN:
            raise GmsError(f"workers end before their engine is open (exit code {code}: {words})")

    def _release(self, each: _Process) -> None:
        for stream in (each.process.stdin, each.process.stdout, each.log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _started(self, slot: int) -> _Process:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        environment = child_environment()
        if self._gpus_per_worker:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu(slot)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "gms_rt.scale.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        except OSError as error:
            raise GmsError(f"a worker cannot be started ({line_from_error(error)})") from error
        each = _Process(slot, process, log)
        each.send(dataclasses.replace(self._setup, cores=self._share(slot)).line())
        return each

    def _share(self, slot: int) -> tuple[int, ...]:
        """The cores of a worker; with more workers than cores they take turns."""
        first = slot * self.cores_per_worker % len(self._cores)
        return tuple(self._cores[first : first + self.cores_per_worker])

    def _gpu(self, slot: int) -> str:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        number = int(slot * self._gpus_per_worker)
        return visible[number % len(visible)] if visible else str(number)
