"""What workers bring, and what they cost: plain `infer` against `gms-rt scale infer` on this machine.

    python benchmarks/scale.py --engine engines/demo-bf16 --count 2000 --out benchmarks/results/DEVICE/scale.json

Makes mixed images (or takes a folder: --images), and segments them with `gms-rt infer`, and with one and with two
workers as processes and as actors of Ray on this machine. Every run is a process of its own, the whole series is done
--rounds times in turn, and every mask and row is compared with the first plain run's. Reported are the rates from the
first scan to the last table (`whole` is with the start of everything), the gain of two workers over one, memory per
worker, and what the model of `benchmarks/scale_model.py` needs: seconds of a worker per image, of the one who gives
out work per image, and bytes read and written per image. Prints one JSON object. On an idle machine only.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infer_pipeline import write_scans

from gms_rt.artifacts import write_json
from gms_rt.infer.journal import Journal, earlier_entries, entries_in_order
from gms_rt.infer.sources import Source
from gms_rt.runtime.device import package_version, probe
from gms_rt.scale.chunk import FILES, ChunkResult, chunks_from_sources, result_from_line
from gms_rt.scale.stamps import Stamps

ROOT = Path(__file__).resolve().parents[1]
SOURCES = 50_000  # for memory
SCALE = ["scale", "infer"]
SETUPS: dict[str, list[str]] = {
    "infer": ["infer"],
    "processes x1": [*SCALE, "--backend", "processes", "--workers", "1"],
    "processes x2": [*SCALE, "--backend", "processes", "--workers", "2"],
    "ray x1": [*SCALE, "--backend", "ray", "--workers", "1"],
    "ray x2": [*SCALE, "--backend", "ray", "--workers", "2"],
}


def run_once(arguments: list[str], images: Path, engine: Path, out: Path, *, core: bool) -> dict[str, Any]:
    """One run as a process of its own; with `core` on one core of the machine."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "gms_rt", *arguments, str(images), "--engine", str(engine), "--out", str(out)]
    command += ["--json", "--device", "cpu"] if arguments == ["infer"] else ["--json"]
    if core:
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    whole, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    value = json.loads((out / "summary.json").read_text())
    value["whole_seconds"] = whole
    value["processor_seconds"] = sum(after[2:4]) - sum(before[2:4])  # not those of Ray, which are nobody's children
    return value


def content(out: Path) -> dict[str, bytes]:
    """Masks and contours, and the rows without their seconds."""
    found = {str(p.relative_to(out)): p.read_bytes() for p in sorted((out / "masks").rglob("*.png"))}
    with (out / "cases.csv").open(newline="") as stream:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]
    return found | {"cases.csv": json.dumps(rows).encode()}


def median(values: list[float]) -> float:
    """To four digits."""
    return float(f"{statistics.median(values):.4g}")


def report(name: str, values: list[dict[str, Any]], rates: dict[str, float]) -> dict[str, Any]:
    """What the rounds of one setup showed."""
    scale = [value["scale"] for value in values if "scale" in value]
    made = {
        "images_per_second": rates[name],
        "rounds": [value["cases_per_second"] for value in values],
        "whole_seconds": median([value["whole_seconds"] for value in values]),
        "stages": values[-1]["stages"],
    }
    if scale:
        images = values[-1]["segmented"]
        seconds = values[-1]["seconds"]
        made["busy"] = median([each["busy"] for each in scale])
        made["peak_mib_per_worker"] = max(each["peak_mib_per_worker"] for each in scale)
        made["worker_seconds_per_image"] = median([e["busy"] * e["workers"] * seconds / images for e in scale])
    if name.endswith("x2"):
        made["times_one_worker"] = round(rates[name] / rates[name.replace("x2", "x1")], 3)
        made["times_infer"] = round(rates[name] / rates["infer"], 3)
    return made


def driver_cost(out: Path) -> dict[str, float]:
    """What the one who gives out work spends per source, in seconds of a processor, and what a source's memory is."""
    entries = earlier_entries(out)
    lines = [ChunkResult("0", entries[first : first + FILES]).line() for first in range(0, len(entries), FILES)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        with (
            Journal(Path(folder), entries[0].key, resume=False) as journal,
            Stamps(Path(folder), resume=False) as stamps,
        ):
            for line in lines:
                result = result_from_line(line)
                journal.add((e.source, e.digest, e.rows, e.files) for e in result.entries)
                stamps.add((e.source, "0" * 64) for e in result.entries)
        record = time.process_time() - start
        names = [e.source for e in entries]
        start = time.process_time()
        count = sum(1 for _ in entries_in_order(Path(folder), entries[0].key, names))
        order = time.process_time() - start
    before = resident_bytes()
    sources = [Source(Path(f"/archive/study/{i:08}.png"), f"study/{i:08}.png", f"study/{i:08}") for i in range(SOURCES)]
    seen = {source.name: f"{index:064x}" for index, source in enumerate(sources)}
    chunks = list(chunks_from_sources(sources, 100))
    memory = (resident_bytes() - before) / min(len(sources), len(seen), sum(len(chunk.sources) for chunk in chunks))
    return {
        "record_seconds": float(f"{record / count:.3g}"),
        "order_seconds": float(f"{order / count:.3g}"),
        "bytes_on_the_way": round(sum(map(len, lines)) / count),
        "bytes_of_memory": round(memory),
    }


def resident_bytes() -> int:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="a folder of scans instead of drawn ones")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(SETUPS), default=list(SETUPS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    names = [n for n in given.only if importlib.util.find_spec("ray") or not n.startswith("ray")]
    with tempfile.TemporaryDirectory(prefix="gms-rt-scale-bench-") as folder:
        images = given.images or Path(folder, "images")
        if given.images is None:
            write_scans(images, given.count)
        values: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        reference: dict[str, bytes] = {}
        for _ in range(given.rounds):
            for name in names:
                one = name.endswith("x1")  # on one core: what each of two workers has
                out = Path(folder, "out")
                values[name].append(run_once(SETUPS[name], images, given.engine.absolute(), out, core=one))
                made = content(out)
                reference = reference or made
                if made != reference:
                    raise SystemExit(f"{name}: the results differ from those of {names[0]}")
                print(f"{name}: {values[name][-1]['cases_per_second']} images/s", file=sys.stderr)
        rates = {name: median([value["cases_per_second"] for value in values[name]]) for name in names}
        files = [path for path in images.rglob("*") if path.is_file()]
        results = [path for path in Path(folder, "out").rglob("*") if path.is_file() and not path.name.startswith(".")]
        packages = ("openvino", "ray", "pyarrow", "opencv-python-headless")
        value = {
            "what": "gms-rt scale infer against gms-rt infer; x1 is one worker on one core, x2 two workers on two",
            "device": probe().title,
            "cores": len(os.sched_getaffinity(0)),
            "versions": {package: package_version(package) for package in packages},
            "images": len(files),
            "bytes_read_per_image": round(sum(path.stat().st_size for path in files) / len(files)),
            "bytes_written_per_image": round(sum(path.stat().st_size for path in results) / len(files)),
            "results_equal": True,
            "setups": {name: report(name, values[name], rates) for name in names},
            "driver": driver_cost(Path(folder, "out")),
        }
    if given.out:
        write_json(given.out, value)
    print(json.dumps(value, indent=1))


if __name__ == "__main__":
    main()
