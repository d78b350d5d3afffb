"""A tokenizer's files from the Hugging Face hub: into the hub client's own cache, each checked where its hash is known.

The client resumes what was interrupted and asks the address in HF_ENDPOINT, where that is set.
"""

from __future__ import annotations

from pathlib import Path

from gms_rt.artifacts import sha256_file
from gms_rt.errors import ArtifactError, GmsError, UsageError, reason_from_error
from gms_rt.model.presets import MOVED, PRESETS, WEIGHTS, HubFile, Preset
from gms_rt.telemetry import quiet_module

_FOLDERS = ("", "vae", "vqvae")  # where repositories keep an autoencoder
_PICKLED = "diffusion_pytorch_model.bin"  # older repositories; diffusers reads nothing but tensors from it


def folder_from_hub(preset: Preset) -> Path:
    """The local folder with the files of this tokenizer, fetched if they are not there yet."""
    if preset.repository in MOVED:
        return _folder_of_moved(preset)
    return _folder(preset)


def _folder_of_moved(preset: Preset) -> Path:
    """Of a repository that was taken down: what an earlier download left, or the same weights from their mirror."""
    try:
        return _folder(preset, cached=True)
    except UsageError:
        return _folder(PRESETS[MOVED[preset.repository]])


def _folder(preset: Preset, *, cached: bool = False) -> Path:
    missing: GmsError | None = None
    for folder in _FOLDERS if preset.folder is None else (preset.folder,):
        paths = []
        for file in preset.files:
            try:
                path = _fetched(preset, folder, file.name, cached)
            except _NotThere as error:
                missing = missing or error.told
                cached = cached or error.unreachable  # asked once: the client tries for a long time
                break
            _check(path, file)
            paths.append(path)
        else:
            return paths[0].parent
    raise missing or UsageError("names no file", where=preset.repository)


class _NotThere(Exception):
    """No such file in the repository or, where that cannot be asked, in the cache; another folder may have it."""

    def __init__(self, told: UsageError, *, unreachable: bool = False) -> None:
        self.told, self.unreachable = told, unreachable
        super().__init__()


def _fetched(preset: Preset, folder: str, name: str, cached: bool) -> Path:
    try:
        return _download(preset, folder, name, cached)
    except _NotThere as error:
        if name != WEIGHTS or preset.folder is not None:
            raise
        return _download(preset, folder, _PICKLED, cached or error.unreachable)


def _download(preset: Preset, folder: str, name: str, cached: bool) -> Path:
    hub = quiet_module("huggingface_hub")
    errors = hub.errors
    options = {"revision": preset.revision, "subfolder": folder or None, "local_files_only": cached}
    try:
        return Path(hub.hf_hub_download(preset.repository, name, **options))
    except errors.LocalEntryNotFoundError as error:
        told = _refused("cannot be reached, and its files are not in the cache", preset, error)
        raise _NotThere(told, unreachable=True) from error
    except errors.GatedRepoError as error:
        raise _refused("is open only to users who have accepted its terms", preset, error) from error
    except errors.RepositoryNotFoundError as error:
        raise _refused("does not exist, or is private (was it taken down?)", preset, error) from error
    except errors.RevisionNotFoundError as error:
        raise _refused(f"has no revision {preset.revision}", preset, error) from error
    except errors.EntryNotFoundError as error:
        raise _NotThere(_refused(f"has no {_path(folder, name)}", preset, error)) from error
    except Exception as error:  # the client raises its transport's errors too, and has changed its transport
        raise _refused(f"did not give {_path(folder, name)} whole; the same command goes on", preset, error) from error


def _refused(what: str, preset: Preset, error: BaseException) -> UsageError:
    names = [_path(preset.folder or "", file.name) for file in preset.files]
    revision = f" --revision {preset.revision}" if preset.revision else ""
    known = ", ".join(f"{file.name} has the SHA-256 {file.sha256}" for file in preset.files if file.sha256)
    inside = f"FOLDER/{preset.folder}" if preset.folder else "FOLDER"
    return UsageError(
        f"{what} ({reason_from_error(error)})",
        where=f"{preset.repository} on the hub",
        fix=f"to work offline, run elsewhere: hf download {preset.repository} {' '.join(names)}{revision} --local-dir "
        f"FOLDER, copy it here and name it: --tokenizer {preset.kind}:{inside}" + (f" ({known})" if known else ""),
    )


def _check(path: Path, file: HubFile) -> None:
    """Refuse a file that is not the known one; the size tells sooner."""
    size = path.stat().st_size
    if file.sha256 is None:
        return
    if file.size is not None and size != file.size:
        wrong = f"{size:,} bytes instead of {file.size:,}"
    elif (found := sha256_file(path)) != file.sha256:
        wrong = f"SHA-256 {found} instead of {file.sha256}"
    else:
        return
    raise ArtifactError(
        f"is not the file that this tokenizer's name stands for ({wrong})",
        where=path,
        fix=f"delete {path.resolve()} and run the same command again; if it stays so, the hub's file was changed",
    )


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
