"""The options of `gms-rt infer`, in the order in which its help shows them, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import click

from gms_rt.cli.trust_options import graph_option, trust_options
from gms_rt.infer.options import FOLDERS, LAYOUTS, InferOptions
from gms_rt.scan import MAX_PIXELS
from gms_rt.scan.flips import FLIPS

_Command = Callable[..., Any]
_Options: TypeAlias = tuple[Callable[[_Command], _Command], ...]


def options_from_flags(flags: dict[str, Any], *, dicom_seg: bool) -> InferOptions:
    """What is asked for; overlays, where nobody says, unless they would show a person or have no pixels to show."""
    flags = dict(flags)
    overlays, probabilities = flags.pop("overlay"), flags.pop("probability")
    if overlays is None:
        overlays = not (flags.get("deidentify") or flags["reduced_jpeg"])
    return InferOptions(dicom_seg=dicom_seg, overlays=overlays, probabilities=probabilities, **flags)


def infer_options(command: _Command) -> _Command:
    """Add all options to the verb's function."""
    return _with(command, _OPTIONS)


def archive_options(command: _Command) -> _Command:
    """Add those that a run over an archive shares with the verb."""
    return _with(command, (*_MASKS, *_NIFTI, *_SERIES, *_EARLIER, *_LIMITS))


def _with(command: _Command, options: _Options) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


_MASKS: _Options = (
    click.option(
        "--threshold", type=float, default=0.5, show_default=True, help="Lowest probability that counts as foreground."
    ),
    click.option(
        "--tta", is_flag=True, help="Average over flips of each image, for two, four or eight times the work."
    ),
    click.option(
        "--flips",
        type=click.Choice(list(FLIPS)),
        help="Flips that --tta averages over: horizontal where up and down differ, as in ultrasound; quarter-turns "
        "(eight views, square models only) where no direction differs, as under a microscope  [default: both].",
    ),
    click.option(
        "--tile",
        type=int,
        default=0,
        help="Segment large images in tiles of this many pixels  [default: whole images].",
    ),
    click.option(
        "--overlap", type=float, default=0.25, show_default=True, help="Share of a tile that overlaps its neighbours."
    ),
    click.option("--largest", is_flag=True, help="Keep only the largest region of each mask."),
    click.option("--fill-holes", is_flag=True, help="Fill holes inside regions of the mask."),
    click.option("--min-area", type=int, default=0, help="Remove regions with fewer pixels than this."),
    click.option("--refer-below", type=float, help="List cases with a confidence below this for a person to look at."),
    click.option(
        "--overlay/--no-overlay",
        default=None,
        help="Write each image with its mask drawn over it  [default: overlay, but not with --deidentify or "
        "--reduced-jpeg].",
    ),
    click.option(
        "--reduced-jpeg",
        is_flag=True,
        help="Decode large JPEG files at a half, quarter or eighth of their size, which is up to three times as fast; "
        "masks keep the size of the source and may differ by a few pixels at their edge. Not with overlays or --tile.",
    ),
    click.option(
        "--contours/--no-contours",
        default=True,
        show_default=True,
        help="Write the outlines of each mask as polygons in JSON.",
    ),
    click.option(
        "--probability", is_flag=True, help="Write each probability map as PNG, 0-255; with NIfTI also as NIfTI, 0-1."
    ),
    click.option(
        "--dicom-seg/--no-dicom-seg",
        default=None,
        help="Write DICOM SEG for DICOM input  [default: if highdicom is installed].",
    ),
    click.option(
        "--dicom-fractional", is_flag=True, help="Write probabilities of DICOM input as fractional DICOM SEG."
    ),
    click.option(
        "--dicom-report", is_flag=True, help="Write measurements of DICOM input as a structured report (TID 1500)."
    ),
)
_NIFTI: _Options = (
    click.option(
        "--nifti/--no-nifti",
        default=None,
        help="Write masks as NIfTI, with --probability also probabilities  [default: for NIfTI input].",
    ),
)
_SERIES: _Options = (
    click.option(
        "--series/--no-series",
        "series",
        default=True,
        show_default=True,
        help="Take the slices of a DICOM series as one case, or each file as a case of its own.",
    ),
    click.option(
        "--slices",
        is_flag=True,
        help="Of a series, too, write masks, overlays and contours slice by slice  [default: one file].",
    ),
)
_EARLIER: _Options = (
    click.option(
        "--continue",
        "resume",
        is_flag=True,
        help="Skip sources that an earlier run finished and that have not changed.",
    ),
    click.option("--replace", is_flag=True, help="Delete results of other scans that the output folder holds."),
)
_LIMITS: _Options = (
    click.option(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        show_default=True,
        help="Refuse images with more pixels than this before reading them.",
    ),
)
_OPTIONS: _Options = (
    click.option(
        "--engine", type=click.Path(), help="Engine folder  [default: the newest in engines/ that fits this device]."
    ),
    click.option("--out", type=click.Path(), help="Output folder  [default: gms-rt-out/ and the name of the input]."),
    click.option("--device", help="Device to run on: cpu, cuda or cuda:N  [default: a GPU if the engine fits one]."),
    trust_options,
    graph_option,
    *_MASKS,
    click.option(
        "--deidentify",
        is_flag=True,
        help="Replace names, dates and identifiers in all results; text burned into images stays in overlays.",
    ),
    *_NIFTI,
    click.option(
        "--layout",
        type=click.Choice(LAYOUTS),
        default=FOLDERS,
        show_default=True,
        help="How masks of volumes are named: a folder for each kind of file, or a BIDS derivative.",
    ),
    *_SERIES,
    click.option(
        "--overlay-video", is_flag=True, help="Write an MP4 with the masks drawn in, for videos and multi-frame files."
    ),
    *_EARLIER,
    click.option(
        "--watch",
        "watched",
        type=click.Path(),
        help="Segment what is in this folder and what arrives there, until Ctrl-C.",
    ),
    click.option(
        "--settle",
        type=float,
        default=2.0,
        show_default=True,
        help="Seconds for which a file must not change before --watch takes it.",
    ),
    *_LIMITS,
    click.option(
        "--workers",
        type=int,
        default=0,
        help="Threads that read scans, and as many that write files  [default: one per core, at most 4].",
    ),
    click.option("--threads", type=int, default=0, help="CPU threads of the engine  [default: all cores]."),
    click.option("--quiet", is_flag=True, help="Print only results and errors."),
    click.option("--json", "as_json", is_flag=True, help="Print events as JSON on stdout, one object per line."),
)
