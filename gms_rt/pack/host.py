"""What a host is, and how its texts are made from templates: `@@name@@` stands for a value, nothing else changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from gms_rt import __version__
from gms_rt.errors import UsageError
from gms_rt.pack.contents import EngineContents

_TEMPLATES = Path(__file__).parent / "templates"
_HOLE = re.compile(r"@@(\w+)@@")


@dataclass(frozen=True)
class PackOptions:
    """What the user may say about a folder."""

    licence: Path | None = None  # the model's own licence, copied into each folder; None: what the folder can know
    graph: Path | None = None  # the FP32 graph that the engine was built from; `huggingface` shares it
    ort_web: Path | None = None  # a folder with onnxruntime-web's files; None: from npm, into the user's cache
    batch: int = 0  # most images that a server may join, where the graph's batch is open; 0: 8


Write = Callable[[EngineContents, Path, PackOptions], Mapping[str, str]]


@dataclass(frozen=True)
class Host:
    """A program that runs models. `write` fills a folder and gives the values of its README's holes."""

    name: str
    title: str  # as its makers write it
    write: Write = field(repr=False)
    tried: bool  # whether our tests run the folder; else its README says that they do not
    refused: tuple[str, ...] = ()  # precisions that it cannot run

    def check(self, contents: EngineContents) -> None:
        """Refuse an engine that the host cannot run."""
        precision = contents.manifest.precision
        if precision in self.refused:
            raise UsageError(
                f"{self.title} does not run {precision} graphs on a CPU",
                where=f"--for {self.name}",
                fix="build the engine with --precision fp32, fp16 or int8",
            )


def shared_values(contents: EngineContents) -> dict[str, str]:
    """What the templates of every host may name."""
    manifest = contents.manifest
    return {
        "name": contents.name,
        "batch": str(contents.batch),
        "height": str(manifest.height),
        "width": str(manifest.width),
        "precision": manifest.precision,
        "execution": manifest.execution,
        "version": __version__,
    }


def template(name: str) -> str:
    """A template's text. A program's file has `.in` behind its name, as it is none before its holes are filled."""
    place = _TEMPLATES / name
    return (place if place.suffix != ".py" else place.with_name(f"{place.name}.in")).read_text(encoding="utf-8")


def fill_template(text: str, values: Mapping[str, str]) -> str:
    """A template with its holes filled; one that nobody fills is our mistake.

    >>> fill_template("size @@height@@", {"height": "64"})
    'size 64'
    """
    return _HOLE.sub(lambda hole: values[hole[1]], text)


def write_template(name: str, place: Path, values: Mapping[str, str]) -> None:
    """Write a template, filled, to a file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(fill_template(template(name), values), encoding="utf-8")


def installed_version(package: str, otherwise: str) -> str:
    """The version of a package here, which the folder was made with; else the one it was written for."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return otherwise
