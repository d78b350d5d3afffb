"""A comparator's run folder: `config.toml` with its name and size, and `comparator.safetensors`.

`tokenizer.json` is there, too, where it works in a frozen tokenizer's latents: as in a run of a latent mapping model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from gms_rt.artifacts import write_bytes
from gms_rt.config import read_toml
from gms_rt.errors import ArtifactError, MissingExtraError, UsageError
from gms_rt.model.comparators.network import Comparator
from gms_rt.model.comparators.registry import comparator_facts
from gms_rt.model.kind import COMPARATOR_FORMAT, COMPARATOR_VERSION, COMPARATOR_WEIGHTS, CONFIG, is_comparator_run
from gms_rt.model.run import Tables, fill, tokenizer_from_run, toml_text, write_tokenizer_spec, write_weights
from gms_rt.runtime.device import package_version


def save_comparator(
    folder: Path,
    comparator: Comparator,
    tables: Tables | None = None,
    *,
    weights: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a comparator's run folder.

    `tables` are more tables of `config.toml`, such as how it was trained; `weights` stand in for the model's own.
    """
    package = comparator.facts.package
    made_by = {"package": f"{package}=={package_version(package)}"} if package else {}
    own: Tables = {
        "run": {"format": COMPARATOR_FORMAT, "version": COMPARATOR_VERSION},
        "comparator": {"model": comparator.facts.name, "size": comparator.size, **made_by},
    }
    write_bytes(folder / CONFIG, toml_text({**own, **(tables or {})}).encode())
    if comparator.tokenizer is not None:
        write_tokenizer_spec(folder, comparator.tokenizer)
    write_weights(folder / COMPARATOR_WEIGHTS, weights or comparator.state_dict())


def load_comparator(folder: Path) -> Comparator:
    """The comparator of a run folder, ready to segment."""
    comparator = comparator_from_run(folder)
    try:
        fill(comparator, folder / COMPARATOR_WEIGHTS)
    except ArtifactError as error:
        made_by = read_toml(folder / CONFIG)["comparator"].get("package")
        if made_by is None:
            raise
        raise ArtifactError(
            f"{error.what}; its network was made by {made_by}", where=error.where, fix=f"run: pip install '{made_by}'"
        ) from error
    return comparator.eval()


def comparator_from_run(folder: Path) -> Comparator:
    """The model of a comparator's run folder with fresh weights; what is not such a folder is refused."""
    if not is_comparator_run(folder):
        raise UsageError("is not a comparator's run folder", where=folder, fix="name one of gms-rt train --model")
    if not (folder / COMPARATOR_WEIGHTS).is_file():
        raise UsageError(f"is not a run folder (no {COMPARATOR_WEIGHTS})", where=folder)
    values = read_toml(folder / CONFIG).get("comparator", {})
    name, size = values.get("model"), values.get("size")
    if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool):
        raise ArtifactError("does not say which comparator it is, and of which size", where=folder / CONFIG)
    try:
        facts = comparator_facts(name)
    except UsageError as error:
        raise _unknown(folder, error) from error
    tokenizer = None if facts.tokenizer is None else tokenizer_from_run(folder)
    try:
        return Comparator(facts, size, tokenizer)
    except MissingExtraError:
        raise
    except UsageError as error:
        raise _unknown(folder, error) from error


def _unknown(folder: Path, error: UsageError) -> ArtifactError:
    what = f"names a comparator that this program does not have ({error})"
    return ArtifactError(what, where=folder / CONFIG, fix="update gms-rt")
