"""How many workers an archive can use: a queue model with service times that `benchmarks/scale.py` measured.

    python benchmarks/scale_model.py --measured benchmarks/results/DEVICE/scale.json --gbit 10
    python benchmarks/scale_model.py --work 0.086 --record 0.000031 --moved 437000 --gbit 10

Workers take chunks of 64 images. Each chunk is fetched from one storage (a queue: its bytes take what its link needs,
after a delay per request), segmented in the measured seconds (times that vary by --spread), and recorded by the one
who gives out work (another queue). Events are simulated one by one, for 1 to 1,000 workers, until the rate is steady;
the station that is busiest is the next bottleneck. Prints one JSON object: rate, busy shares and days for --studies of
--images each. It knows nothing of what it was not told: failures, other users of the storage, machines that differ.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
CHUNK = 64


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes of one image."""

    work: float  # of a worker
    record: float  # of the one who gives out work
    moved: float  # bytes read and written
    link: float  # bytes per second of the storage
    delay: float  # seconds of a request, which others' requests overlap with
    spread: float = 0.2  # of a chunk's time, as a share of its mean


def simulate(workers: int, costs: Costs, *, chunks_each: int = 40, seed: int = 0) -> dict[str, float]:
    """The steady rate of so many workers, and how busy each station is.

    >>> costs = Costs(work=0.1, record=0.0001, moved=1e6, link=1e9, delay=0.0, spread=0.0)
    >>> [round(simulate(count, costs)["images_per_second"]) for count in (1, 10, 1000)]
    [10, 100, 1000]
    """
    chance = random.Random(seed)
    storage_free = driver_free = 0.0
    busy = {"storage": 0.0, "driver": 0.0, "workers": 0.0}
    fetch, record = CHUNK * costs.moved / costs.link, CHUNK * costs.record
    # (time, number, stage): 0 wants its scans, 1 has them, 2 has its results
    events = [(chance.random() * CHUNK * costs.work, number, 0) for number in range(workers)]
    heapq.heapify(events)
    wanted, begun = workers * chunks_each, workers * chunks_each // 4
    done, clock, since = 0, 0.0, 0.0
    while done < wanted:
        clock, number, stage = heapq.heappop(events)
        if stage == 0:
            # A worker fetches while it computes; only the storage's queue makes it wait.
            storage_free = max(storage_free, clock) + fetch
            busy["storage"] += fetch
            heapq.heappush(events, (storage_free + costs.delay, number, 1))
        elif stage == 1:
            spent = CHUNK * costs.work * max(0.1, chance.gauss(1.0, costs.spread) if costs.spread else 1.0)
            busy["workers"] += spent
            # What the fetching took is part of the measured work where the worker need not wait for others.
            heapq.heappush(events, (clock + max(0.0, spent - fetch - costs.delay), number, 2))
        else:
            driver_free = max(driver_free, clock) + record
            busy["driver"] += record
            done += 1
            if done == begun:
                since, busy = driver_free, dict.fromkeys(busy, 0.0)
            heapq.heappush(events, (clock, number, 0))  # the next chunk is there already
    seconds = max(driver_free, clock) - since
    return {
        "workers": workers,
        "images_per_second": CHUNK * (done - begun) / seconds,
        "storage_busy": min(1.0, busy["storage"] / seconds),
        "driver_busy": min(1.0, busy["driver"] / seconds),
        "workers_busy": min(1.0, busy["workers"] / seconds / workers),
    }


def bottleneck(row: dict[str, float]) -> str:
    """The busiest station of a simulation."""
    return max(("workers", "storage", "driver"), key=lambda name: row[f"{name}_busy"])


def table(costs: Costs, images: float) -> list[dict[str, Any]]:
    """A row for each number of workers."""
    rows = []
    for workers in COUNTS:
        row = simulate(workers, costs)
        rates = {key: round(value, 3) for key, value in row.items() if key != "workers"}
        days = round(images / row["images_per_second"] / 86400, 2)
        rows.append({"workers": workers, **rates, "days": days, "bottleneck": bottleneck(row)})
    return rows


def _measured(report: Path, setup: str) -> dict[str, float]:
    """What a report of benchmarks/scale.py says of one image."""
    value = json.loads(report.read_text())
    return {
        "work": value["setups"][setup]["worker_seconds_per_image"],
        "record": value["driver"]["record_seconds"] + value["driver"]["order_seconds"],
        "moved": value["bytes_read_per_image"] + value["bytes_written_per_image"],
    }


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, help="what benchmarks/scale.py wrote")
    parser.add_argument("--work", type=float, help="seconds of a worker per image, instead of the measured ones")
    parser.add_argument("--record", type=float, help="seconds of the one who gives out work, per image")
    parser.add_argument("--moved", type=float, help="bytes read and written per image")
    parser.add_argument("--setup", default="processes x2")
    parser.add_argument("--gbit", type=float, default=10.0, help="of the storage's link per second")
    parser.add_argument("--delay", type=float, default=0.02, help="seconds of a request to the storage")
    parser.add_argument("--spread", type=float, default=0.2)
    parser.add_argument("--studies", type=float, default=10e6)
    parser.add_argument("--images", type=float, default=1.0, help="per study")
    given = parser.parse_args()
    found = _measured(given.measured, given.setup) if given.measured else {}
    for name in ("work", "record", "moved"):
        if getattr(given, name) is not None:
            found[name] = getattr(given, name)
    if len(found) < 3:
        parser.error("give --measured, or all of --work, --record and --moved")
    costs = Costs(**found, link=given.gbit * 1e9 / 8, delay=given.delay, spread=given.spread)
    limits = {"storage": costs.link / costs.moved, "driver": 1 / costs.record}
    value = {
        "costs": vars(costs),
        "images_per_second_at_most": {name: round(rate) for name, rate in limits.items()},
        "workers_until": {name: round(rate * costs.work) for name, rate in limits.items()},
        "table": table(costs, given.studies * given.images),
    }
    print(json.dumps(value, indent=1))


if __name__ == "__main__":
    main()
