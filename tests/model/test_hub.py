"""Tokenizers from the hub, against a stand-in on loopback: right and wrong files, interruptions, refusals, offline."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.hub_server import COMMIT, HubServer, hub_server

from gms_rt.errors import ArtifactError, UsageError
from gms_rt.model import presets
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.presets import MOVED, PRESETS, WEIGHTS, HubFile, Preset

diffusers = pytest.importorskip("diffusers")
REPOSITORY = "someone/small-vae"


@pytest.fixture(scope="module")
def vae_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """config.json and weights of a tiny random autoencoder."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("vae")
    diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16), norm_num_groups=8, latent_channels=4, scaling_factor=0.3,
    ).save_pretrained(folder)  # fmt: skip
    return {name: (folder / name).read_bytes() for name in ("config.json", WEIGHTS)}


@pytest.fixture
def hub(vae_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub's client asks the stand-in and keeps its cache apart."""
    from huggingface_hub import constants, file_download

    with hub_server({REPOSITORY: {f"vae/{name}": data for name, data in vae_files.items()}}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):
            if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
                monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # it keeps whole chunks only
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
        yield server


def known(vae_files: dict[str, bytes]) -> Preset:
    """The small autoencoder as a preset with all its hashes."""
    files = tuple(HubFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in vae_files.items())
    return Preset("sd-vae", REPOSITORY, COMMIT, "vae", files, "MIT")


@pytest.fixture
def preset(vae_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Preset:
    """`--tokenizer small` stands for the small autoencoder."""
    small = known(vae_files)
    monkeypatch.setitem(presets.PRESETS, "small", small)
    return small


def test_a_preset_is_fetched_once_and_verified(hub: HubServer, preset: Preset) -> None:
    notes: list[str] = []
    tokenizer = load_tokenizer("small", note=notes.append)
    assert notes == []
    spec = tokenizer.spec
    assert (spec.kind, spec.source, spec.revision) == ("sd-vae", REPOSITORY, COMMIT)
    assert (spec.channels, spec.stride, spec.scale) == (4, 2, 0.3)
    assert tokenizer.decode(tokenizer.encode(torch.zeros(1, 3, 16, 16))).shape == (1, 3, 16, 16)
    fetched = [path for method, path, _ in hub.asked if method == "GET"]
    assert sorted(fetched) == [f"/{REPOSITORY}/resolve/{COMMIT}/vae/{name}" for name in ("config.json", WEIGHTS)]
    hub.status[REPOSITORY] = 404
    assert load_tokenizer("small").weights_sha256() == tokenizer.weights_sha256(), "from the cache"


def test_a_file_with_another_hash_is_refused(hub: HubServer, preset: Preset, vae_files: dict[str, bytes]) -> None:
    changed = bytearray(vae_files[WEIGHTS])
    changed[-1] ^= 1
    hub.files[REPOSITORY][f"vae/{WEIGHTS}"] = bytes(changed)
    with pytest.raises(ArtifactError, match=r"is not the file that .*\(SHA-256 [0-9a-f]{64} instead of") as refused:
        load_tokenizer("small")
    # What the message says to delete is the file itself, not a link to it; then the right one is fetched.
    (blob,) = re.findall(r"delete (\S+) and run", str(refused.value))
    assert Path(blob).is_file()
    assert not Path(blob).is_symlink()
    Path(blob).unlink()
    hub.files[REPOSITORY][f"vae/{WEIGHTS}"] = vae_files[WEIGHTS]
    assert load_tokenizer("small").spec.channels == 4


def test_a_file_of_another_size_is_refused(hub: HubServer, preset: Preset) -> None:
    hub.files[REPOSITORY]["vae/config.json"] = b"{}"
    with pytest.raises(ArtifactError, match=r"config\.json: is not the file that .*\(2 bytes instead of \d+\)"):
        load_tokenizer("small")


def test_an_interrupted_download_goes_on_where_it_stopped(hub: HubServer, preset: Preset) -> None:
    hub.cut[f"vae/{WEIGHTS}"] = 1
    assert load_tokenizer("small").spec.channels == 4
    ranges = [asked for method, path, asked in hub.asked if method == "GET" and path.endswith(WEIGHTS)]
    assert len(ranges) == 2
    assert not ranges[0]
    assert re.fullmatch(r"bytes=[1-9]\d*-", ranges[1])


def test_a_download_that_ends_early_leaves_nothing_to_mistake(
    hub: HubServer, preset: Preset, vae_files: dict[str, bytes]
) -> None:
    hub.cut[f"vae/{WEIGHTS}"] = 1000
    with pytest.raises(UsageError) as refused:
        load_tokenizer("small")
    assert "the same command goes on" in str(refused.value)
    hub.cut.clear()
    assert load_tokenizer("small").spec.channels == 4


@pytest.mark.parametrize(("status", "said"), [
    (404, "does not exist, or is private (was it taken down?)"), (401, "does not exist, or is private"),
    (403, "is open only to users who have accepted its terms"),
])  # fmt: skip
def test_a_repository_that_refuses_says_what_to_fetch_instead(
    hub: HubServer, preset: Preset, status: int, said: str
) -> None:
    hub.status[REPOSITORY] = status
    with pytest.raises(UsageError) as refused:
        load_tokenizer("small")
    message = str(refused.value)
    assert said in message
    assert "\n" not in message
    command = f"hf download {REPOSITORY} vae/config.json vae/{WEIGHTS} --revision {COMMIT} --local-dir FOLDER"
    assert command in message
    assert "--tokenizer sd-vae:FOLDER/vae" in message
    assert str(preset.files[1].sha256) in message


def test_an_unknown_revision_is_named(hub: HubServer, preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = "f" * 40
    monkeypatch.setitem(presets.PRESETS, "small", dataclasses.replace(preset, revision=absent))
    with pytest.raises(UsageError, match=f"has no revision {absent}"):
        load_tokenizer("small")


def test_offline_the_cache_is_enough_and_without_it_the_message_says_what_to_fetch(
    hub: HubServer, preset: Preset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    load_tokenizer("small")
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_tokenizer("small").spec.channels == 4
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(UsageError, match="cannot be reached, and its files are not in the cache"):
        load_tokenizer("small")
    assert len(hub.asked) == asked, "offline asks nobody"


def test_what_the_offline_message_says_works(
    hub: HubServer, preset: Preset, vae_files: dict[str, bytes], tmp_path: Path
) -> None:
    for name, data in vae_files.items():
        (tmp_path / "FOLDER" / "vae").mkdir(parents=True, exist_ok=True)
        (tmp_path / "FOLDER" / "vae" / name).write_bytes(data)
    tokenizer = load_tokenizer(f"sd-vae:{tmp_path / 'FOLDER' / 'vae'}")
    assert tokenizer.weights_sha256() == load_tokenizer("small").weights_sha256()


def test_any_hub_id_is_found_in_its_usual_folders_and_said_to_be_unverified(hub: HubServer) -> None:
    notes: list[str] = []
    assert load_tokenizer(f"sd-vae:{REPOSITORY}", note=notes.append).spec.revision is None
    assert notes == [f"{REPOSITORY} on the hub: config.json and {WEIGHTS} not verified, no hash is known"]
    files = hub.files[REPOSITORY]
    hub.files["someone/elsewhere"] = {name.replace("vae/", "vqvae/"): data for name, data in files.items()}
    assert load_tokenizer("sd-vae:someone/elsewhere").spec.channels == 4
    hub.files["someone/empty"] = {"README.md": b"nothing"}
    with pytest.raises(UsageError, match=r"has no config\.json"):
        load_tokenizer("sd-vae:someone/empty")


def test_older_repositories_have_weights_as_bin(hub: HubServer, tmp_path: Path, vae_files: dict[str, bytes]) -> None:
    from safetensors.torch import load

    torch.save(load(vae_files[WEIGHTS]), tmp_path / "w.bin")
    hub.files["someone/older"] = {
        "config.json": vae_files["config.json"],
        "diffusion_pytorch_model.bin": (tmp_path / "w.bin").read_bytes(),
    }
    assert load_tokenizer("sd-vae:someone/older").spec.channels == 4


def test_a_run_of_a_repository_that_was_taken_down_finds_the_same_weights(
    hub: HubServer, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = "someone/gone"
    monkeypatch.setitem(MOVED, gone, "small")
    tokenizer = load_tokenizer(f"sd-vae:{gone}")
    assert tokenizer.spec.source == gone, "as the run names it"
    assert tokenizer.weights_sha256() == load_tokenizer("small").weights_sha256()
    assert not any(gone in path for _, path, _ in hub.asked), "its old home is not asked"


def test_offline_a_folder_of_the_repository_is_found_in_the_cache_too(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vae_files: dict[str, bytes]
) -> None:
    from huggingface_hub import constants
    from safetensors.torch import load

    torch.save(load(vae_files[WEIGHTS]), tmp_path / "w.bin")
    pickled = {
        "config.json": vae_files["config.json"],
        "diffusion_pytorch_model.bin": (tmp_path / "w.bin").read_bytes(),
    }
    hub.files["someone/other"] = {f"vae/{name}": data for name, data in vae_files.items()}
    hub.files["someone/older"] = {f"vae/{name}": data for name, data in pickled.items()}
    for name in ("someone/other", "someone/older"):
        load_tokenizer(f"sd-vae:{name}")
    asked = len(hub.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("someone/other", "someone/older"):
        assert load_tokenizer(f"sd-vae:{name}").spec.channels == 4
    with pytest.raises(UsageError, match="cannot be reached, and its files are not in the cache"):
        load_tokenizer("sd-vae:someone/never-fetched")
    monkeypatch.setitem(MOVED, "someone/other", "sd-vae")
    assert load_tokenizer("sd-vae:someone/other").spec.channels == 4, "what an earlier download left"
    assert len(hub.asked) == asked, "offline asks nobody"


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    only_cache: list[bool] = []

    def unreachable(repository: str, name: str, **options: bool) -> str:
        only_cache.append(options["local_files_only"])
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(UsageError, match="cannot be reached"):
        load_tokenizer("sd-vae:someone/other")
    assert only_cache == [False, True, True], "its other folders are looked for in the cache alone"


def test_the_clients_own_variable_names_the_stand_in(vae_files: dict[str, bytes], tmp_path: Path) -> None:
    code = (
        "import sys; from gms_rt.model.loading import load_tokenizer;"
        f"print(load_tokenizer('sd-vae:{REPOSITORY}', note=lambda line: print(line, file=sys.stderr)).spec.scale)"
    )
    with hub_server({REPOSITORY: vae_files}) as server:
        environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home")}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0.3"
    assert "not verified" in done.stderr


def test_the_table_is_sound() -> None:
    assert not set(MOVED) & {preset.repository for preset in PRESETS.values()}, "no preset is where it was taken down"
    assert set(MOVED.values()) <= set(PRESETS)
    for name, preset in PRESETS.items():
        assert [file.name for file in preset.files] == ["config.json", WEIGHTS], name
        assert preset.licence, name
        assert preset.revision is None or re.fullmatch("[0-9a-f]{40}", preset.revision), name
        for file in preset.files:
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256), name
    assert PRESETS["sd-vae"].files[1] == PRESETS["sd-vae-ft-mse"].files[1], "as the docstring says"
