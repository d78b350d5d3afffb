"""Tokenizers by name: `sd-vae[:SOURCE]`, `taesd:SOURCE`, `vq:SOURCE`, `onnx:FOLDER`, `compvis:FILE`.

SOURCE is a local folder in diffusers' layout or a hub id. The hub is asked only when a hub id is named.
"""

from __future__ import annotations

from pathlib import Path

from gms_rt.errors import UsageError
from gms_rt.model.tokenizer import Tokenizer

KINDS = ("sd-vae", "taesd", "vq", "onnx", "compvis")
_DEFAULTS = {"sd-vae": "stabilityai/stable-diffusion-2-1", "taesd": "madebyollin/taesd"}


def load_tokenizer(name: str, *, revision: str | None = None) -> Tokenizer:
    """Load and freeze the tokenizer of this name."""
    kind, _, source = name.partition(":")
    source = source or _DEFAULTS.get(kind, "")
    if kind not in KINDS or not source:
        what = f"needs a source: {kind}:FOLDER" if kind in KINDS else "is not a tokenizer"
        raise UsageError(
            what,
            where=f"--tokenizer {name}",
            fix="choose sd-vae[:FOLDER or hub id], taesd:FOLDER, vq:FOLDER, onnx:FOLDER or compvis:FILE",
        )
    # A run must find its tokenizer from any folder.
    local = Path(source).expanduser()
    return open_tokenizer(kind, str(local.resolve()) if local.exists() else source, revision)


def open_tokenizer(kind: str, source: str, revision: str | None = None) -> Tokenizer:
    """Load and freeze the tokenizer of this kind from this source."""
    if kind == "onnx":
        from gms_rt.model.onnx_tokenizer import load_onnx

        return load_onnx(source)
    if kind == "compvis":
        from gms_rt.model.compvis import load_compvis

        return load_compvis(source)
    from gms_rt.model.diffusers_tokenizer import load_diffusers

    return load_diffusers(kind, source, revision)


def source_in_run(source: str, folder: Path) -> str:
    """The tokenizer source that a run names: a relative path is inside the run folder where it exists there."""
    inside = folder / source
    return str(inside) if not Path(source).is_absolute() and inside.exists() else source
