"""Latents of augmented views, encoded once: a folder of memory-mapped arrays, hashed, and completed after a kill.

Cases are stored in shards. `index.json` names what the cache was made of (tokenizer, pictures, augmentation, seed) and
the hash of every finished array; what is not listed or has changed is encoded again. View 0 is the picture as it is.
Latents are stored as float16, masks as bits. Where the model sees levels, they stand behind the image latents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gms_rt.arrays import U8
from gms_rt.artifacts import atomic_path, read_json, sha256_file, sha256_json, write_json
from gms_rt.errors import GmsError
from gms_rt.model.gms import Gms
from gms_rt.train.device import readers
from gms_rt.train.frozen_stages import FrozenStages
from gms_rt.train.recipe import VIEW_LATER
from gms_rt.train.samples import Samples, mask_tensor

INDEX = "index.json"
_SHARD = 32  # cases per file
_BATCH = 8  # views encoded at once
_PARTS = ("images", "masks", "pixels")
_AUGMENT = ("flip", "rotate", "shift", "zoom", "hue", "saturation", "value", "contrast", "size", "seed", "views")
Progress = Callable[[int, int], None]


class LatentCache:
    """Cached views by case and view number."""

    def __init__(self, folder: Path, cases: int, views: int, size: int) -> None:
        self.cases, self.views, self.size = cases, views, size
        self._shards = [
            {part: np.load(_file(folder, shard, part), mmap_mode="r") for part in _PARTS}
            for shard in range(_shards(cases))
        ]

    def batch(self, cases: Sequence[int], views: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Image latents, mask latents (float32) and masks N×1×H×W of 0 and 1."""
        rows = [(case // _SHARD, case % _SHARD * self.views + view) for case, view in zip(cases, views, strict=True)]
        picked = {part: np.stack([self._shards[s][part][row] for s, row in rows]) for part in _PARTS}
        bits = np.unpackbits(picked["pixels"], axis=1, count=self.size**2).reshape(-1, 1, self.size, self.size)
        return (
            torch.from_numpy(picked["images"].astype(np.float32)),
            torch.from_numpy(picked["masks"].astype(np.float32)),
            torch.from_numpy(bits.astype(np.float32)),
        )


def cached_latents(
    gms: Gms, samples: Samples, folder: Path, progress: Progress | None = None, stages: FrozenStages | None = None
) -> LatentCache:
    """Open the cache of these samples, after encoding what is missing, by `stages` in place of the model's own."""
    recipe = samples.recipe
    key = _key(gms, samples)
    known = _known(folder, key)
    total = len(samples) * recipe.views
    for shard in range(_shards(len(samples))):
        numbers = range(shard * _SHARD, min(len(samples), (shard + 1) * _SHARD))
        if not _whole(folder, shard, known.get(str(shard), {})):
            arrays = _encoded(stages or gms, samples, numbers, gms.tokenizer.spec.source)
            known[str(shard)] = {part: _store(_file(folder, shard, part), arrays[part]) for part in _PARTS}
            write_json(folder / INDEX, {"key": key, **_levels(gms), "shards": known})
        if progress is not None:
            progress((numbers[-1] + 1) * recipe.views, total)
    return LatentCache(folder, len(samples), recipe.views, recipe.size)


@torch.no_grad()
def encode(stages: FrozenStages, images: Sequence[U8]) -> Tensor:
    """What the model maps, of uint8 images, in CPU memory."""
    return _in_batches(stages.device, stages.encode_levels, images)


@torch.no_grad()
def encode_masks(stages: FrozenStages, masks: Sequence[U8]) -> Tensor:
    """Scaled latents of masks, in CPU memory."""
    return _in_batches(stages.device, stages.encode_masks, [mask_image(mask) for mask in masks])


def _in_batches(device: torch.device, how: Callable[[Tensor], Tensor], images: Sequence[U8]) -> Tensor:
    batches = [torch.from_numpy(np.stack(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
    return torch.cat([how(batch.to(device)).float().cpu() for batch in batches])


def mask_image(mask: U8) -> U8:
    """A mask as the tokenizer sees it: three equal channels."""
    return np.repeat(mask[..., None], 3, axis=2)


def _encoded(stages: FrozenStages, samples: Samples, numbers: range, tokenizer: str) -> dict[str, NDArray[Any]]:
    views = samples.recipe.views
    threads, _ = readers(stages.device, _BATCH)
    with ThreadPoolExecutor(threads, thread_name_prefix="views") as pool:
        # View by view, so that no two threads read the same case from disk.
        made = {(n, v): pool.submit(samples.view_or_plain, n, v) for v in range(views) for n in numbers}
        pairs = [made[n, v].result() for n in numbers for v in range(views)]
    masks = [mask for _, mask in pairs]
    latents = {
        "images": encode(stages, [image for image, _ in pairs]),
        "masks": encode_masks(stages, masks),
    }
    for name, latent in latents.items():
        if not torch.isfinite(latent.half()).all():
            raise GmsError(
                f"the tokenizer's latents of {name} exceed what float16 can store",
                where=tokenizer,
                fix="train with views=0",
            )
    bits = np.packbits(mask_tensor(masks).numpy().astype(bool).reshape(len(masks), -1), axis=1)
    return {**{name: latent.half().numpy() for name, latent in latents.items()}, "pixels": bits}


def _store(path: Path, array: NDArray[Any]) -> str:
    with atomic_path(path, durable=False) as part:
        with part.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
        return sha256_file(part)


def _key(gms: Gms, samples: Samples) -> str:
    recipe = samples.recipe.to_values()
    sources = hashlib.sha256()
    for case in samples.cases:
        files = [case.image, *case.masks]
        sources.update(json.dumps([case.name, [sha256_file(path) for path in files]]).encode())
    spec = gms.tokenizer.spec
    facts = {
        "tokenizer": [spec.kind, gms.tokenizer.weights_sha256(), spec.scale, spec.shift, spec.image_range],
        "augmentation": {name: recipe[name] for name in (*_AUGMENT, *VIEW_LATER) if name in recipe},
        "cases": sources.hexdigest(),
        **_levels(gms),
    }
    return sha256_json(facts)


def _levels(gms: Gms) -> dict[str, Any]:
    """What stands behind the image latents; nothing, as in earlier versions, for a model without levels."""
    config = gms.mapper.config
    if not config.levels:
        return {}
    return {"levels": {"strides": config.levels, "pooling": config.pooling, "channels": config.level_channels}}


def _known(folder: Path, key: str) -> dict[str, dict[str, str]]:
    """Finished shards of this cache; another one in the same folder is deleted."""
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        if index.get("key") == key and isinstance(index.get("shards"), dict):
            shards: dict[str, dict[str, str]] = index["shards"]
            return shards
        for path in (p for part in _PARTS for p in folder.glob(f"[0-9][0-9][0-9][0-9][0-9].{part}.npy")):
            path.unlink()
    return {}


def _whole(folder: Path, shard: int, hashes: dict[str, str]) -> bool:
    files = {part: _file(folder, shard, part) for part in _PARTS}
    return all(path.is_file() and sha256_file(path) == hashes.get(part) for part, path in files.items())


def _file(folder: Path, shard: int, part: str) -> Path:
    return folder / f"{shard:05d}.{part}.npy"


def _shards(cases: int) -> int:
    return -(-cases // _SHARD)
