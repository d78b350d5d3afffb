"""What the teacher says of plain pictures, computed once: a folder of arrays, hashed, and completed after a kill.

Pictures are stored in shards, each under the hash of the teacher and its own pixels: more pictures, another training
or another student find what is there, and nothing of another teacher or size is taken. What is not listed in
`index.json` or has changed is computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path, read_json, sha256_file, write_json
from gms_rt.distill.pictures import room_for
from gms_rt.distill.teacher import Teacher, TeacherFacts
from gms_rt.errors import GmsError

INDEX = "index.json"
_SHARD = 64  # pictures per file
_PARTS = ("masks", "latents")
OnTaught = Callable[[int, int], None]


@dataclass(frozen=True)
class Lessons:
    """What the teacher says of each picture, in their order."""

    masks: U8  # N×H×W soft masks
    latents: NDArray[np.float16]  # N×C×h×w, of mean 0 and deviation 1 in each channel


def cached_lessons(
    facts: TeacherFacts,
    images: U8,
    folder: Path,
    open_it: Callable[[], Teacher],
    progress: OnTaught | None = None,
) -> Lessons:
    """The lessons of these pictures; the teacher is opened only where something is missing."""
    index = _index(folder)
    teacher: Teacher | None = None
    found: dict[str, NDArray[Any]] = {}
    for start in range(0, len(images), _SHARD):
        block = images[start : start + _SHARD]
        key = _key(facts, block)
        parts = _stored(folder, key, index["shards"].get(key, {}))
        if parts is None:
            teacher = teacher or open_it()
            parts = dict(zip(_PARTS, _answer(teacher, block, facts), strict=True))
            index["shards"][key] = {name: _store(_file(folder, key, name), parts[name]) for name in _PARTS}
            index["shards"][key]["made_by"] = teacher.made_by
            write_json(folder / INDEX, index)
        for name, part in parts.items():
            if name not in found:
                found[name] = room_for((len(images), *part.shape[1:]), folder / f"all.{name}.npy", part.dtype)
            found[name][start : start + len(block)] = part
        if progress is not None:
            progress(start + len(block), len(images))
    return Lessons(found["masks"], _standardised(found["latents"]))


def _answer(teacher: Teacher, block: U8, facts: TeacherFacts) -> tuple[U8, NDArray[np.float16]]:
    masks, latents = teacher.answer(np.ascontiguousarray(block))
    if not np.isfinite(latents).all():
        raise GmsError(
            "the teacher's mask latents are not finite, or exceed what float16 can store",
            where=facts.run,
            fix="distil from a run whose masks are good; see gms-rt eval",
        )
    return masks, latents


def _standardised(latents: NDArray[np.float16]) -> NDArray[np.float16]:
    """Latents of mean 0 and deviation 1, so that one weight of their loss suits every tokenizer."""
    axes = (0, 2, 3)
    middle = latents.mean(axes, np.float64, keepdims=True)
    spread = np.sqrt(np.square(latents, dtype=np.float32).mean(axes, np.float64, keepdims=True) - middle**2)
    for start in range(0, len(latents), _SHARD):  # in place, in parts: there may be many
        block = latents[start : start + _SHARD]
        latents[start : start + _SHARD] = (block - middle) / np.maximum(spread, 1e-6)
    return latents


def _index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    index = read_json(path) if path.is_file() else {}
    return index if isinstance(index.get("shards"), dict) else {"shards": {}}


def _key(facts: TeacherFacts, block: U8) -> str:
    digest = hashlib.sha256(f"{facts.sha256} {block.shape}".encode())
    digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()[:32]


def _stored(folder: Path, key: str, hashes: dict[str, str]) -> dict[str, NDArray[Any]] | None:
    files = {name: _file(folder, key, name) for name in _PARTS}
    if any(not path.is_file() or sha256_file(path) != hashes.get(name) for name, path in files.items()):
        return None
    return {name: np.load(path, allow_pickle=False) for name, path in files.items()}


def _store(path: Path, array: NDArray[Any]) -> str:
    with atomic_path(path, durable=False) as part:
        with part.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
        return sha256_file(part)


def _file(folder: Path, key: str, part: str) -> Path:
    return folder / f"{key}.{part}.npy"
