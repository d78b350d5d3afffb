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
from gms_rt.scan.flips import FLIPS

_NO_VERDICT = "; no certificate rests on drawn pictures: name some of the model's own with --reference"


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The graph to write  [default: RUN.onnx]")
@click.option("--size", help="Height x width, such as 224 or 256x320  [default: as the run was trained, else 224]")
@click.option("--batch", default="1", show_default=True, help="A batch size, or a range such as 1-8.")
@click.option(
    "--opset", type=int, default=18, show_default=True, help="ONNX operator set: 18 (JetPack 6 reads it) or 21."
)
@click.option("--reference", type=click.Path(path_type=Path), metavar="DIR|FILE", help="Pictures to store with "
              "PyTorch's masks of them: a folder, or a text file of paths; 'phantoms' stores drawn ones only  [default:"
              " up to 24 validation pictures of the run's own data]")  # fmt: skip
@click.option("--flips", type=click.Choice(list(FLIPS)), help="Let the graph average over flips of each image by "
              "itself, for two (horizontal), four (both) or eight times the work.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(
    run: Path,
    out: Path | None,
    size: str | None,
    batch: str,
    opset: int,
    reference: Path | None,
    flips: str | None,
    as_json: bool,
) -> None:
    """Fuse a run's encoder, latent mapping and decoder into one ONNX graph.

    Pixels go in as uint8 and probabilities come out as uint8. Reference pictures and the PyTorch pipeline's masks of
    them are written next to the graph and travel with every engine that is built from it: its certificate is about
    them. No certificate rests on drawn pictures.

    \b
    Examples:
      gms-rt export runs/busi --out busi.onnx
      gms-rt export runs/busi --size 256x320 --batch 1-8 --opset 21
      gms-rt export runs/busi --reference unseen/            pictures of the model's domain
      gms-rt export runs/busi --reference phantoms           store no picture of a patient
      gms-rt export runs/edge --flips horizontal             two views of each image, one graph
    """
    from gms_rt.engine.golden import read_golden

    console = Console(json=as_json)
    height, width = run_size(run, size)
    low, high = _batch(batch)
    target = out if out is not None else Path(f"{run.resolve().name}.onnx")
    if target.suffix != ".onnx":
        raise UsageError("should end in .onnx", where=f"--out {target}")
    try:
        from gms_rt.export.fuse import graph_from_run
        from gms_rt.export.options import ExportOptions
        from gms_rt.model.any_run import check_any_run
    except ImportError as error:
        raise MissingExtraError("export", "train") from error
    check_any_run(run)
    console.note(f"exporting {run} at {height}x{width}")
    start = time.monotonic()
    graph = graph_from_run(run, target, ExportOptions(height, width, (low, high), opset, reference, flips))
    seconds = time.monotonic() - start
    total = stored_bytes(graph)
    golden = read_golden(graph.with_suffix(".golden.npz"))
    facts = {
        "graph": str(graph),
        "golden": str(graph.with_suffix(".golden.npz")),
        "reference": {"source": golden.source, "count": len(golden.images), "synthetic": golden.synthetic},
        "bytes": total,
        "height": height,
        "width": width,
        "batch": [low, high],
        "opset": opset,
        "flips": flips,
        "seconds": round(seconds, 2),
    }
    text = f"wrote {graph} ({total / 2**20:.1f} MiB) in {seconds:.1f} s; next: gms-rt build {graph} --precision fp16"
    console.result(facts, f"{text}\nreference: {golden.source}{_NO_VERDICT if golden.synthetic else ''}")


def _batch(text: str) -> tuple[int, int]:
    """The smallest and the largest batch.

    >>> _batch("1"), _batch("1-8")
    ((1, 1), (1, 8))
    """
    found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    if found is None:
        raise UsageError("is not a batch size", where=f"--batch {text}", fix="give one number or a range such as 1-8")
    return int(found[1]), int(found[2] or found[1])
