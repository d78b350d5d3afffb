"""The comparators: published sizes, what training draws, folding, run folders, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from gms_rt.errors import ArtifactError, MissingExtraError, UsageError
from gms_rt.model.any_run import check_any_run, load_any_run
from gms_rt.model.comparators.ege_unet import EgeUNet
from gms_rt.model.comparators.layers import fold_norms
from gms_rt.model.comparators.network import Comparator, million_parameters
from gms_rt.model.comparators.registry import COMPARATORS, ComparatorFacts, comparator_facts
from gms_rt.model.comparators.run import load_comparator, save_comparator
from gms_rt.model.kind import COMPARATOR_WEIGHTS, is_student_run, weights_file
from gms_rt.model.run import check_run
from gms_rt.model.size import trained_size

CLOSE = 0.02
# The table gives 0.05; its paper 0.053, which is what is counted here.
OWN_PAPER = {"ege-unet": 0.053}
# Of these the GMS paper states nothing: DeepLabV3 with ResNet-50 is as torchvision has it; two are not in that paper.
NOT_STATED = {"deeplabv3-mixstyle": 39.63, "deeplabv3-dsu": 39.63, "depthwise-unet": 0.916, "basic-unet": 1.98}


def test_names_are_used_once() -> None:
    names = [facts.name for facts in COMPARATORS]
    assert len(set(names)) == len(names) >= 10


@pytest.mark.parametrize("facts", COMPARATORS, ids=lambda facts: facts.name)
def test_parameters_are_within_two_percent_of_the_published_ones(facts: ComparatorFacts) -> None:
    needs(facts)
    counted = million_parameters(facts)
    if facts.published is None:
        assert counted == pytest.approx(NOT_STATED[facts.name], rel=CLOSE)
        return
    assert counted == pytest.approx(OWN_PAPER.get(facts.name, facts.published), rel=CLOSE)


def needs(facts: ComparatorFacts) -> None:
    if not facts.installed:
        pytest.skip(f"needs the package {facts.package}")


def small(name: str = "ege-unet") -> Comparator:
    torch.manual_seed(1)
    return Comparator(comparator_facts(name), 32)


def test_ege_unet_learns_the_same_in_bf16() -> None:
    net = EgeUNet(64).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)

    def gradients(short: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=short):
            logits = net(images)
        return list(torch.autograd.grad(logits.float().square().mean(), [c.weight for c in dilated]))

    dilated = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv2d) and layer.dilation[0] > 1]
    assert len(dilated) == 15
    for short, full in zip(gradients(True), gradients(False), strict=True):
        assert torch.isfinite(short).all() and (short - full).norm() < 0.2 * full.norm() + 1e-6


def test_every_scale_of_ege_unet_is_supervised_and_the_result_comes_first() -> None:
    comparator = small().eval()
    pixels = torch.rand(2, 3, 32, 64)
    with torch.no_grad():
        said = comparator.supervised(pixels)
        assert torch.equal(said[0][1], comparator(pixels))
    assert [weight for weight, _ in said] == [1.0, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert {tuple(logits.shape) for _, logits in said} == {(2, 1, 32, 64)}


@pytest.mark.parametrize("name", ["deeplabv3-mixstyle", "deeplabv3-dsu"])
def test_styles_change_in_training_alone_and_follow_the_seed(name: str) -> None:
    with torch.device("meta"):
        network = comparator_facts(name).network(32)
    features = torch.rand(4, 8, 6, 6)

    def restyled(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return network.restyle(1, features)

    network.train()
    drawn = [restyled(seed) for seed in range(8)]
    assert 0 < sum(torch.equal(each, features) for each in drawn) < 8
    assert all(torch.equal(each, restyled(seed)) for seed, each in enumerate(drawn))
    network.eval()
    assert all(torch.equal(restyled(seed), features) for seed in range(8))


def test_folding_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gms_rt.model.comparators.unet._WIDTHS", (8, 16, 16, 16, 16))
    comparator = small("unet")
    pixels = torch.rand(2, 3, 32, 48)
    comparator(pixels)
    comparator.eval()
    folded = fold_norms(comparator)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        assert torch.allclose(folded(pixels), comparator(pixels), atol=1e-4)


def test_a_shifted_window_sees_nothing_across_the_picture_s_border() -> None:
    from gms_rt.model.comparators.windows import WindowAttention

    torch.manual_seed(2)
    attention = WindowAttention(32, 1, grid=8, window=4, shift=2)
    x = torch.rand(1, 32, 8, 8)
    changed = x.clone()
    changed[..., 0, :] += 1  # the upper border
    with torch.no_grad():
        moved = (attention(changed) - attention(x)).abs().sum(dim=1)[0]
    assert moved[0].min() > 1e-3 and moved[1].min() > 1e-4
    assert moved[6:].max() < 1e-5, "the lower border sees the upper one"


def test_a_run_comes_back_and_is_told_from_other_kinds(tmp_path: Path) -> None:
    comparator = small().eval()
    save_comparator(tmp_path, comparator)
    assert weights_file(tmp_path).name == COMPARATOR_WEIGHTS and trained_size(tmp_path) == 32
    assert not is_student_run(tmp_path)
    images = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    loaded = load_any_run(tmp_path)
    assert isinstance(loaded, Comparator) and torch.equal(loaded.segment(images), comparator.segment(images))
    check_any_run(tmp_path)
    with pytest.raises(UsageError, match="run of a comparator"):
        check_run(tmp_path)
    config = tmp_path / "config.toml"
    whole = config.read_text()
    config.write_text(whole.replace("ege-unet", "no-such-net"))
    with pytest.raises(ArtifactError, match="no-such-net"):
        load_comparator(tmp_path)
    config.write_text(whole.replace("version = 1", "version = 2"))
    with pytest.raises(ArtifactError, match="version 2"):
        load_any_run(tmp_path)
    config.write_text(whole.replace("size = 32", 'size = "32"'))
    with pytest.raises(ArtifactError, match="which comparator"):
        load_comparator(tmp_path)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="multiples of 32"):
        Comparator(comparator_facts("ege-unet"), 40)
    comparator = small()
    comparator.facts = replace(comparator.facts, fixed_size=True)
    with pytest.raises(UsageError, match="weights are for 32x32"):
        comparator.segment(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_uctransnet_s_weights_keep_their_names() -> None:
    """Runs of it were written before its transformer stood in a file of its own."""
    with torch.device("meta"):
        names = comparator_facts("uctransnet").network(224).state_dict()
    assert {name.partition(".")[0] for name in names} == {
        "first", "downs", "embeds", "places", "layers", "norms", "rebuilds", "ups", "head",
    }  # fmt: skip


def test_each_skip_of_acc_unet_takes_from_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gms_rt.model.comparators.acc_unet._WIDTHS", (8, 8, 16, 16))
    monkeypatch.setattr("gms_rt.model.comparators.acc_unet._LEVELS", (3, 2, 2, 1))
    compilation = small("acc-unet").eval().network.compilations[0]
    skips = [torch.rand(1, width, side, side) for width, side in ((8, 16), (8, 8), (16, 4))]
    with torch.no_grad():
        before = compilation(skips)
        assert [skip.shape for skip in before] == [skip.shape for skip in skips]
        for number, skip in enumerate(skips):
            changed = compilation([*skips[:number], skip + 1, *skips[number + 1 :]])
            assert all((a - b).abs().max() > 1e-6 for a, b in zip(before, changed, strict=True))


def test_superpixels_reach_the_skips_of_sme_swin_unet_and_external_attention_takes_them_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One token for each skip adds the same at every position, and shares of positions do not see that."""
    monkeypatch.setattr("gms_rt.model.comparators.swin_unet._WIDTHS", (32, 64))
    monkeypatch.setattr("gms_rt.model.comparators.swin_unet._BLOCKS", 1)
    network = small("sme-swin-unet").eval().network
    drawn, skip = torch.rand(1, 16, 16, 16), torch.rand(1, 32, 8, 8)
    with torch.no_grad():
        _, fused = network.fusion.fuse([drawn, skip])
        _, otherwise = network.fusion.fuse([10 * drawn.square(), skip])
        apart = otherwise - fused
        assert apart.abs().max() > 1e-4
        assert torch.allclose(apart, apart[..., :1, :1].expand_as(apart), atol=1e-6)
        external = network.externals[0]
        assert torch.allclose(external(fused), external(otherwise), atol=1e-7)
        assert not torch.allclose(external(fused), external(skip.flip(3)), atol=1e-9)


def test_a_model_whose_package_is_missing_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = replace(comparator_facts("ege-unet"), package="no_such_package")
    assert not facts.installed
    with pytest.raises(MissingExtraError, match=r"EGE-UNet needs the 'comparators' extra; run: pip install"):
        Comparator(facts, 32)
    save_comparator(tmp_path, small())
    monkeypatch.setattr("gms_rt.model.comparators.registry.COMPARATORS", (facts,))
    with pytest.raises(MissingExtraError):
        load_comparator(tmp_path)


def test_a_run_made_by_another_version_of_a_package_names_it(tmp_path: Path) -> None:
    comparator = small()
    comparator.facts = replace(comparator.facts, package="torch")
    save_comparator(tmp_path, comparator)
    assert f'package = "torch=={version("torch")}"' in (tmp_path / "config.toml").read_text()
    load_comparator(tmp_path)
    weights = {name: value for name, value in comparator.state_dict().items() if "head" not in name}
    save_comparator(tmp_path, comparator, weights=weights)
    with pytest.raises(ArtifactError, match=r"made by torch==.*; run: pip install 'torch=="):
        load_comparator(tmp_path)
