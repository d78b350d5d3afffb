"""A reference from any data: the scans of a folder, and what the FP32 original makes of them.

The original is a run (PyTorch, in a process of its own) or a fused FP32 graph (ONNX Runtime). Scans are read as
`gms-rt infer` reads them, whatever their format. The result is used like a `golden.npz`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import scan
from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes, write_json
from gms_rt.engine.golden import Golden
from gms_rt.engine.manifest import CERTIFICATE
from gms_rt.engine.select import load
from gms_rt.errors import InputError, UsageError
from gms_rt.infer.sources import result_names
from gms_rt.parity.certificate import NO_VERDICT, certificate_from_engine, certify
from gms_rt.peers.client import Peer
from gms_rt.precision.gate import Gate
from gms_rt.scan.mask import mask_from_probability
from gms_rt.scan.reader import SUFFIXES, first_image, is_scan

LIMIT = 200


@dataclass(frozen=True)
class ReferenceData:
    """Scans to certify on, and who says what their masks are."""

    data: Path  # a folder of scans, or one with images/ and the true masks in masks/
    original: Path  # the run, or its fused FP32 graph
    limit: int = LIMIT  # at most this many scans are taken, the first ones


def write_certificate(
    engine: Path,
    reference: ReferenceData | None = None,
    *,
    gate: Gate | None = None,
    device: str | None = None,
    out: Path | None = None,
    trust_plans: bool = False,
) -> tuple[dict[str, Any], Path | None]:
    """The certificate of an engine from its golden file or from data, and where it was written.

    Nothing is written of figures on drawn pictures, which are no verdict; the place is None then.
    A certificate from data is written next to the engine's own, as `parity-<data>.json`.
    """
    if reference is None:
        certificate = certify(engine, device=device, gate=gate, write=False, trust_plans=trust_plans)
        path = out or engine / CERTIFICATE
    else:
        with load(engine, device=device, trust_plans=trust_plans, trust_device=True) as opened:
            info = opened.runner.info
            golden = golden_from_data(reference, info.height, info.width)
            certificate = certificate_from_engine(opened, golden, gate)
        path = out or engine / f"parity-{reference.data.resolve().name}.json"
    if certificate["verdict"] == NO_VERDICT:
        return certificate, None
    write_json(path, certificate)
    return certificate, path


def golden_from_data(reference: ReferenceData, height: int, width: int) -> Golden:
    """Scans at the engine's size, the masks that the original draws, and the true masks where `masks/` is there."""
    data, original = reference.data, reference.original
    files = dict(list(scans_in(data).items())[: reference.limit])
    images = np.stack([scan.resize_image(_image(file), height, width) for file in files.values()])
    truth = _truth(data / "masks", files, height, width)
    what = "onnxruntime" if original.suffix == ".onnx" else "torch-eager"
    with Peer(what, original, original.name, size=(height, width)) as peer:
        if (peer.info.height, peer.info.width) != (height, width):
            raise UsageError(
                f"is of size {peer.info.height}×{peer.info.width}, the engine of {height}×{width}",
                where=original,
                fix="name the run or graph that the engine was built from",
            )
        if peer.info.execution != "f32":
            raise UsageError(
                f"is a graph of {peer.info.execution}, a reference must be FP32",
                where=original,
                fix="name the exported graph, before any precision was applied",
            )
        probabilities = peer.infer(images)
        origin = f"{peer.info.backend}, FP32 of {original.name} on {data.name}"
    digest = sha256_bytes(images.tobytes() + probabilities.tobytes())
    return Golden(images, probabilities, truth, tuple(files), origin, digest)


def scans_in(data: Path) -> dict[str, Path]:
    """The scans of a data folder by the name that `gms-rt infer` would give their results, in order of file name."""
    folder = data / "images" if (data / "images").is_dir() else data
    if not folder.is_dir():
        raise UsageError("is not a folder", where=data, fix="name a folder of scans, or one with images/ and masks/")
    found = _scans(folder)
    if not found:
        raise UsageError("has no scans in it", where=folder, fix=f"files must be DICOM or end in {', '.join(SUFFIXES)}")
    return found


def _scans(folder: Path) -> dict[str, Path]:
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".") and is_scan(f))
    names = result_names(f.name for f in files)
    return {names[f.name]: f for f in files}


def _truth(folder: Path, files: dict[str, Path], height: int, width: int) -> U8 | None:
    if not folder.is_dir():
        return None
    masks = _scans(folder)
    missing = [file.name for name, file in files.items() if name not in masks]
    if missing:
        raise UsageError(f"has no mask for {len(missing)} scans, the first is {missing[0]}", where=folder)
    levels = [_image(masks[name]).max(axis=2) for name in files]
    return np.stack([mask_from_probability(scan.resize_probability(level, height, width)) for level in levels])


def _image(path: Path) -> U8:
    try:
        return first_image(path)
    except InputError as error:
        raise UsageError(error.what, where=path, fix=error.fix) from error
