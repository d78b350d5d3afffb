"""The encoder's inner activations: which they are, for every kind of tokenizer, and what the model makes of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from support.phantom_folders import write_pair
from support.small_gms import KINDS, small_gms
from torch import nn
from torch.nn import functional as F

from gms_rt.errors import ConfigError, UsageError
from gms_rt.model.gms import Gms, pooled_channels
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.tokenizer import Tokenizer

DATA = os.environ.get("GMS_RT_DATA")


def with_levels(tokenizer: Tokenizer, levels: tuple[int, ...], pooling: str = "average") -> Gms:
    torch.manual_seed(5)
    channels = pooled_channels(tokenizer, levels, pooling)
    config = LmmConfig(tokenizer.spec.channels, 16, (1, 2), 8, levels=levels, pooling=pooling, level_channels=channels)
    return Gms(tokenizer, LatentMapper(config)).eval()


def inputs_of(module: nn.Module, image: torch.Tensor, encode: nn.Module) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    encode(image)
    handle.remove()
    return seen[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_levels_are_what_the_encoder_reads_next(kind: str) -> None:
    tokenizer = small_gms(kind).tokenizer
    image = torch.rand(2, 3, 16, 24) * 2 - 1
    latent, inner = tokenizer.latent_and_inner(image)
    assert torch.equal(latent, tokenizer.latent_mean(image))
    assert sorted(inner) == ([1, 2, 4] if kind == "taesd" else [1, 2])
    encoder = tokenizer.autoencoder.encoder
    for stride, level in inner.items():
        assert level.shape[2:] == (16 // stride, 24 // stride)
    last = encoder.layers[-1] if kind == "taesd" else encoder.conv_out
    assert torch.equal(inner[tokenizer.spec.stride], inputs_of(last, image, encoder))
    first = encoder.layers[1] if kind == "taesd" else encoder.down_blocks[0].downsamplers[0]
    assert torch.equal(inner[1], inputs_of(first, image, encoder))
    assert not any(module._forward_pre_hooks for module in tokenizer.modules()), "nothing stays behind"


def test_an_onnx_pairs_levels_are_found_by_their_size(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_pair(tmp_path))
    image = torch.rand(1, 3, 8, 12)
    _, inner = tokenizer.latent_and_inner(image)
    assert inner.keys() == {1}, "its one convolution reads the picture"
    assert torch.equal(inner[1], image)
    with pytest.raises(UsageError, match=r"no inner activations at stride 2, 4.*choose levels among 1"):
        tokenizer.level_channels((1, 2, 4))


@pytest.mark.parametrize(("pooling", "channels"), [("average", (8, 8)), ("max", (8, 8)), ("both", (16, 8))])
def test_levels_stand_pooled_behind_the_latent(pooling: str, channels: tuple[int, ...]) -> None:
    plain = small_gms("taesd")
    gms = with_levels(plain.tokenizer, (2, 4), pooling)
    assert gms.mapper.config.level_channels == channels
    images = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8)
    encoded, (latent, *levels) = gms.encode_levels(images), gms.encode_parts(images)
    assert torch.equal(encoded, torch.cat([latent, *levels], dim=1))
    assert torch.equal(latent, plain.encode_levels(images))
    assert torch.equal(latent, gms.encode_masks(images))
    _, inner = gms.tokenizer.latent_and_inner(images.permute(0, 3, 1, 2) / 255 * 2 - 1)
    wanted = {"average": [F.avg_pool2d], "max": [F.max_pool2d], "both": [F.avg_pool2d, F.max_pool2d]}[pooling]
    assert torch.allclose(levels[0], torch.cat([pool(inner[2], 2) for pool in wanted], dim=1), atol=1e-6)
    assert torch.allclose(levels[1], inner[4], atol=1e-6)
    assert torch.allclose(gms.map(encoded), gms.map_parts(latent, *levels), atol=1e-6)
    assert not torch.allclose(gms.map(encoded), gms.map_parts(latent, *(level + 1 for level in levels)), atol=1e-3)


def test_levels_are_standardised_by_what_they_were_fitted_to() -> None:
    gms = with_levels(small_gms("taesd").tokenizer, (1, 2, 4))
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    encoded = gms.encode_levels(images)
    encoded[:, -1] = 7.0  # a channel that says nothing
    gms.mapper.fit_levels(encoded)
    _, *levels = torch.split(encoded, list(gms.mapper.config.parts), dim=1)
    for module, level in zip(gms.mapper.levels, levels, strict=True):
        standard = (level - module.mean) / module.deviation
        assert standard.mean(dim=(0, 2, 3)).abs().max() < 1e-4
        assert standard.std(dim=(0, 2, 3)).max() < 1.001
        assert torch.allclose(module(level), F.conv2d(standard, module.mix.weight))
    silent = gms.mapper.levels[-1].deviation.flatten()[-1]
    assert silent == pytest.approx(float(gms.mapper.levels[-1].deviation[:, :-1].mean()) * 0.01, rel=0.3)


def test_gradients_reach_the_mapper_and_not_the_tokenizer() -> None:
    gms = with_levels(small_gms("taesd").tokenizer, (1, 4))
    before = gms.tokenizer.weights_sha256()
    encoded = gms.encode(torch.rand(2, 3, 16, 16))
    assert not encoded.requires_grad
    gms.mapper.supervised_latents(encoded)[0].square().mean().backward()
    assert all(level.mix.weight.grad.abs().sum() > 0 for level in gms.mapper.levels)
    assert gms.tokenizer.weights_sha256() == before
    trained = {name for name, _ in gms.mapper.named_parameters()}
    assert not any(name.endswith(("mean", "deviation")) for name in trained), "statistics stay"


def test_without_levels_the_model_is_the_one_before_them() -> None:
    config = LmmConfig()
    assert sum(p.numel() for p in LatentMapper(config).parameters()) == 1_564_976
    assert config.to_values() == {
        "latent_channels": 4,
        "width": 32,
        "multipliers": (1, 2, 4, 4),
        "groups": 16,
        "deep_supervision": True,
    }
    torch.manual_seed(0)
    plain = LatentMapper(LmmConfig(width=16)).state_dict()
    torch.manual_seed(0)
    levels = LatentMapper(LmmConfig(width=16, levels=(1, 2), level_channels=(3, 8))).state_dict()
    assert all(name.startswith("levels.") for name in levels.keys() - plain.keys())
    assert all(plain[name].shape == levels[name].shape for name in plain)


@pytest.mark.parametrize(
    "wrong", [{"levels": (1,)}, {"levels": (0,), "level_channels": (3,)}, {"levels": (1,), "level_channels": (0,)}]
)
def test_impossible_levels_are_refused(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ConfigError, match="do not go with"):
        LmmConfig(**wrong)


def test_a_tokenizer_with_other_levels_is_refused() -> None:
    mapper = LatentMapper(LmmConfig(4, 16, (1, 2), 8, levels=(1, 2), level_channels=(8, 9)))
    with pytest.raises(ConfigError, match=r"do not have the \[8, 9\] channels"):
        Gms(small_gms("taesd").tokenizer, mapper)


@pytest.mark.skipif(DATA is None, reason="GMS_RT_DATA is not set")
@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("vaelight", {2: "/lrelu_1/LeakyRelu_output_0", 4: "/lrelu_3/LeakyRelu_output_0"}),
        ("taef2", {1: "/1/fuse/Relu_output_0", 2: "/5/fuse/Relu_output_0", 4: "/9/fuse/Relu_output_0"}),
    ],
)
def test_published_pairs_give_the_last_activation_at_each_stride(name: str, tensors: dict[int, str]) -> None:
    import onnx
    import onnxruntime

    folder = Path(DATA) / "weights" / name
    tokenizer = load_tokenizer(f"onnx:{folder}")
    model = onnx.load(folder / "encoder.onnx")
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(tensor) for tensor in tensors.values())
    image = torch.rand(1, 3, 64, 96)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(list(tensors.values()), {session.get_inputs()[0].name: image.numpy()})
    _, found = tokenizer.latent_and_levels(image, tuple(tensors))
    for level, wanted in zip(found, expected, strict=True):
        assert torch.allclose(level, torch.from_numpy(wanted), atol=1e-4)
    assert sorted(tokenizer.latent_and_inner(image)[1]) == [1, 2, 4, 8]
