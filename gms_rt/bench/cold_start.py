"""Opening an engine in a fresh process: load time, first inference, peak memory.

A process of its own, because caches of an earlier engine in the same process would make the second one look better.
Run as `python -m gms_rt.bench.cold_start ENGINE DEVICE THREADS TRUST_PLANS` it prints one JSON object.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

from gms_rt.bench.results import ColdStart
from gms_rt.peers.child import child_environment, peak_resident_bytes

_LIMIT_SECONDS = 600


def cold_start(engine: Path, *, device: str | None = None, threads: int = 0, trust_plans: bool = False) -> ColdStart:
    """Measure one engine in a fresh process."""
    options = [device or "", str(threads), str(int(trust_plans))]
    command = [sys.executable, "-m", "gms_rt.bench.cold_start", str(engine), *options]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False, env=child_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return ColdStart(None, None, None, None, why=f"a fresh process could not be measured ({error})")
    lines = run.stdout.strip().splitlines()
    if run.returncode or not lines:
        reason = (run.stderr.strip().splitlines() or [f"status {run.returncode}"])[-1]
        return ColdStart(None, None, None, None, why=f"the fresh process failed ({reason})")
    return ColdStart(**json.loads(lines[-1]))


def _measure(engine: Path, device: str | None, threads: int, trust_plans: bool) -> ColdStart:
    import numpy as np

    from gms_rt.bench.nvml import open_nvml
    from gms_rt.engine.select import load

    before = peak_resident_bytes()
    nvml, _ = open_nvml()
    used = nvml.read("memory") if nvml else None
    start = time.perf_counter()
    with load(engine, device=device, threads=threads, trust_plans=trust_plans, trust_device=True) as opened:
        loaded = time.perf_counter()
        info = opened.runner.info
        opened.runner.infer(np.zeros((info.batch, info.height, info.width, 3), np.uint8))
        first = time.perf_counter()
        device_bytes = None
        if nvml and used is not None and info.backend != "cpu":
            device_bytes = max(0, (nvml.read("memory") or used) - used)
    return ColdStart((loaded - start) * 1e3, (first - loaded) * 1e3, peak_resident_bytes(), before, device_bytes)


if __name__ == "__main__":
    _engine, _device, _threads, _trust = sys.argv[1:5]
    _found = _measure(Path(_engine), _device or None, int(_threads), _trust == "1")
    sys.stdout.write(json.dumps(dataclasses.asdict(_found)) + "\n")
