"""`gms-rt export`: fuse a trained run into one ONNX graph."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from gms_rt.cli.console import Console
from gms_rt.errors import MissingExtraError, UsageError
from gms_rt.graph.write import stored_bytes
from gms_rt.model.size import run_size


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The graph to write  [default: RUN.onnx]")
@click.option("--size", help="Height x width, such as 224 or 256x320  [default: as the run was trained, else 224]")
@click.option("--batch", default="1", show_default=True, help="A batch size, or a range such as 1-8.")
@click.option(
    "--opset", type=int, default=18, show_default=True, help="ONNX operator set: 18 (JetPack 6 reads it) or 21."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(run: Path, out: Path | None, size: str | None, batch: str, opset: int, as_json: bool) -> None:
    """Fuse a run's encoder, latent mapping and decoder into one ONNX graph.

    Pixels go in as uint8 and probabilities come out as uint8. Reference results of the PyTorch pipeline are written
    next to the graph.

    \b
    Examples:
      gms-rt export runs/busi --out busi.onnx
      gms-rt export runs/busi --size 256x320 --batch 1-8 --opset 21
    """
    console = Console(json=as_json)
    height, width = run_size(run, size)
    low, high = _batch(batch)
    target = out if out is not None else Path(f"{run.resolve().name}.onnx")
    if target.suffix != ".onnx":
        raise UsageError("should end in .onnx", where=f"--out {target}")
    try:
        from gms_rt.export.fuse import ExportOptions, graph_from_run
        from gms_rt.model.run import check_run
    except ImportError as error:
        raise MissingExtraError("export", "train") from error
    check_run(run)
    console.note(f"exporting {run} at {height}x{width}")
    start = time.monotonic()
    graph = graph_from_run(run, target, ExportOptions(height, width, (low, high), opset))
    seconds = time.monotonic() - start
    total = stored_bytes(graph)
    facts = {
        "graph": str(graph),
        "golden": str(graph.with_suffix(".golden.npz")),
        "bytes": total,
        "height": height,
        "width": width,
        "batch": [low, high],
        "opset": opset,
        "seconds": round(seconds, 2),
    }
    text = f"wrote {graph} ({total / 2**20:.1f} MiB) in {seconds:.1f} s; next: gms-rt build {graph} --precision fp16"
    console.result(facts, text)


def _batch(text: str) -> tuple[int, int]:
    """The smallest and the largest batch.

    >>> _batch("1"), _batch("1-8")
    ((1, 1), (1, 8))
    """
    found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    if found is None:
        raise UsageError("is not a batch size", where=f"--batch {text}", fix="give one number or a range such as 1-8")
    return int(found[1]), int(found[2] or found[1])
