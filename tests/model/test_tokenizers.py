"""Tokenizers: one interface for every kind, and frozen means frozen."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from support.graphs import FLOAT, model_of

from gms_rt.errors import ArtifactError, ConfigError, UsageError
from gms_rt.model.diffusers_tokenizer import snap_to_codebook
from gms_rt.model.gms import Gms
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.onnx_torch import OnnxModule
from gms_rt.train.losses import dice_loss

diffusers = pytest.importorskip("diffusers")
DATA = os.environ.get("GMS_RT_DATA")
KL = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (32, 64),
    "norm_num_groups": 32,
}


def tiny(kind: str):
    torch.manual_seed(3)
    if kind == "taesd":
        wide = {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3}
        return diffusers.AutoencoderTiny(**wide, num_encoder_blocks=(0, 1, 1), num_decoder_blocks=(1, 1, 0))
    if kind == "sd-vae":
        return diffusers.AutoencoderKL(**KL, latent_channels=4, scaling_factor=0.18215, shift_factor=0.1)
    return diffusers.VQModel(**KL, latent_channels=3, num_vq_embeddings=32, vq_embed_dim=3, scaling_factor=0.5)


@pytest.fixture(scope="module", params=["taesd", "sd-vae", "vq"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    tiny(request.param).save_pretrained(path)
    return request.param, path


def test_a_folder_loads_with_its_own_numbers(folder):
    kind, path = folder
    tokenizer = load_tokenizer(f"{kind}:{path}")
    expected = {"taesd": (4, 4, 1.0, 0.0), "sd-vae": (4, 2, 0.18215, 0.1), "vq": (3, 2, 0.5, 0.0)}[kind]
    spec = tokenizer.spec
    assert (spec.channels, spec.stride, spec.scale, spec.shift) == expected
    image = torch.rand(1, 3, 16, 24) * 2 - 1
    latent = tokenizer.encode(image)
    assert latent.shape == (1, spec.channels, 16 // spec.stride, 24 // spec.stride)
    assert tokenizer.decode(latent).shape == image.shape


def test_it_computes_what_diffusers_computes(folder):
    kind, path = folder
    autoencoder, tokenizer = tiny(kind).eval(), load_tokenizer(f"{kind}:{path}")
    image = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        encoded = autoencoder.encode(image)
        latent = encoded.latent_dist.mode() if kind == "sd-vae" else encoded.latents
        decoded = autoencoder.decode(latent).sample
    assert torch.allclose(tokenizer.encode(image), latent, atol=1e-5)
    assert torch.allclose(tokenizer.decode(latent), decoded, atol=1e-4)


def test_training_through_the_decoder_leaves_the_tokenizer_as_it_was(folder):
    kind, path = folder
    tokenizer = load_tokenizer(f"{kind}:{path}")
    before = tokenizer.weights_sha256()
    gms = Gms(tokenizer, LatentMapper(LmmConfig(tokenizer.spec.channels, 16, (1, 2), 8)))
    gms.train()
    assert not any(module.training for module in tokenizer.modules())
    weights = [p for p in gms.parameters() if p.requires_grad]
    assert {id(p) for p in weights} == {id(p) for p in gms.mapper.parameters()}
    optimiser = torch.optim.AdamW(weights, lr=1e-2)
    image, mask = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    mask[:, :, 4:9, 4:9] = 1
    start = gms.mapper.stem.weight.detach().clone()
    latent = gms.encode(image)
    assert not latent.requires_grad
    for _ in range(2):
        # `drawing` rather than `probability`: a random decoder may lie outside the clamp altogether.
        loss = dice_loss(gms.drawing(gms.map(latent)).sigmoid(), mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert not torch.equal(gms.mapper.stem.weight, start)
    assert tokenizer.weights_sha256() == before
    assert all(p.grad is None for p in tokenizer.parameters())


def test_the_hash_sees_one_weight(folder):
    kind, path = folder
    tokenizer = load_tokenizer(f"{kind}:{path}")
    before = tokenizer.weights_sha256()
    next(iter(tokenizer.parameters())).data.view(-1)[0] += 1e-3
    assert tokenizer.weights_sha256() != before


def test_vq_snaps_to_the_nearest_code_and_lets_gradients_through():
    codebook = torch.tensor([[0.0, 0.0], [1.0, 1.0], [4.0, 0.0]])
    latent = torch.tensor([[[[0.2, 0.9, 3.0]], [[0.1, 0.8, 0.4]]]], requires_grad=True)
    out = snap_to_codebook(latent, codebook)
    assert torch.allclose(out.detach(), torch.tensor([[[[0.0, 1.0, 4.0]], [[0.0, 1.0, 0.0]]]]), atol=1e-6)
    out.sum().backward()
    assert torch.equal(latent.grad, torch.ones_like(latent))


def test_channels_must_fit(folder):
    kind, path = folder
    with pytest.raises(ConfigError, match="latent channels"):
        Gms(load_tokenizer(f"{kind}:{path}"), LatentMapper(LmmConfig(8, 16, (1, 2), 8)))


@pytest.mark.parametrize(
    "name",
    ["vq:", "onnx", "onnx:", "magic:x", "magic", "taesd:./nowhere", "sd-vae:/no/such", "onnx:/no", "compvis:/no"],
)
def test_wrong_names_are_refused(name):
    with pytest.raises(UsageError):
        load_tokenizer(name)


def test_offline_a_hub_id_says_what_to_fetch(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UsageError, match=r"hf download someone/absent config\.json diffusion_pytorch_model\.safetensors"
    ):
        load_tokenizer("sd-vae:someone/absent")


def test_compvis_layout_equals_diffusers_own_conversion(tmp_path):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    from gms_rt.model.compvis import to_diffusers

    autoencoder = tiny("sd-vae").eval()
    official = _compvis_names(autoencoder.state_dict())
    converted = convert_ldm_vae_checkpoint(dict(official), dict(autoencoder.config))
    ours = to_diffusers(official)
    assert ours.keys() == converted.keys() == autoencoder.state_dict().keys()
    assert all(torch.equal(ours[name].squeeze(), converted[name].squeeze()) for name in ours)
    torch.save({"state_dict": {f"first_stage_model.{k}": v for k, v in official.items()}}, tmp_path / "v.ckpt")
    tokenizer = load_tokenizer(f"compvis:{tmp_path / 'v.ckpt'}")
    assert (tokenizer.spec.scale, tokenizer.spec.stride, tokenizer.spec.channels) == (0.18215, 2, 4)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(tokenizer.encode(image), autoencoder.encode(image).latent_dist.mode(), atol=1e-5)


def _compvis_names(weights):
    """The inverse renaming, written independently: a table of plain replacements."""
    table = [
        ("conv_norm_out", "norm_out"),
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
        ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
        ("mid_block.attentions.0.to_", "mid.attn_1."),
        ("conv_shortcut", "nin_shortcut"),
        (".downsamplers.0.", ".downsample."),
        (".upsamplers.0.", ".upsample."),
        (".resnets.", ".block."),
        ("down_blocks", "down"),
        ("decoder.up_blocks.0", "decoder.up.ONE"),
        ("decoder.up_blocks.1", "decoder.up.0"),
        ("decoder.up.ONE", "decoder.up.1"),
    ]
    renamed = {}
    for name, value in weights.items():
        for new, old in table:
            name = name.replace(new, old)
        kernel = "mid.attn_1." in name and value.ndim == 2
        renamed[name] = value[:, :, None, None] if kernel else value
    return renamed


def _synthetic_graph(path: Path) -> None:
    """A graph with every operator that is handled."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(size=(4, 3, 3, 3)),
        "b1": rng.normal(size=4),
        "w2": rng.normal(size=(4, 4, 2, 2)),
        "w3": rng.normal(size=(6, 4, 3, 3)),
        "half": np.array(0.5),
        "ones": np.ones(4),
        "zeros": np.zeros(4),
        "near": np.array([1.0, 1, 2, 2]),
    }
    initialisers = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    initialisers.append(numpy_helper.from_array(np.array([0, 4, -1], np.int64), "flat"))
    node = helper.make_node
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], auto_pad="SAME_UPPER", strides=[2, 2]),
        node("LeakyRelu", ["a"], ["b"], alpha=0.1),
        node("ConvTranspose", ["b", "w2"], ["c"], strides=[2, 2]),
        node("Tanh", ["c"], ["d"]),
        node("AveragePool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", ["e", "", "near"], ["f"], **nearest),
        node("Resize", ["e", "", "near"], ["g"], mode="linear", coordinate_transformation_mode="half_pixel"),
        node("Sum", ["f", "g", "d"], ["h"]),
        node("Shape", ["h"], ["s"]),
        node("Reshape", ["h", "flat"], ["i"]),
        node("InstanceNormalization", ["i", "ones", "zeros"], ["j"], epsilon=1e-4),
        node("Reshape", ["j", "s"], ["k"]),
        node("Mul", ["k", "half"], ["l"]),
        node("Add", ["l", "h"], ["m"]),
        node("Sub", ["m", "half"], ["n"]),
        node("Div", ["n", "half"], ["o"]),
        node("Relu", ["o"], ["p"]),
        node("Conv", ["p", "w3"], ["y"], pads=[0, 1, 2, 1]),
    ]
    ends = [("x", FLOAT, ["n", 3, "h", "w"])], [("y", FLOAT, ["n", 6, "p", "q"])]
    onnx.save(model_of(nodes, *ends, initialisers, opset=17, ir_version=8), path)


def _agrees_with_onnxruntime(path: Path, x: torch.Tensor) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x.detach().numpy()})[0]
    found = OnnxModule(path)(x)
    assert np.abs(found.detach().numpy() - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


def test_every_handled_operator_agrees_with_onnxruntime_and_has_a_gradient(tmp_path):
    _synthetic_graph(tmp_path / "all.onnx")
    x = torch.randn(2, 3, 8, 12, requires_grad=True)
    _agrees_with_onnxruntime(tmp_path / "all.onnx", x)
    OnnxModule(tmp_path / "all.onnx")(x).square().mean().backward()
    assert x.grad.abs().sum() > 0


def test_an_unknown_operator_is_named(tmp_path):
    node = helper.make_node("Erf", ["x"], ["y"], name="strange")
    ends = [("x", FLOAT, [1, 3, 8, 8])], [("y", FLOAT, [1, 3, 8, 8])]
    onnx.save(model_of([node], *ends, opset=17, ir_version=8), tmp_path / "e.onnx")
    with pytest.raises(ArtifactError, match="'Erf'"):
        OnnxModule(tmp_path / "e.onnx")


def test_damaged_graphs_and_descriptions_are_refused(tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"\xffnot a graph")
    with pytest.raises(ArtifactError):
        OnnxModule(tmp_path / "encoder.onnx")
    _synthetic_graph(tmp_path / "encoder.onnx")
    _synthetic_graph(tmp_path / "decoder.onnx")
    (tmp_path / "tokenizer.json").write_text('{"latent_channels": 4}')
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        load_tokenizer(f"onnx:{tmp_path}")


@pytest.mark.skipif(DATA is None, reason="GMS_RT_DATA is not set")
@pytest.mark.parametrize("name", ["vaelight", "taef2"])
def test_published_onnx_pairs(name):
    folder = Path(DATA) / "weights" / name
    tokenizer = load_tokenizer(f"onnx:{folder}")
    _agrees_with_onnxruntime(folder / "encoder.onnx", torch.rand(1, 3, 64, 96))
    latent = torch.randn(1, tokenizer.spec.channels, 8, 12, requires_grad=True)
    _agrees_with_onnxruntime(folder / "decoder.onnx", latent)
    tokenizer.decode(latent).mean().backward()
    assert latent.grad.abs().sum() > 0
