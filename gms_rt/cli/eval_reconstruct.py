"""`gms-rt eval --reconstruct`: what a tokenizer alone loses of a data set's images and masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gms_rt.artifacts import check_apart
from gms_rt.cli.console import Console, table
from gms_rt.errors import CasesFailedError, UsageError

_HEADER = ["", "mask DSC", "95 % interval", "mask IoU", "mask HD95", "PSNR dB", "SSIM"]


@dataclass(frozen=True)
class ReconstructionOptions:
    """What one call reconstructs."""

    data: Path
    lists: Path | None  # names of the cases of each part
    part: str  # of the data set
    every: int
    tokenizer: str
    size: int
    device: str | None
    console: Console


def print_reconstruction(options: ReconstructionOptions, out: Path) -> None:
    """Reconstruct, write and print."""
    from gms_rt.cli.extras import train_extra

    train_extra("the reconstruction by a tokenizer")
    from gms_rt.data.layouts import recognise
    from gms_rt.evaluate.choice import chosen_cases
    from gms_rt.evaluate.reconstruction import Reconstructor, evaluate_reconstruction
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.model.reconstruction import reconstruction_from_tokenizer
    from gms_rt.train.device import torch_device

    console = options.console
    dataset, where = recognise(options.data), torch_device(options.device or "cpu")
    check_apart(out, dataset.root)
    tokenizer = load_tokenizer(options.tokenizer, note=console.note)
    stride = tokenizer.spec.stride
    if options.size % stride:
        raise UsageError(
            f"{options.size} is not a multiple of the tokenizer's stride {stride}",
            where="--size",
            fix=f"use --size {max(1, round(options.size / stride)) * stride}",
        )
    cases, source = chosen_cases(dataset, options.part, file=options.lists, every=options.every)
    facts = {
        "tokenizer": options.tokenizer,
        "tokenizer_sha256": tokenizer.weights_sha256(),
        "data": dataset.name,
        "split": options.part,
        "every": options.every,
        "split_source": source,
    }
    with console.progress(f"reconstruct {dataset.name}", len(cases)) as bar:
        what = Reconstructor(reconstruction_from_tokenizer(tokenizer, where), options.size, facts, bar.advance)
        summary = evaluate_reconstruction(cases, what, out)
    console.result(summary, _text(summary, out))
    if summary["cases"]["failed"]:
        raise CasesFailedError(f"{summary['cases']['failed']} cases failed", where=out / "reconstruction.csv")


def _text(summary: dict[str, Any], out: Path) -> str:
    mask, image, cases = summary["mask"], summary["image"], summary["cases"]
    factors = {"dice": 100, "iou": 100, "hd95": 1}
    cells = [f"{mask[name]['mean'] * factor:.2f}" if mask[name] else "-" for name, factor in factors.items()]
    low, high = mask["dice"]["interval95"] if mask["dice"] else (0.0, 0.0)
    psnr = f"{image['psnr']['mean']:.2f}" if image["psnr"] else "-"
    ssim = f"{image['ssim']['mean']:.4f}" if image["ssim"] else "-"
    label = f"{summary['tokenizer']}, {summary['size']}x{summary['size']}"
    row = [label, cells[0], f"{100 * low:.2f}-{100 * high:.2f}" if mask["dice"] else "-", *cells[1:], psnr, ssim]
    return "\n".join(
        [
            table([row], header=_HEADER),
            f"{cases['all']} cases, {cases['failed']} failed; each encoded and decoded, nothing predicted: the mask's "
            "DSC is the most that a model with this tokenizer can reach at this size",
            f"{out}/reconstruction.csv, {out}/reconstruction.json",
        ]
    )
