"""`hf:OWNER/NAME`: a graph that somebody shared on the Hugging Face hub, as `gms-rt pack --for huggingface` writes it.

The hub's own client fetches the files into its own cache; `config.json` names each with its hash. Needs no torch.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from gms_rt.artifacts import check_format, read_json, sha256_file
from gms_rt.errors import ArtifactError, GmsError, UsageError, reason_from_error
from gms_rt.telemetry import quiet_module

PREFIX = "hf:"
CONFIG, GRAPH, GRAPH_GOLDEN = "config.json", "model.onnx", "model.golden.npz"
HUB_FORMAT, HUB_VERSION = "gms-rt-hub", 1


def is_hub_graph(source: Path | None) -> bool:
    """Whether a source names a repository of the hub, and nothing on the disk has that name."""
    return source is not None and str(source).startswith(PREFIX) and not source.exists()


def graph_from_hub(source: Path) -> Path:
    """The graph of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, fetched and checked."""
    found = re.fullmatch(r"hf:([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?", str(source))
    if found is None:
        raise UsageError("is not a repository of the hub", where=source, fix="write hf:OWNER/NAME or hf:OWNER/NAME@TAG")
    repository, revision = found[1], found[2]
    config = _fetched(repository, CONFIG, revision)
    told = read_json(config)
    fix = "name a repository that gms-rt pack --for huggingface has laid out"
    check_format(told, HUB_FORMAT, HUB_VERSION, where=f"{source}: {CONFIG}", fix=fix)
    files, graph = told.get("files"), told.get("graph")
    if not isinstance(files, dict) or graph not in files or not all(_is_plain(name) for name in files):
        raise ArtifactError("names no graph of its own", where=f"{source}: {CONFIG}", fix=fix)
    paths = {}
    for name, digest in files.items():
        paths[name] = _fetched(repository, name, revision)
        if sha256_file(paths[name]) != digest:
            raise ArtifactError(
                f"is not what {CONFIG} says (hash differs)",
                where=f"{source}: {name}",
                fix=f"delete {paths[name].resolve()} and try again; if it stays so, ask its author",
            )
    return paths[graph]


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and PurePosixPath(name).name == name and not name.startswith(".")


def _fetched(repository: str, name: str, revision: str | None) -> Path:
    where = f"{repository} on the hub"
    offline = f"or fetch it elsewhere (hf download {repository}) and build from its {GRAPH}"
    try:
        hub = quiet_module("huggingface_hub")
    except ImportError as error:
        what = "reading from the hub needs the package huggingface_hub"
        raise UsageError(what, where=where, fix="run: pip install huggingface_hub") from error
    try:
        return Path(hub.hf_hub_download(repository, name, revision=revision))
    except hub.errors.RepositoryNotFoundError as error:
        raise UsageError(
            "does not exist, or is private", where=where, fix="check the name, or hf auth login"
        ) from error
    except (hub.errors.RevisionNotFoundError, hub.errors.EntryNotFoundError) as error:
        raise UsageError(f"has no {name} ({reason_from_error(error)})", where=where, fix=offline) from error
    except Exception as error:  # the client raises its transport's errors too, and has changed its transport
        raise GmsError(f"did not give {name} ({reason_from_error(error)})", where=where, fix=offline) from error
