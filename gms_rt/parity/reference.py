"""A reference from any data: pictures of a folder, and what the FP32 original makes of them.

The original is a run (PyTorch, in a process of its own) or a fused FP32 graph (ONNX Runtime). The result is used like
a `golden.npz`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gms_rt import scan
from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_bytes, write_json
from gms_rt.errors import InputError, UsageError
from gms_rt.parity.certificate import CERTIFICATE, GATE_MEAN, GATE_MIN, Golden, certificate_of, certify

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
LIMIT = 200


def golden_from_data(data: Path, original: Path, height: int, width: int, *, limit: int = LIMIT) -> Golden:
    """Pictures of `data` (or `data/images`, with truth in `data/masks`) and the masks that `original` draws."""
    from gms_rt.peers.client import Peer

    files = pictures_in(data)[:limit]
    images = np.stack([scan.resize_image(scan.rgb(_read(f)), height, width) for f in files])
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
    return Golden(images, probabilities, truth, tuple(f.stem for f in files), origin, digest)


def certify_engine(
    engine: Path,
    *,
    data: Path | None = None,
    reference: Path | None = None,
    limit: int = LIMIT,
    gate_mean: float = GATE_MEAN,
    gate_min: float = GATE_MIN,
    device: str | None = None,
    out: Path | None = None,
) -> tuple[dict[str, Any], Path]:
    """The certificate of an engine from its golden file or from data, and where it was written.

    A certificate from data is written beside the engine's own, as `parity-<data>.json`.
    """
    if (data is None) != (reference is None):
        raise UsageError(
            "--data and --reference belong together",
            where="parity",
            fix="name the pictures and the run (or FP32 graph) that the engine was built from",
        )
    if data is None or reference is None:
        certificate = certify(engine, device=device, gate_mean=gate_mean, gate_min=gate_min, write=False)
        path = out or engine / CERTIFICATE
    else:
        from gms_rt.engine.select import load

        with load(engine, device=device) as opened:
            info = opened.runner.info
            golden = golden_from_data(data, reference, info.height, info.width, limit=limit)
            certificate = certificate_of(opened, golden, gate_mean=gate_mean, gate_min=gate_min)
        path = out or engine / f"parity-{data.resolve().name}.json"
    write_json(path, certificate)
    return certificate, path


def pictures_in(data: Path) -> list[Path]:
    """The pictures of a data folder, in order of name."""
    folder = data / "images" if (data / "images").is_dir() else data
    if not folder.is_dir():
        raise UsageError("is not a folder", where=data, fix="name a folder of pictures, or one with images/ and masks/")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in _ENDINGS)
    if not files:
        raise UsageError("holds no pictures", where=folder, fix=f"files must end in {', '.join(_ENDINGS)}")
    return files


def _truth(folder: Path, files: list[Path], height: int, width: int) -> U8 | None:
    if not folder.is_dir():
        return None
    by_stem = {f.stem: f for f in sorted(folder.iterdir()) if f.suffix.lower() in _ENDINGS}
    missing = [f.name for f in files if f.stem not in by_stem]
    if missing:
        raise UsageError(f"has no mask for {len(missing)} pictures, the first is {missing[0]}", where=folder)
    maps = [scan.resize_probability(scan.rgb(_read(by_stem[f.stem])).max(axis=2), height, width) for f in files]
    return np.stack([np.where(m >= 0.5, 255, 0).astype(np.uint8) for m in maps])


def _read(path: Path) -> U8:
    from gms_rt.scan.reader import fetch

    try:
        return next(iter(fetch(path).open(scan.MAX_PIXELS).frames)).image
    except InputError as error:
        raise UsageError(error.what, where=path, fix=error.fix) from error
