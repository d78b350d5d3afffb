"""A tokenizer from a folder with `encoder.onnx`, `decoder.onnx` and `tokenizer.json`.

`tokenizer.json` needs latent_channels, downsample, scale_factor and image_range; shift is optional.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from gms_rt.artifacts import read_json
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.model.onnx_torch import OnnxModule
from gms_rt.model.tokenizer import FirstChannels, Tokenizer, TokenizerSpec


class OnnxTokenizer(Tokenizer):
    """A frozen pair of ONNX graphs, run by torch so that gradients pass the decoder."""

    def __init__(self, spec: TokenizerSpec, encoder: OnnxModule, decoder: OnnxModule) -> None:
        super().__init__(spec)
        self.encoder, self.decoder = encoder, decoder
        self.freeze()

    def latent_mean(self, image: Tensor) -> Tensor:
        """The encoder graph; of mean and variance channels, the mean."""
        latent: Tensor = self.encoder(image)
        return latent[:, : self.spec.channels]

    def latent_and_inner(self, image: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """The encoder graph with what its convolutions read."""
        latent, read = self.encoder.output_and_read(image)
        inner = {}
        for stride in range(1, self.spec.stride + 1):
            size = torch.Size(side // stride for side in image.shape[2:])
            found = [tensor for tensor in read if tensor.shape[2:] == size]
            if found and all(side % stride == 0 for side in image.shape[2:]):
                inner[stride] = found[-1]
        return latent[:, : self.spec.channels], inner

    def decode(self, latent: Tensor) -> Tensor:
        """The decoder graph."""
        image: Tensor = self.decoder(latent)
        return image

    def trainable_encoder(self) -> nn.Module:
        """The encoder graph; what is a single number in it stays as it is."""
        encoder = copy.deepcopy(self.encoder)
        for name, value in list(encoder.named_buffers()):
            if value.is_floating_point() and value.numel() > 1:
                delattr(encoder, name)
                encoder.register_parameter(name, nn.Parameter(value))
        return nn.Sequential(encoder, FirstChannels(self.spec.channels))


def load_onnx(source: str) -> OnnxTokenizer:
    """Load the pair of a folder."""
    folder = Path(source)
    for name in ("tokenizer.json", "encoder.onnx", "decoder.onnx"):
        if not (folder / name).is_file():
            raise UsageError(
                f"has no {name}",
                where=folder,
                fix="give a folder with encoder.onnx, decoder.onnx and tokenizer.json",
            )
    values = read_json(folder / "tokenizer.json")
    try:
        low, high = values["image_range"]
        spec = TokenizerSpec(
            kind="onnx",
            source=source,
            channels=int(values["latent_channels"]),
            stride=int(values["downsample"]),
            scale=float(values["scale_factor"]),
            shift=float(values.get("shift", 0.0)),
            image_range=(float(low), float(high)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"lacks or mistypes {error}",
            where=folder / "tokenizer.json",
            fix="it needs latent_channels, downsample, scale_factor and image_range [low, high]",
        ) from error
    return OnnxTokenizer(spec, OnnxModule(folder / "encoder.onnx"), OnnxModule(folder / "decoder.onnx"))
