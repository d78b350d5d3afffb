"""`gms-rt adopt`: somebody else's segmentation model becomes a graph that every other verb takes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import click

from gms_rt.cli.console import Console
from gms_rt.errors import UsageError

_EXAMPLES = """\b
Examples:
  gms-rt adopt unet.onnx --activation sigmoid --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  gms-rt adopt segformer.onnx --activation argmax --channel 1,2 --size 512 --reference scans/
  gms-rt adopt monai.onnx --activation softmax --z-score --classes organ.toml --out organ.onnx
  gms-rt build organ.onnx --precision int8 --calib scans/"""


@click.command("adopt", epilog=_EXAMPLES)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--activation", required=True, type=click.Choice(["sigmoid", "softmax", "argmax", "none", "labels"]),
              help="What the model's output still needs: sigmoid or softmax on logits, argmax where the largest score "
              "wins, none on probabilities, labels on class numbers.")  # fmt: skip
@click.option("--mean", default="0", show_default=True, help="What is taken from pixel / scale: one number, or one "
              "per channel in the model's order.")  # fmt: skip
@click.option("--std", default="1", show_default=True, help="What that is divided by.")
@click.option("--scale", type=float, default=255.0, show_default=True, help="What grey levels of 0 to 255 are divided "
              "by first; 1 for a model that takes 0 to 255.")  # fmt: skip
@click.option("--z-score", is_flag=True, help="Instead: take each picture's own mean, divide by its own deviation, per "
              "channel.")  # fmt: skip
@click.option("--colour", type=click.Choice(["rgb", "bgr"]), default="rgb", show_default=True, help="Order of the "
              "model's channels.")  # fmt: skip
@click.option("--layout", type=click.Choice(["auto", "nchw", "nhwc"]), default="auto", show_default=True, help="Of "
              "input and output.")  # fmt: skip
@click.option("--channel", "channels", multiple=True, metavar="LIST", help="Classes that are foreground, from 0; "
              "repeatable or separated by commas  [default: all but class 0, or the only one]")  # fmt: skip
@click.option("--output", default="", metavar="NAME", help="Which output it is, where the model has several.")
@click.option("--size", help="Height x width where the model leaves them open: 256 or 256x320.")
@click.option("--batch", type=click.IntRange(1, 1024), default=1, show_default=True, help="Images at once.")
@click.option("--classes", type=click.Path(path_type=Path), help="Names, codes and colours of what the mask shows: "
              "TOML or dcmqi's JSON.")  # fmt: skip
@click.option("--reference", type=click.Path(path_type=Path), metavar="DIR|FILE", help="Pictures to store with the "
              "model's own masks of them: a folder, or a text file of paths  [default: drawn ones]")  # fmt: skip
@click.option("--runtime", type=click.Choice(["openvino", "onnxruntime"]), default="openvino", show_default=True,
              help="What computes the model's own masks, in FP32.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="The graph to write  [default: MODEL-adopted.onnx]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def command(model: Path, as_json: bool, **given: Any) -> None:
    """Wrap a segmentation model (ONNX) so that build, bench, infer, parity and serve take it as one of their own.

    Pixels go in as uint8 and probabilities come out as uint8; normalisation, activation and rounding are written into
    the graph, resizing is outside. The model's own masks of reference pictures are stored next to it, computed from
    the file as it came; the wrapped graph must agree with them. No certificate rests on drawn pictures: name some of
    the model's own with --reference. Needs no torch.
    """
    from gms_rt.adopt.adopt import graph_from_foreign
    from gms_rt.adopt.options import AdoptOptions
    from gms_rt.class_lists import classes_from_file

    target = given["out"] or Path(f"{model.stem}-adopted.onnx")
    if target.suffix != ".onnx":
        raise UsageError("should end in .onnx", where=f"--out {target}")
    options = AdoptOptions(
        **{name: given[name] for name in ("activation", "scale", "z_score", "colour", "layout", "output", "batch")},
        mean=_numbers(given["mean"], "--mean"),
        std=_numbers(given["std"], "--std"),
        channels=_whole_numbers(given["channels"]),
        size=_size(given["size"]),
    )
    classes = () if given["classes"] is None else classes_from_file(given["classes"])
    found = graph_from_foreign(
        model, target, options, reference=given["reference"], classes=classes, runtime=given["runtime"]
    )
    value = dataclasses.asdict(found) | {"graph": str(found.graph), "golden": str(found.golden)}
    kind = "grey" if found.channels == 1 else "colour"
    drawn = "; no certificate rests on drawn pictures: name some of the model's own with --reference"
    lines = [
        f"wrote {found.graph}: {found.height}x{found.width}, {kind}, {found.gflop:.3g} GFLOP; "
        f"next: gms-rt build {found.graph} --precision fp16",
        f"as the model answers on {found.runtime}: at most {found.largest_difference} of 255 levels apart",
        f"reference: {found.pictures}{drawn if found.synthetic else ''}",
    ]
    Console(json=as_json).result(value, "\n".join(lines))


def _numbers(text: str, where: str) -> tuple[float, ...]:
    """Numbers between commas.

    >>> _numbers("0.5, 0.25,1", "--mean")
    (0.5, 0.25, 1.0)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"'{text}' is not numbers", where=where, fix="write 0.485,0.456,0.406") from error


def _whole_numbers(texts: tuple[str, ...]) -> tuple[int, ...]:
    """Whole numbers, repeated or between commas.

    >>> _whole_numbers(("1,3", "4"))
    (1, 3, 4)
    """
    parts = [part.strip() for text in texts for part in text.split(",")]
    wrong = next((part for part in parts if not re.fullmatch(r"\d{1,4}", part)), None)
    if wrong is not None:
        raise UsageError(f"'{wrong}' is not a class", where="--channel", fix="classes are counted from 0: 1 or 1,2")
    return tuple(int(part) for part in parts)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if found is None:
        raise UsageError("is not a size", where=f"--size {text}", fix="give one number or HEIGHTxWIDTH")
    return int(found[1]), int(found[2] or found[1])
