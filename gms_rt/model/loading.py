"""Tokenizers by name: a preset such as `sd-vae` or `taesd`, or `sd-vae:SOURCE`, `taesd:SOURCE`, `vq:SOURCE`,
`onnx:FOLDER`, `compvis:FILE`.

SOURCE is a local folder in diffusers' layout or a hub id. The hub is asked only when a preset or a hub id is named.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gms_rt.errors import UsageError
from gms_rt.model.presets import PRESETS, preset_from_repository
from gms_rt.model.tokenizer import Tokenizer

KINDS = ("sd-vae", "taesd", "vq", "onnx", "compvis")
_ON_HUB = ("sd-vae", "taesd", "vq")


def load_tokenizer(name: str, *, revision: str | None = None, note: Callable[[str], None] | None = None) -> Tokenizer:
    """Load and freeze the tokenizer of this name; `note` is told which files of the hub could not be verified."""
    kind, _, source = name.partition(":")
    if not source and name in PRESETS:
        preset = PRESETS[name]
        kind, source, revision = preset.kind, preset.repository, revision or preset.revision
    if kind not in KINDS or not source:
        what = f"needs a source: {kind}:FOLDER" if kind in KINDS else "is not a tokenizer"
        raise UsageError(
            what,
            where=f"--tokenizer {name}",
            fix=f"choose a preset ({', '.join(PRESETS)}), or sd-vae:FOLDER, taesd:FOLDER, vq:FOLDER (or a hub id), "
            "onnx:FOLDER, compvis:FILE",
        )
    # A run must find its tokenizer from any folder.
    local = Path(source).expanduser()
    tokenizer = open_tokenizer(kind, str(local.resolve()) if local.exists() else source, revision)
    if note is not None and kind in _ON_HUB and not local.exists():
        unverified = preset_from_repository(kind, source, revision).unverified
        if unverified:
            note(f"{source} on the hub: {' and '.join(unverified)} not verified, no hash is known")
    return tokenizer


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
