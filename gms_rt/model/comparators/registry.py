"""The registry of comparators: every model that `gms-rt train --model` knows.

A new model is a file in this folder with a class that takes the side of the pictures, and a line here. A model that
works in the latents of a frozen tokenizer takes that, too.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gms_rt.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from gms_rt.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class ComparatorFacts:
    """One model, and what its paper and the GMS paper say of it."""

    name: str  # as `--model` takes it
    title: str  # as the GMS paper's tables print it
    paper: str  # who described it, and where
    year: int
    published: float | None  # million parameters in the GMS paper's table 1; None where it states none
    maker: str  # file in this folder and class, which takes the side of the pictures
    multiple: int = 32  # sides of pictures must be a multiple of this
    fixed_size: bool = False  # its weights fit pictures of one size alone
    note: str = ""  # how it differs from what was published, where it does
    package: str = ""  # of the 'comparators' extra, which its network is made by; most need none
    # The kind of the frozen tokenizer that it was published with; None where it needs none.
    tokenizer: Literal["sd-vae", "vq"] | None = None
    recipe: str = "pixels"  # how it is trained where none is named

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is there."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def network(self, size: int, tokenizer: Tokenizer | None = None) -> nn.Module:
        """The network with fresh weights, for pictures of this size, with the frozen tokenizer where it needs one."""
        if not self.installed:
            raise MissingExtraError(self.title, "comparators")
        self.check_tokenizer(tokenizer is not None)
        file, _, name = self.maker.partition(":")
        made = getattr(importlib.import_module(f"{__package__}.{file}"), name)
        found: nn.Module = made(size) if tokenizer is None else made(size, tokenizer)
        return found

    def check_tokenizer(self, given: bool) -> None:
        """Refuse to go without a tokenizer that is needed, or with one that is not."""
        if given and self.tokenizer is None:
            raise UsageError(
                f"{self.title} has no tokenizer", where="--tokenizer, --model", fix="leave --tokenizer away"
            )
        if not given and self.tokenizer is not None:
            raise UsageError(
                f"{self.title} needs a frozen tokenizer",
                where="--tokenizer, --model",
                fix=f"give both, such as --model {self.name} --tokenizer {self.tokenizer}",
            )


COMPARATORS = (
    ComparatorFacts(
        "unet", "UNet", "Ronneberger, Fischer, Brox: U-Net, MICCAI", 2015, 14.0, "unet:UNet", multiple=16,
        note="widths 64 to 512 and batch normalisation, as the papers have it that compare with it; a bilinear step "
        "and a 1x1 convolution on the way up",
    ),
    ComparatorFacts(
        "ege-unet", "EGE-UNet", "Ruan et al.: EGE-UNet, MICCAI", 2023, 0.05, "ege_unet:EgeUNet",
        note="the table gives one digit; EGE-UNet's own paper says 0.053",
    ),
    ComparatorFacts(
        "multiresunet", "MultiResUNet", "Ibtehaz, Rahman: MultiResUNet, Neural Networks 121", 2020, 7.3,
        "multiresunet:MultiResUNet", multiple=16,
    ),
    ComparatorFacts(
        "swin-unet", "SwinUNet", "Cao et al.: Swin-Unet, ECCV workshops", 2022, 27.2, "swin_unet:SwinUNet",
        fixed_size=True, note="from random weights; the paper starts from weights trained on ImageNet",
    ),
    ComparatorFacts(
        "deeplabv3-mixstyle", "MixStyle", "Zhou et al.: MixStyle, IJCV; on DeepLabV3 with ResNet-50", 2023, None,
        "deeplab:DeepLabV3MixStyle", multiple=8, note="ResNet-50 from random weights; styles mix behind its first two "
        "stages",
    ),
    ComparatorFacts(
        "deeplabv3-dsu", "DSU", "Li et al.: DSU, ICLR; on DeepLabV3 with ResNet-50", 2022, None,
        "deeplab:DeepLabV3Dsu", multiple=8, note="ResNet-50 from random weights; styles are drawn behind the stem and "
        "every stage",
    ),
    ComparatorFacts(
        "uctransnet", "UCTransNet", "Wang et al.: UCTransNet, AAAI", 2022, 66.4, "uctransnet:UCTransNet", multiple=16,
        fixed_size=True,
    ),
    ComparatorFacts(
        "acc-unet", "ACC-UNet", "Ibtehaz, Kihara: ACC-UNet, MICCAI", 2023, 16.8, "acc_unet:ACCUNet", multiple=16,
    ),
    ComparatorFacts(
        "sme-swin-unet", "SME-SwinUNet", "Wang et al.: SMESwin Unet, MICCAI", 2022, 169.8, "sme_swin_unet:SMESwinUNet",
        fixed_size=True, note="an interpretation in parts: superpixels are SLIC's, computed within the graph in five "
        "steps; skips are taken behind each scale's blocks; from random weights, where the paper starts from weights "
        "trained on ImageNet. As in its public code, what superpixels and transformer add is the same at every "
        "position, and external attention takes it away",
    ),
    ComparatorFacts(
        "nnu-net", "nnUNet", "Isensee et al.: nnU-Net, Nature Methods 18", 2021, 20.6, "nnu_net:NNUNet",
        fixed_size=True, package="nnunetv2", note="the network that its own package plans for pictures of this size, "
        "with its normalisation and deep supervision; views, optimiser and schedule are this project's, as for every "
        "model here",
    ),
    ComparatorFacts(
        "sdseg", "SDSeg", "Lin et al.: Stable Diffusion Segmentation, MICCAI", 2024, 329.0, "sdseg:SdSeg", multiple=8,
        fixed_size=True, tokenizer="sd-vae", recipe="diffusion", note="the denoiser starts from random weights, the "
        "paper's from a latent diffusion model of churches; latents are scaled as the tokenizer says, the paper's by "
        "the first batch; one noise, drawn once, for every picture; the vision encoder is a trainable copy of the "
        "tokenizer's encoder, so the parameters are those with sd-vae",
    ),
    ComparatorFacts(
        "gss", "GSS", "Chen et al.: Generative Semantic Segmentation, CVPR", 2023, 49.8, "gss:Gss", multiple=8,
        fixed_size=True, tokenizer="vq", note="GSS-FF on ResNet-50, the variant that has the published parameters; "
        "ResNet-50 from random weights; the project's VQ tokenizers in the place of DALL-E's, and codes of the mask at "
        "its own size, which the paper doubles first; the parameters are those with a codebook of 8192, as vq and "
        "DALL-E's have it",
    ),
    ComparatorFacts(
        "medsegdiff-v2", "MedSegDiff-V2", "Wu et al.: MedSegDiff-V2, AAAI", 2024, 129.4, "medsegdiff_v2:MedSegDiffV2",
        fixed_size=True, recipe="diffusion", note="an interpretation in parts: the two UNets are as wide as in the "
        "public code and have the published 129.4; the transformer of frequencies, which that code lacks and whose "
        "size is not known, adds 2 %. Four steps from one noise, drawn once, in the place of many and of an ensemble",
    ),
    ComparatorFacts(
        "depthwise-unet", "UNet, depthwise", "blocks of Howard et al.: MobileNets, arXiv 1704.04861", 2017, None,
        "depthwise_unet:DepthwiseUNet", note="not in the GMS paper: what one would first try on a small device; a UNet "
        "from half the picture's size on, in this project's arrangement",
    ),
    ComparatorFacts(
        "basic-unet", "BasicUNet", "MONAI, after Falk et al.: U-Net, Nature Methods 16", 2019, None,
        "basic_unet:BasicUNet", multiple=16, package="monai", note="not in the GMS paper: MONAI's, with its own "
        "widths, instance normalisation and transposed convolutions",
    ),
)  # fmt: skip


def comparator_facts(name: str) -> ComparatorFacts:
    """The entry of this name."""
    for facts in COMPARATORS:
        if facts.name == name:
            return facts
    known = ", ".join(facts.name for facts in COMPARATORS)
    raise UsageError(f"unknown model '{name}'", where="--model", fix=f"choose {known}; see gms-rt train --list-models")
