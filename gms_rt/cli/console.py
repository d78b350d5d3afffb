"""How verbs print: people get lines and progress bars on stderr and results on stdout, machines one JSON object."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NoReturn

import click

from gms_rt.errors import GmsError


class Console:
    """What a verb prints through. With `json` only `result` reaches stdout; `quiet` drops everything but results."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def say(self, text: str = "") -> None:
        """A line for people."""
        if not self.quiet:
            click.echo(text, err=self.json)

    def note(self, text: str) -> None:
        """A line that is not part of the result: progress, warnings."""
        if not self.quiet:
            _note(text)

    def result(self, value: dict[str, Any], text: str) -> None:
        """The outcome: one JSON object for machines, a screenful for people."""
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) if self.json else text)

    def fail(self, value: dict[str, Any], text: str, error: GmsError) -> NoReturn:
        """The outcome of what failed nevertheless: machines find the error in the same object."""
        self.result({**value, **failure_value(error.line(), error.exit_code)}, text)
        error.told = self.json
        raise error

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Progress]:
        """Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere."""
        bar = Progress(label, total, shown=not self.quiet)
        with bar:
            yield bar


def failure_value(line: str, exit_code: int) -> dict[str, Any]:
    """An error as every verb says it to machines."""
    return {"error": {"message": line, "exit_code": exit_code}}


def _note(text: str) -> None:
    """A line on stderr. Work goes on where that takes nothing (a full disk): it is no result."""
    with suppress(OSError):
        click.echo(text, err=True)


class Progress:
    """One piece of long work. `advance` counts; `say` replaces the text behind the bar."""

    _LINE_SECONDS = 5.0

    def __init__(self, label: str, total: int | None, *, shown: bool) -> None:
        self.label, self.total, self.shown = label, total, shown
        self.done = 0
        self._note = ""
        self._bar: Any = None
        self._task: Any = None
        self._last = self._start = time.monotonic()

    def __enter__(self) -> Progress:
        if self.shown and sys.stderr.isatty():
            from rich import progress as bars
            from rich.console import Console as RichConsole

            columns = [bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TextColumn("{task.fields[note]}")]
            timed = (
                [bars.MofNCompleteColumn(), bars.TimeRemainingColumn()] if self.total else [bars.TimeElapsedColumn()]
            )
            self._bar = bars.Progress(*columns, *timed, console=RichConsole(stderr=True), transient=True)
            self._task = self._bar.add_task(self.label, total=self.total, note="")
            self._bar.start()
        return self

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count work done."""
        self.done += count
        self._note = note if note is not None else self._note
        if self._bar is not None:
            self._bar.update(self._task, advance=count, note=self._note)
        elif self.shown and time.monotonic() - self._last > self._LINE_SECONDS:
            self._last = time.monotonic()
            _note(self._line())

    def say(self, note: str) -> None:
        """Replace the text behind the bar."""
        self.advance(0, note)

    def _line(self) -> str:
        note = f" ({self._note})" if self._note else ""
        elapsed = time.monotonic() - self._start
        if not self.done:
            return f"{self.label}: {elapsed:.0f} s{note}"
        of = f" of {self.total}" if self.total else ""
        left = f", {elapsed / self.done * (self.total - self.done):.0f} s left" if self.total else ""
        return f"{self.label}: {self.done}{of}, {self.done / elapsed:.1f}/s{left}{note}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class StageBars:
    """Progress of long work in stages: one bar per stage, closed when the next one starts."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Progress | None = None

    def show(self, stage: str, done: int, total: int, note: str) -> None:
        """Move the bar of this stage."""
        if self._bar is None or stage != self._stage:
            self.__exit__()
            self._stage, self._bar = stage, Progress(stage, total, shown=True)
            self._bar.__enter__()
        self._bar.advance(done - self._bar.done, note)

    def __enter__(self) -> StageBars:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        self._bar = None


def table(rows: list[list[str]], *, header: list[str]) -> str:
    """Aligned columns as plain text: numbers to the right, words to the left.

    >>> print(table([["fp16", "9.1"], ["int8", "12.25"]], header=["engine", "ms"]))
    engine     ms
    fp16      9.1
    int8    12.25
    """
    body = [header, *rows]
    widths = [max(len(row[i]) for row in body) for i in range(len(header))]
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    lines = []
    for row in body:
        cells = [c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, numeric, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    return text in ("", "-") or text.strip("%×xs ").replace(".", "", 1).replace(",", "").lstrip("-+").isdigit()
