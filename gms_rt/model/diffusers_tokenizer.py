"""Tokenizers in diffusers' layouts: AutoencoderKL (`sd-vae`), AutoencoderTiny (`taesd`), VQModel (`vq`)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gms_rt.errors import ArtifactError, MissingExtraError, UsageError, reason_from_error
from gms_rt.model.hub import folder_from_hub
from gms_rt.model.presets import preset_from_repository
from gms_rt.model.tokenizer import FirstChannels, Tokenizer, TokenizerSpec
from gms_rt.telemetry import quiet_module

_CLASSES = {"sd-vae": "AutoencoderKL", "taesd": "AutoencoderTiny", "vq": "VQModel"}
_SHAPES = {"sd-vae": (128, 256, 512, 512), "vq": (128, 256, 256, 512, 768)}


class DiffusersTokenizer(Tokenizer):
    """An autoencoder of diffusers, frozen. The latent is the posterior's mean, never a sample."""

    def __init__(self, spec: TokenizerSpec, autoencoder: Any) -> None:
        super().__init__(spec)
        self.autoencoder = autoencoder
        self.freeze()

    def latent_mean(self, image: Tensor) -> Tensor:
        """Encoder, and where there is one the quantisation convolution, whose first half is the mean."""
        latent: Tensor = self.autoencoder.encoder(image)
        quant = getattr(self.autoencoder, "quant_conv", None)
        if quant is not None:
            latent = quant(latent)
        return latent[:, : self.spec.channels]

    def latent_and_inner(self, image: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """The encoder with what its downsampling and its last convolution read."""
        with _seen(level_readers(self.autoencoder.encoder)) as inner:
            return self.latent_mean(image), inner

    def decode(self, latent: Tensor) -> Tensor:
        """Decoder; a VQModel first snaps the latent to its codebook, straight-through for gradients."""
        if self.spec.kind == "vq":
            latent = snap_to_codebook(latent, self.autoencoder.quantize.embedding.weight)
        return self._decode(latent)

    def trainable_encoder(self) -> nn.Module:
        """Encoder and quantisation convolution."""
        parts = [self.autoencoder.encoder, getattr(self.autoencoder, "quant_conv", None)]
        copies = [copy.deepcopy(part) for part in parts if part is not None]
        return nn.Sequential(*copies, FirstChannels(self.spec.channels)).requires_grad_(True)

    @property
    def codebook(self) -> Tensor | None:
        """A VQModel's."""
        if self.spec.kind != "vq":
            return None
        codes: Tensor = self.autoencoder.quantize.embedding.weight
        return codes

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Decoder, of the codes as they are."""
        if self.codebook is None:
            return super().decode_codes(codes)
        return self._decode(F.embedding(codes, self.codebook).permute(0, 3, 1, 2))

    def _decode(self, latent: Tensor) -> Tensor:
        post_quant = getattr(self.autoencoder, "post_quant_conv", None)
        image: Tensor = self.autoencoder.decoder(latent if post_quant is None else post_quant(latent))
        return image


def level_readers(encoder: Any) -> dict[int, nn.Module]:
    """The module of an encoder of diffusers that reads the last activation at each stride."""
    found: dict[int, nn.Module] = {}
    stride = 1
    if hasattr(encoder, "layers"):  # AutoencoderTiny: blocks between plain convolutions
        for layer in encoder.layers:
            if isinstance(layer, nn.Conv2d):
                found[stride] = layer
                stride *= layer.stride[0]
        return found
    for block in encoder.down_blocks:
        for layer in block.downsamplers or ():
            found[stride] = layer
            stride *= 2
    return {**found, stride: encoder.conv_out}


@contextmanager
def _seen(readers: dict[int, nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Collects by stride what these modules read meanwhile."""
    seen: dict[int, Tensor] = {}

    def keep(stride: int, module: nn.Module) -> Any:
        return module.register_forward_pre_hook(lambda _, given: seen.update({stride: given[0]}))

    handles = [keep(stride, module) for stride, module in readers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def snap_to_codebook(latent: Tensor, codebook: Tensor) -> Tensor:
    """Every position replaced by its nearest code; gradients pass as if nothing had happened."""
    nearest = F.embedding(nearest_codes(latent, codebook), codebook).permute(0, 3, 1, 2)
    return latent + (nearest - latent).detach()


def nearest_codes(latent: Tensor, codebook: Tensor) -> Tensor:
    """The number N×h×w of the code that is nearest to each position."""
    tokens = latent.permute(0, 2, 3, 1)
    distance = codebook.square().sum(dim=1) - 2 * tokens @ codebook.T
    return distance.argmin(dim=-1)


def spec_from_autoencoder(autoencoder: Any, kind: str, source: str, revision: str | None = None) -> TokenizerSpec:
    """Read channels, stride and scaling from an autoencoder's own configuration."""
    config = autoencoder.config
    if kind == "taesd":
        stages = len(config.decoder_block_out_channels)
        stride = config.upsampling_scaling_factor ** (stages - 1)
    else:
        stride = 2 ** (len(config.block_out_channels) - 1)
    return TokenizerSpec(
        kind=kind,
        source=source,
        channels=int(config.get("vq_embed_dim") or config.latent_channels),
        stride=int(stride),
        scale=float(config.get("scaling_factor") or 1.0),
        shift=float(config.get("shift_factor") or 0.0),
        revision=revision,
    )


def wrap_autoencoder(autoencoder: Any, kind: str, source: str, revision: str | None = None) -> DiffusersTokenizer:
    """Freeze an autoencoder that is already in memory."""
    return DiffusersTokenizer(spec_from_autoencoder(autoencoder, kind, source, revision), autoencoder)


def load_diffusers(kind: str, source: str, revision: str | None = None) -> DiffusersTokenizer:
    """Load from a local folder, or from the hub if `source` is a hub id (`owner/name`)."""
    try:
        diffusers = quiet_module("diffusers")
    except ImportError as error:
        raise MissingExtraError(f"the tokenizer '{kind}'", "train") from error
    diffusers.utils.logging.set_verbosity_error()
    layout = getattr(diffusers, _CLASSES[kind])
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file() and (folder / "vae" / "config.json").is_file():
            folder = folder / "vae"
        if not (folder / "config.json").is_file():
            raise UsageError("no config.json in this folder", where=folder, fix=_wanted(kind))
        autoencoder = _load(layout, folder, {"local_files_only": True})
    elif folder.exists() or source.count("/") != 1 or source.startswith((".", "~", "/")):
        raise UsageError("is neither a tokenizer folder nor a hub id", where=source, fix=_wanted(kind))
    else:
        hub_folder = folder_from_hub(preset_from_repository(kind, source, revision))
        autoencoder = _load(layout, hub_folder, {"local_files_only": True})
    return wrap_autoencoder(autoencoder, kind, source, revision)


def _load(layout: Any, folder: Path, options: dict[str, Any]) -> Any:
    try:
        return layout.from_pretrained(str(folder), **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ArtifactError(f"the tokenizer does not load ({reason_from_error(error)})", where=folder) from error


def _wanted(kind: str) -> str:
    return f"give a folder with config.json and diffusion_pytorch_model.safetensors: {kind}:FOLDER"


def published_shape(kind: str) -> DiffusersTokenizer:
    """A tokenizer as large as Stable Diffusion's (`sd-vae`) or the preset `vq`, with no trained weights: to count."""
    diffusers = quiet_module("diffusers")
    widths = _SHAPES[kind]
    downs, ups = ("DownEncoderBlock2D",) * len(widths), ("UpDecoderBlock2D",) * len(widths)
    shape: dict[str, Any] = {"block_out_channels": widths, "down_block_types": downs, "up_block_types": ups}
    shape |= {"num_vq_embeddings": 8192, "vq_embed_dim": 64, "latent_channels": 64} if kind == "vq" else {}
    return wrap_autoencoder(getattr(diffusers, _CLASSES[kind])(**shape, layers_per_block=2), kind, kind)
