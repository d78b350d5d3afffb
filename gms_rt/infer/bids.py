"""Results as a BIDS derivative: names that BIDS has for segmentations, and the files that describe them.

    sub-01/anat/sub-01_desc-gmsrtT1w_dseg.nii.gz     the mask; .json tells how it was made, .tsv what its values are
    sub-01/anat/sub-01_desc-gmsrtT1w_probseg.nii.gz  probabilities, on request, with their .json
    dataset_description.json, README.md, .bidsignore

A scan with a BIDS name keeps its subject, session and the other entities that a segmentation may have. Its suffix, and
what a segmentation may not have, become part of `desc`, so that no two scans share a name; scans of several data sets
are told apart by a hash of their folder. A scan with another name is a subject of its own. What BIDS has no place for
(pictures, tables) stays where it always is, and `.bidsignore` says so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gms_rt import __version__
from gms_rt.artifacts import sha256_bytes, write_bytes, write_json
from gms_rt.class_lists import values_from_classes
from gms_rt.classes import SegmentClass
from gms_rt.colours import hex_from_rgb
from gms_rt.infer.result import SourceResult

BIDS_VERSION = "1.10.0"
_NAME = re.compile(r"(sub-[a-zA-Z0-9]+(?:_[a-z]+-[a-zA-Z0-9+]+)*)_([a-zA-Z0-9]+)")
# What a segmentation's name may have, in BIDS's order.
_ORDER = ("sub", "ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part", "space", "chunk", "atlas", "seg",
          "scale", "res")  # fmt: skip
_KEPT = {
    "anat": set(_ORDER) - {"dir"},
    "func": set(_ORDER),
    "dwi": set(_ORDER) - {"task", "ce", "echo"},
}
_OTHERS = ("fmap", "micr", "perf", "pet")  # of scans whose segmentations BIDS has no folder for: they go to anat
_DATATYPES = {"bold": "func", "cbv": "func", "sbref": "func", "dwi": "dwi"}  # of scans that are given without folders
_LONGEST = 200  # that with `desc` and an ending is still a file name
_IGNORED = "/*\n!/sub-*\n!/dataset_description.json\n!/README.md\n"
_README = """# Segmentations made by gms-rt

Not for clinical use. Made by a program, checked by nobody: `run.json` and `summary.json` tell the engine, its
options and what failed. Values of each `_dseg.nii.gz` are named in the `.tsv` of the same name. `.bidsignore` leaves
out the pictures and tables for which BIDS has no place.
"""


def bids_stem(case: str) -> str:
    """Folder and name, up to the suffix, of a case's results.

    >>> bids_stem("sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w")
    'sub-01/ses-a/anat/sub-01_ses-a_run-2_desc-gmsrtT1w'
    >>> bids_stem("study/brain").startswith("sub-studybrainX")
    True
    """
    folders, _, base = case.rpartition("/")
    found = _NAME.fullmatch(base)
    entities = [part.split("-", 1) for part in found[1].split("_")] if found else []
    if found is None or len({key for key, _ in entities}) != len(entities) or len(base) > _LONGEST:
        label = _label(case)
        return f"sub-{label}/anat/sub-{label}_desc-gmsrt"
    named = dict(entities)
    datatype = folders.rpartition("/")[2] or _DATATYPES.get(found[2], "")
    if datatype not in _KEPT or (datatype == "func" and "task" not in named):
        datatype = "anat"
    kept = {key for key in named if key in _KEPT[datatype]}
    more = "".join(f"{key}{value}" if key != "desc" else value for key, value in entities if key not in kept)
    words = [f"{key}-{named[key]}" for key in _ORDER if key in kept]
    place = [word for word in words if word.startswith(("sub-", "ses-"))]
    # Folders above those of a BIDS name are of another data set.
    above = folders.split("/") if folders else []
    for expected in ({datatype, *_OTHERS}, *({word} for word in reversed(place))):
        above = above[:-1] if above and above[-1] in expected else above
    mark = f"X{_hash('/'.join(above))}" if above else ""
    description = re.sub(r"[^a-zA-Z0-9]", "", f"gmsrt{found[2]}{more}{mark}")
    return "/".join([*place, datatype, "_".join([*words, f"desc-{description}"])])


def _label(case: str) -> str:
    """A subject's label from any name: its letters and digits, and a hash where others were left out."""
    plain = re.sub(r"[^a-zA-Z0-9]", "", case)
    return plain if plain == case and len(case) <= 40 else f"{plain[:40]}X{_hash(case)}"


def _hash(text: str) -> str:
    return sha256_bytes(os.fsencode(text))[:8]


def write_dataset_description(root: Path, engine: str, classes: Sequence[SegmentClass], source: Path | None) -> None:
    """Write what makes the output folder `root` a BIDS derivative; `source` is where the scans are."""
    value: dict[str, Any] = {
        "Name": f"Segmentations by gms-rt with the engine {engine}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "gms-rt",
                "Version": __version__,
                "Description": f"Engine {engine}: {', '.join(each.name for each in classes)}. Not for clinical use.",
            }
        ],
    }
    if source is not None:
        value |= {"SourceDatasets": [{"URL": source.as_uri()}], "DatasetLinks": {"raw": source.as_uri()}}
    write_json(root / "dataset_description.json", value)
    write_bytes(root / "README.md", _README.encode())
    write_bytes(root / ".bidsignore", _IGNORED.encode())


def write_dseg_table(path: Path, result: SourceResult) -> None:
    """Write what the values of a mask are."""
    rows = ["index\tname\tcolor"]
    rows += [f"{value}\t{each.name}\t{hex_from_rgb(each.colour)}" for value, each in enumerate(result.classes, 1)]
    write_bytes(path, ("\n".join(rows) + "\n").encode())


def write_dseg_sidecar(path: Path, result: SourceResult) -> None:
    """Write how a mask was made."""
    write_bytes(path, _sidecar(result, "Segmentation", {}))


def write_probseg_sidecar(path: Path, result: SourceResult) -> None:
    """Write how probabilities were made, and of what they are."""
    write_bytes(path, _sidecar(result, "Probability of the first class", {"LabelMap": [result.classes[0].name]}))


def _sidecar(result: SourceResult, what: str, more: dict[str, Any]) -> bytes:
    maker = result.maker
    value = {
        "Description": f"{what} by gms-rt {maker.version} with the engine {maker.name}. Not for clinical use.",
        "Manual": False,
        "SpatialReference": "orig",
        "SourceSHA256": result.digest,
        "EngineManifestSHA256": maker.fingerprint,
        "EngineCertificateSHA256": maker.certificate,
        "Threshold": maker.options.get("threshold"),
        "Classes": values_from_classes(result.classes),
        **more,
    }
    kept = {key: entry for key, entry in value.items() if entry is not None}
    return (json.dumps(kept, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
