"""Search for the bundled model's INT8 recipe on many phantoms and bundle it: `python calibration/record_demo.py`.

A build on a user's machine then applies and judges it, which takes seconds. The gate is stricter here than there, and
the phantoms are others than those of the build's gate and of the reference pictures.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from gms_rt.artifacts import write_bytes
from gms_rt.demo.bundled import demo_graph
from gms_rt.demo.seeds import CALIBRATION_SEEDS, SEARCH_SEEDS
from gms_rt.engine.build import build_engine
from gms_rt.engine.images import phantoms
from gms_rt.engine.request import BuildRequest
from gms_rt.graph.read import graph_size
from gms_rt.precision.gate import Gate
from gms_rt.precision.recipe import RECIPE_FILE

STRICT = Gate(mean=0.997, minimum=0.985)


def main() -> None:
    """Search, and write the recipe next to the bundled graph."""
    graph = demo_graph()
    size = graph_size(graph)
    last = ""

    def report(phase: str, done: int, total: int) -> None:
        nonlocal last
        if phase != last:
            click.echo(f"{phase} ({total})")
        last = phase

    # A fixed place, so that an interrupted search goes on.
    folder = Path(tempfile.gettempdir()) / "gms-rt-record-demo"
    request = BuildRequest(
        graph,
        folder,
        "int8",
        targets=("cpu",),
        calibration=phantoms(CALIBRATION_SEEDS, *size),
        gate_images=phantoms(SEARCH_SEEDS, *size),
        gate=STRICT,
        force=True,
    )
    manifest = build_engine(request, report).manifest
    write_bytes(graph.parent / RECIPE_FILE, (folder / RECIPE_FILE).read_bytes())
    click.echo(f"wrote {graph.parent / RECIPE_FILE}: {manifest.gate}")


if __name__ == "__main__":
    main()
