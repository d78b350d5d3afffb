"""What submit and wait cost over the blocking call: the same graph and runner, the three ways in turn.

    python benchmarks/async_overhead.py [GRAPH.onnx …] [--rounds 100] [--calls 20] [--out async.json]

Per round each way runs `--calls` inferences one after the other, the order changing from round to round: the blocking
`gmsrt_infer`; `gmsrt_submit` and `gmsrt_wait` at once, which adds a hand-over to the runner's thread and back; and a
frame always submitted before the one before it is waited for, as a camera's program does. All are called through
ctypes, so the second and third pay for one more foreign call (printed, too). Masks of all ways are compared first. The
figure is the median over the rounds of the time of one inference, and of the difference to the blocking one.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gms_rt.runtime.library import Info, check_status, load_library
from gms_rt.runtime.options import CpuSettings, native_cpu_options


class Ways:
    """One open runner with the ways to run it; each returns when `calls` inferences are done."""

    def __init__(self, graph: Path, calls: int) -> None:
        self.library = load_library()
        self.library.gmsrt_submit.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.library.gmsrt_wait.argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64]
        self.runner = ctypes.c_void_p()
        settings = ctypes.byref(native_cpu_options(self.library, CpuSettings()))
        name = str(graph).encode()
        self._check(self.library.gmsrt_open_cpu(name, settings, ctypes.byref(self.runner)))
        about = Info()
        check_status(self.library, self.library.gmsrt_get_info(self.runner, ctypes.byref(about), ctypes.sizeof(about)))
        self.about, self.calls = about, calls
        self.images = np.random.default_rng(0).integers(0, 256, (2, about.height, about.width, 3), np.uint8)
        self.masks = np.zeros((2, about.height, about.width), np.uint8)
        self.tickets = [ctypes.c_uint64(), ctypes.c_uint64()]

    def blocking(self) -> None:
        """`gmsrt_infer`, one after the other."""
        for i in range(self.calls):
            which = i % 2
            self._check(self.library.gmsrt_infer(self.runner, self._image(which), 1, self._mask(which)))

    def one_by_one(self) -> None:
        """`gmsrt_submit`, and `gmsrt_wait` for it at once."""
        for i in range(self.calls):
            self._submit(i % 2)
            self._wait(i % 2)

    def one_ahead(self) -> None:
        """`gmsrt_submit` of the next before `gmsrt_wait` for the one before."""
        self._submit(0)
        for i in range(1, self.calls):
            self._submit(i % 2)
            self._wait((i - 1) % 2)
        self._wait((self.calls - 1) % 2)

    def _submit(self, which: int) -> None:
        ticket = ctypes.byref(self.tickets[which])
        self._check(
            self.library.gmsrt_submit(self.runner, self._image(which), 1, self._mask(which), None, None, ticket)
        )

    def _wait(self, which: int) -> None:
        self._check(self.library.gmsrt_wait(self.runner, self.tickets[which], -1))

    def _image(self, which: int) -> int:
        return int(self.images[which].ctypes.data)

    def _mask(self, which: int) -> int:
        return int(self.masks[which].ctypes.data)

    def _check(self, status: int) -> None:
        if status:
            check_status(self.library, status)

    def foreign_call_us(self) -> float:
        """Microseconds of a call that does nothing: a wait for no ticket."""
        start = time.perf_counter()
        for _ in range(20000):
            self.library.gmsrt_wait(self.runner, 0, 0)
        return (time.perf_counter() - start) / 20000 * 1e6


def _seconds_of(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(graph: Path, rounds: int, calls: int) -> dict[str, Any]:
    """Milliseconds of one inference in each way, and microseconds over the blocking one."""
    ways = Ways(graph, calls)
    runs = {"blocking": ways.blocking, "one_by_one": ways.one_by_one, "one_ahead": ways.one_ahead}
    masks = {}
    for name, run in runs.items():  # also the warm-up
        ways.masks[:] = 0
        run()
        masks[name] = ways.masks.copy()
    if not all(np.array_equal(mask, masks["blocking"]) for mask in masks.values()):
        raise SystemExit(f"{graph}: the ways do not agree")
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        for name in names[turn % 3 :] + names[: turn % 3]:
            times[name].append(_seconds_of(runs[name]) / calls * 1e3)
    foreign = ways.foreign_call_us()
    ways.library.gmsrt_close(ways.runner)
    over = {
        name: statistics.median(a - b for a, b in zip(times[name], times["blocking"], strict=True)) * 1e3
        for name in names[1:]
    }
    fastest = {name: (min(times[name]) - min(times["blocking"])) * 1e3 for name in names[1:]}
    return {
        "graph": graph.name,
        "runtime": ways.about.runtime.decode(),
        "device": ways.about.device.decode(),
        "ms": {name: statistics.median(values) for name, values in times.items()},
        "us_over_blocking": over,
        "fastest_us_over_blocking": fastest,
        "foreign_call_us": foreign,
        "rounds": rounds,
        "calls": calls,
    }


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graphs", nargs="*", type=Path, help="default: a mean over RGB and a small random network")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(g, options.rounds, options.calls) for g in options.graphs or graphs_in(Path(folder))]
    print(
        f"{'graph':20} {'blocking ms':>11} {'over it, us: 1 by 1':>20} {'one ahead':>10} {'fastest':>15} {'a call':>8}"
    )
    for r in results:
        over, least = r["us_over_blocking"], r["fastest_us_over_blocking"]
        print(
            f"{r['graph']:20} {r['ms']['blocking']:11.3f} {over['one_by_one']:20.1f} {over['one_ahead']:10.1f}"
            f" {least['one_by_one']:7.1f} {least['one_ahead']:7.1f} {r['foreign_call_us']:8.1f}"
        )
    if options.out:
        report = {"machine": platform.machine(), "results": results}
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def graphs_in(folder: Path) -> list[Path]:
    """A graph that computes next to nothing, and a random network that is quick."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from support.native_graphs import conv_graph, mean_graph

    return [mean_graph(folder / "mean-8.onnx"), conv_graph(folder / "random-96x16.onnx", size=96, width=16, depth=4)]


if __name__ == "__main__":
    sys.exit(main())
