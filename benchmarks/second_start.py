"""How long an engine takes to open: the first time on a machine, and once its compiled graph is kept.

    python benchmarks/second_start.py --engine engines/demo-fp32 [--engine …] [--rounds 15] [--out second-start.json]

Every start is a fresh process with a cache folder of its own; timed is `gms_rt.load` without the imports before it.
Per round and engine, in turn:

- first: nothing is known; the graph is tried in a process of its own, compiled, and kept
- known: the graph has passed its trial, but nothing compiled is kept
- second: both are there

The figures are medians over the rounds; the ratios are medians of each round's ratio, because other load on the machine
then meets both sides alike. The masks of all starts are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from gms_rt import __version__
from gms_rt.engine.select import load
from gms_rt.runtime.device import probe

LIMIT = 0.55


def start(engine: Path) -> dict[str, Any]:
    """Open an engine in this process: how long it took, and a hash of the masks of some random images."""
    began = time.perf_counter()
    with load(engine, device="cpu") as opened:
        opened_after = time.perf_counter() - began
        info = opened.runner.info
        images = np.random.default_rng(0).integers(0, 256, (info.batch, info.height, info.width, 3), np.uint8)
        masks = opened.runner.infer(images)
        return {"seconds": opened_after, "masks": hashlib.sha256(masks.tobytes()).hexdigest(), **info.details}


def fresh_start(engine: Path, cache: Path) -> dict[str, Any]:
    """The same in a fresh process with this cache folder."""
    environment = {k: v for k, v in os.environ.items() if k != "GMS_RT_CACHE"} | {"XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, __file__, "--start", str(engine)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{engine}: {done.stderr}")
    return dict(json.loads(done.stdout))


def measure(engine: Path, rounds: int) -> dict[str, Any]:
    """Seconds and ratios of one engine."""
    seconds: dict[str, list[float]] = {"first": [], "known": [], "second": []}
    masks = set()
    runtime = ""
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("first", "second", "known"):
                if kind == "known":
                    for blob in (Path(folder) / "gms-rt" / "compiled").iterdir():
                        blob.unlink()
                about = fresh_start(engine, Path(folder))
                seconds[kind].append(about["seconds"])
                masks.add(about["masks"])
                runtime = about["runtime"]
    if len(masks) != 1:
        raise SystemExit(f"{engine}: the masks of the starts differ")
    return {
        "engine": engine.name,
        "runtime": runtime,
        "rounds": rounds,
        "seconds": {kind: statistics.median(values) for kind, values in seconds.items()},
        "second_to_first": statistics.median(b / a for a, b in zip(seconds["first"], seconds["second"], strict=True)),
        "second_to_known": statistics.median(b / a for a, b in zip(seconds["known"], seconds["second"], strict=True)),
        "masks": "the same bytes in all starts",
    }


def main() -> int:
    """Measure, print a table, write JSON; 1 if a second start takes more than the limit of one that has to compile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        print(json.dumps(start(options.start)))
        return 0
    results = [measure(engine, options.rounds) for engine in options.engine]
    cpu = probe().cpu
    print(f"{cpu.name}, {cpu.cores} cores, {results[0]['runtime'] if results else ''}")
    print(f"{'engine':20} {'first s':>8} {'known s':>8} {'second s':>9} {'second/first':>13} {'second/known':>13}")
    for r in results:
        first, known, second = (r["seconds"][kind] for kind in ("first", "known", "second"))
        ratios = f"{r['second_to_first']:13.3f} {r['second_to_known']:13.3f}"
        print(f"{r['engine']:20} {first:8.3f} {known:8.3f} {second:9.3f} {ratios}")
    if options.out:
        device = {"name": cpu.name, "cores": cpu.cores, "features": list(cpu.features)}
        versions = {"gms_rt": __version__, "python": platform.python_version()}
        report = {"device": device, "versions": versions, "limit": LIMIT, "results": results}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(any(max(r["second_to_first"], r["second_to_known"]) > LIMIT for r in results))


if __name__ == "__main__":
    sys.exit(main())
