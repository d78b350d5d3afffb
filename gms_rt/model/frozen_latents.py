"""A frozen tokenizer as models use it: pictures to scaled latents, and scaled latents to drawn masks.

The only place for this arithmetic, for training, export and tests alike. Pictures and drawings are float tensors in
[0, 1]; the tokenizer's own range and its scale are handled here.
"""

from __future__ import annotations

from torch import Tensor, nn

from gms_rt.model.tokenizer import Tokenizer


class FrozenLatents(nn.Module):
    """A tokenizer's two halves, with scaled latents between them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def scaled_latent(self, image: Tensor) -> Tensor:
        """The scaled latent of N×3×H×W images."""
        return self.scaled(self.tokenizer.latent_mean(self.in_range(image)))

    def in_range(self, image: Tensor) -> Tensor:
        """An image in the tokenizer's own range."""
        low, high = self.tokenizer.spec.image_range
        return image * (high - low) + low

    def scaled(self, latent: Tensor) -> Tensor:
        """A latent as the tokenizer gives it, scaled."""
        return (latent - self.tokenizer.spec.shift) * self.tokenizer.spec.scale

    def probability(self, latent: Tensor) -> Tensor:
        """Draw a scaled mask latent: N×1×H×W in [0, 1]."""
        return self.drawing(latent).clamp(0, 1)

    def drawing(self, latent: Tensor) -> Tensor:
        """The drawn mask before `probability` clamps it."""
        return self.grey(self.tokenizer.decode(latent / self.tokenizer.spec.scale + self.tokenizer.spec.shift))

    def grey(self, decoded: Tensor) -> Tensor:
        """A decoded image N×3×H×W as a mask N×1×H×W: the mean of its channels, black as 0 and white as 1."""
        low, high = self.tokenizer.spec.image_range
        return (decoded.mean(dim=1, keepdim=True) - low) / (high - low)
