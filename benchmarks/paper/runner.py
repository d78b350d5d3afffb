"""Does jobs, each once: a file per job in WORK/jobs keeps which commands are over, how long they took, and on what.

Verbs run in this process, as `gms-rt` runs them. A job that was cut off goes on with the command that it was in, which
itself resumes. One that failed is tried again by the next call; meanwhile its cell says why.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.artifacts import read_json, write_json
from gms_rt.cli.main import run
from gms_rt.errors import UsageError
from gms_rt.runtime.device import probe
from paper.jobs import Job
from paper.systems import Command, Done

_BEAT = 5.0  # seconds of work at most whose time is not counted after a kill


@dataclass(frozen=True)
class Record:
    """What is known of a job."""

    state: str = "not run"  # not run, begun, done or failed
    done: tuple[Done, ...] = ()
    begun: Done | None = None  # the command that is running, or was cut off, with what it has taken so far
    why: str = ""
    machine: str = ""

    @property
    def minutes(self) -> float:
        """What all its commands took."""
        begun = self.begun.seconds if self.begun else 0.0
        return (sum(each.seconds for each in self.done) + begun) / 60


def read_record(work: Path, key: str) -> Record:
    """What is known of a job in a work folder."""
    path = work / "jobs" / f"{key}.json"
    if not path.is_file():
        return Record()
    told = read_json(path)
    begun = told.get("begun")
    return Record(
        told["state"],
        tuple(Done(tuple(each["command"]), each["seconds"]) for each in told["done"]),
        Done(tuple(begun["command"]), begun["seconds"]) if begun else None,
        told.get("why", ""),
        told.get("machine", ""),
    )


def _write(work: Path, key: str, record: Record) -> None:
    def plain(done: Done) -> dict[str, Any]:
        return {"command": list(done.command), "seconds": round(done.seconds, 2)}

    value = {
        "state": record.state,
        "done": [plain(each) for each in record.done],
        "begun": plain(record.begun) if record.begun else None,
        "why": record.why,
        "machine": record.machine,
    }
    write_json(work / "jobs" / f"{key}.json", value)


def do_jobs(jobs: Sequence[Job], work: Path, say: Callable[[str], None]) -> int:
    """Do what is not done; how many failed. A job whose predecessor failed is not tried."""
    failed: set[str] = set()
    for number, job in enumerate(jobs, 1):
        record = read_record(work, job.key)
        if record.state == "done" and job.result.exists():
            _check_same(job, record)
            continue
        if job.needs in failed:
            failed.add(job.key)
            _write(work, job.key, Record("failed", why=f"{job.needs} failed"))
            continue
        say(f"{number} of {len(jobs)}: {job.title}")
        why = _do(job, record, work)
        if why:
            failed.add(job.key)
            say(f"  failed: {why}")
    return len(failed)


def _do(job: Job, record: Record, work: Path) -> str:
    """Do a job from where it stopped; why it failed, or nothing."""
    machine = machine_text()
    done = record.done
    begun = record.begun
    while True:
        command = job.next_command(done)
        if command is None:
            break
        if begun is not None and begun.command != command and record.state == "failed":
            begun = None  # with other options it may not fail
        if begun is not None and begun.command != command:
            raise UsageError(
                f"was begun with other settings: {' '.join(begun.command)}",
                where=work / "jobs" / f"{job.key}.json",
                fix="give the same options again, or another --work",
            )
        before = begun.seconds if begun else 0.0
        begun = None
        with _watch(work, job.key, Record("begun", done, Done(command, before), machine=machine)) as spent:
            code, why = run_verb(command)
        if code == 130:
            raise KeyboardInterrupt
        if code not in job.allowed:
            _write(work, job.key, Record("failed", done, Done(command, before + spent()), why, machine))
            return why
        done = (*done, Done(command, round(before + spent(), 2)))  # as it is kept: later commands follow from it
        _write(work, job.key, Record("begun", done, None, machine=machine))
    if not job.result.exists():
        why = f"{job.result.name} was not written"
        _write(work, job.key, Record("failed", (), None, why, machine))
        return why
    _write(work, job.key, Record("done", done, None, machine=machine))
    return ""


def _check_same(job: Job, record: Record) -> None:
    """Refuse results of other settings: they would stand in a table that says these."""
    done: list[Done] = []
    for each in record.done:
        command = job.next_command(done)
        if command != each.command:
            raise UsageError(
                f"{job.title} was done with other settings: {' '.join(each.command)}",
                where="--work",
                fix="give the same options again, or another --work",
            )
        done.append(each)


@contextlib.contextmanager
def _watch(work: Path, key: str, record: Record) -> Iterator[Callable[[], float]]:
    """Keep a job's record current while its command runs; gives the seconds so far."""
    start = time.monotonic()
    over = threading.Event()
    begun = record.begun
    assert begun is not None

    def spent() -> float:
        return time.monotonic() - start

    def beat() -> None:
        while not over.wait(_BEAT):
            keep()

    def keep() -> None:
        current = Done(begun.command, begun.seconds + spent())
        _write(work, key, Record(record.state, record.done, current, machine=record.machine))

    keep()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield spent
    finally:
        over.set()
        thread.join()
        keep()


def run_verb(command: Command) -> tuple[int, str]:
    """Run a verb; its exit code, and its error if it has one."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = run([*command, "--json"])
    gc.collect()
    if code == 0:
        return code, ""
    return code, _error(out.getvalue()) or f"gms-rt {command[0]} ended with code {code}"


def _error(printed: str) -> str:
    """The message of the last JSON object that a verb printed."""
    start = printed.rfind('{"error"')
    try:
        return str(json.loads(printed[start:])["error"]["message"]) if start >= 0 else ""
    except (ValueError, KeyError):
        return ""


def machine_text() -> str:
    """The processor and its cores."""
    cpu = probe().cpu
    return f"{cpu.name}, {cpu.cores} cores"
