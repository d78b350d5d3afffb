"""What one call of `benchmarks/paper/run` asks for, and which of the paper's data sets its folder has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gms_rt.data.layouts import found_below
from gms_rt.evaluate.published import key_of
from gms_rt.evaluate.published_systems import DATASETS

TABLES = ("1", "2", "3", "4", "5", "figures", "reconstruction")


@dataclass(frozen=True)
class Folder:
    """A data set that is there."""

    key: str  # as the published tables spell it
    path: Path
    splits: Path | None  # lists of names beside it: DATA/splits/KEY.json


@dataclass(frozen=True)
class Order:
    """One call."""

    data: dict[str, Folder]  # what is there of the paper's five data sets
    tables: tuple[str, ...]
    systems: tuple[str, ...]  # keys of published_systems that are trained here
    work: Path  # everything that is trained and tested
    out: Path  # tables and figures
    tokenizer: str = "sd-vae"  # of GMS
    tokenizers: tuple[str, ...] = ("vq", "sd-vae")  # of table 5 and the reconstruction
    minutes: float = 60.0  # of each training; 0 trains as the recipe `paper` says
    device: str = "cpu"
    settings: tuple[str, ...] = ()  # more settings of every recipe, key=value
    every: int = 1  # of the test cases, every Nth

    def folder(self, key: str) -> Folder | None:
        """The folder of a data set, if it is there."""
        return self.data.get(key)


def folders_below(data: Path) -> dict[str, Folder]:
    """The paper's data sets in the folders below `data`."""
    found: dict[str, Folder] = {}
    for path, dataset in found_below(data).items():
        key = key_of(dataset.name)
        if key in DATASETS and key not in found:
            lists = data / "splits" / f"{key}.json"
            found[key] = Folder(key, path, lists if lists.is_file() else None)
    return found
