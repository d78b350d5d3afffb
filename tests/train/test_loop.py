"""Training: run folders, determinism, resume after any kill, and what stops it."""

from __future__ import annotations

import csv
import errno
import hashlib
import multiprocessing
import multiprocessing.context
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.clock import LookedAtClock
from support.phantom_folders import write_pair, write_phantoms, write_tokenizer

from gms_rt import artifacts
from gms_rt.config import read_toml
from gms_rt.data.layouts import recognise
from gms_rt.data.splits import Split, split_dataset
from gms_rt.errors import GmsError, UsageError
from gms_rt.model.loading import load_tokenizer
from gms_rt.model.run import load_run
from gms_rt.model.tokenizer import Tokenizer
from gms_rt.train.loop import train, training_fingerprint
from gms_rt.train.predict import segmenter_from_run
from gms_rt.train.recipe import TrainingRecipe, load_recipe
from gms_rt.train.request import Outcome, TrainingRequest
from gms_rt.train.start import first_weights

SMALL = ("size=32", "width=8", "groups=4", "multipliers=[1,2]", "batch=4", "save_seconds=0", "threads=1")


def recipe(name: str, *settings: str) -> TrainingRecipe:
    return load_recipe(name, [*SMALL, *settings])


def run(
    dataset: Path, tokenizer: str, out: Path, how: TrainingRecipe, *, init: Path | None = None, resume: bool = False
) -> Outcome:
    data = recognise(dataset)
    split = split_dataset(data, validation=0.2)
    return train(TrainingRequest(data, split, load_tokenizer(tokenizer), how, out, init=init, resume=resume))


def weights(folder: Path, name: str = "last.safetensors") -> bytes:
    return (folder / name).read_bytes()


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def events(folder: Path) -> list[int]:
    """The steps in which TensorBoard finds the loss."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = (folder / "tensorboard").iterdir()
    found = EventFileLoader(str(file)).Load()
    return [event.step for event in found if "loss" in {value.tag for value in event.summary.value}]


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    return write_phantoms(tmp_path / "data")


@pytest.fixture(scope="module")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its latents hold masks in a linear way, so that the linear decoder of `fast` fits."""
    return write_pair(tmp_path_factory.mktemp("pair"))


FAST = recipe("fast", "latent_epochs=3", "epochs=2", "views=2")
PAPER = recipe("paper", "epochs=2")
OFFICIAL = recipe("official", "epochs=2", "latent_noise=0")  # the tiny tokenizer has no posterior


@pytest.mark.parametrize("how", [FAST, PAPER, OFFICIAL], ids=["fast", "paper", "official"])
def test_a_training_leaves_a_whole_run(
    phantoms: Path, tiny_tokenizer: str, tmp_path: Path, how: TrainingRecipe
) -> None:
    outcome = run(phantoms, tiny_tokenizer, tmp_path / "run", how)
    assert outcome.epochs == how.epochs + how.latent_epochs
    assert 0 <= outcome.best_dice <= 1
    rows = table(tmp_path / "run")
    assert [int(row["epoch"]) for row in rows] == list(range(1, outcome.epochs + 1))
    assert max(float(row["validation_dice"]) for row in rows) == outcome.best_dice
    assert events(tmp_path / "run") == [int(row["step"]) for row in rows]
    segmenter = segmenter_from_run(tmp_path / "run")
    assert (segmenter.height, segmenter.width) == (how.size, how.size)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert set(np.unique(segmenter(image))) <= {0, 255}
    assert segmenter(image).shape == (40, 50)


def test_the_loss_falls(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    run(phantoms, tiny_tokenizer, tmp_path / "run", recipe("fast", "latent_epochs=12", "epochs=1", "views=2"))
    losses = [float(row["latent_loss"]) for row in table(tmp_path / "run")]
    assert losses[11] < 0.7 * losses[0]


def test_a_training_starts_from_another_run(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    first, tuned = tmp_path / "first", tmp_path / "tuned"
    run(phantoms, tiny_tokenizer, first, recipe("fast", "latent_epochs=12", "epochs=1", "views=2"))
    # With steps too small to change anything, the new run is the old one.
    still = recipe("fast", "latent_epochs=1", "epochs=0", "views=2", "lr=1e-30", "weight_decay=0.0", "average=0.0")
    run(phantoms, tiny_tokenizer, tuned, still, init=first)
    assert weights(tuned, "lmm.safetensors") == weights(first, "lmm.safetensors")
    assert read_toml(tuned / "config.toml")["origin"] == {
        "run": "first",
        "sha256": hashlib.sha256(weights(first, "lmm.safetensors")).hexdigest(),
    }
    with pytest.raises(UsageError, match=r"another start.*--init"):
        run(phantoms, tiny_tokenizer, tuned, still, resume=True)
    run(phantoms, tiny_tokenizer, tuned, still, init=first, resume=True)
    other = recipe("fast", "latent_epochs=1", "epochs=0", "views=2", "width=16")
    with pytest.raises(UsageError, match=r"width=8.*needs.*width=16"):
        run(phantoms, tiny_tokenizer, tmp_path / "other", other, init=first)
    with pytest.raises(UsageError, match="not a run folder"):
        run(phantoms, tiny_tokenizer, tmp_path / "other", other, init=phantoms)


def test_latent_steps_learn_the_mask_where_the_linear_decoder_fits(
    phantoms: Path, tiny_tokenizer: str, pair: str, tmp_path: Path
) -> None:
    for tokenizer, name in ((pair, "pair"), (tiny_tokenizer, "tiny")):
        for weight in (0, 1):
            how = recipe("fast", "latent_epochs=8", "epochs=0", "views=4", f"linear_decoder={weight}")
            run(phantoms, tokenizer, tmp_path / f"{name}-{weight}", how)
    assert weights(tmp_path / "tiny-0") == weights(tmp_path / "tiny-1")
    without, with_it = (float(table(tmp_path / f"pair-{s}")[-1]["validation_dice"]) for s in (0, 1))
    assert with_it > without + 0.1


def test_a_training_of_the_first_version_goes_on(phantoms: Path, pair: str, tmp_path: Path) -> None:
    """Its states say `sketch`, and hash the recipe under that name."""
    settings = ["latent_epochs=6", "epochs=0", "views=2", "save_seconds=1000"]
    run(phantoms, pair, tmp_path / "whole", recipe("fast", *settings))
    halt = iter(range(14))

    def stop(stage: str, done: int, total: int, note: str) -> None:
        if next(halt, None) == 13:
            signal.raise_signal(signal.SIGINT)

    data = recognise(phantoms)
    split, tokenizer = split_dataset(data, validation=0.2), load_tokenizer(pair)
    request = TrainingRequest(data, split, tokenizer, recipe("fast", *settings), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(request, stop)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["linear_decoder"] is not None
    state |= {"format": "gms-rt-training-1", "sketch": state.pop("linear_decoder")}
    torch.save(state, tmp_path / "run" / "last.pt")
    for config in tmp_path.glob("*/config.toml"):
        config.write_text(config.read_text().replace("linear_decoder = ", "sketch = "))
    run(phantoms, pair, tmp_path / "run", recipe("fast", *settings, "sketch=1"), resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert read_toml(tmp_path / "run" / "config.toml")["training"]["sketch"] == 1
    assert segmenter_from_run(tmp_path / "run").width == 32
    before = "e74fd569efc1395c13187b8f46414dfbf7cb69c37a446639082ebccb4624c46c"  # written by the first version
    how = load_recipe("fast", ["size=32", "width=8"])
    assert training_fingerprint(how, split, tokenizer, first_weights(load_recipe("fast"), 4))["recipe"] == before


def test_half_precision_forward_keeps_float32_weights(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    for name in ("bf16", "fp32"):
        run(phantoms, tiny_tokenizer, tmp_path / name, recipe("paper", "epochs=1", f"precision={name}"))
    half, full = (load_run(tmp_path / name).mapper.state_dict() for name in ("bf16", "fp32"))
    assert weights(tmp_path / "bf16") != weights(tmp_path / "fp32")
    for key, value in half.items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, full[key], atol=0.05), key


def test_a_training_without_progress_ends_early(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    """With steps too small to change anything, the first epoch stays the best; and a resume does not go on."""
    still = recipe("paper", "epochs=9", "lr=1e-30", "weight_decay=0.0", "patience=3")
    for resume in (False, True):
        outcome = run(phantoms, tiny_tokenizer, tmp_path / "run", still, resume=resume)
        assert [int(row["epoch"]) for row in table(tmp_path / "run")] == [1, 2, 3, 4]
        assert outcome.best_epoch == 1
    run(phantoms, tiny_tokenizer, tmp_path / "whole", recipe("paper", "epochs=5", "lr=1e-30", "weight_decay=0.0"))
    assert len(table(tmp_path / "whole")) == 5


def test_same_seed_same_weights(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(phantoms, tiny_tokenizer, tmp_path / name, recipe("paper", "epochs=1", f"seed={seed}"))
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_frozen_means_frozen(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_tokenizer)
    before = tokenizer.weights_sha256()
    data = recognise(phantoms)
    split = split_dataset(data, validation=0.2)
    train(TrainingRequest(data, split, tokenizer, recipe("paper", "epochs=1"), tmp_path / "run"))
    assert tokenizer.weights_sha256() == before
    assert all(p.grad is None and not p.requires_grad for p in tokenizer.parameters())


def go_on_until(
    dataset: Path, tokenizer: str, out: Path, name: str, settings: str, stop: tuple[int, int, signal.Signals]
) -> None:
    """Go on with a training, and after so many pieces of work and function calls more send this process a signal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    work, calls, number = stop
    pieces_left, calls_left = iter(range(work, -1, -1)), iter(range(calls, -1, -1))

    def count_calls(*_: object) -> None:
        if next(calls_left, None) == 0:
            sys.setprofile(None)
            os.kill(os.getpid(), number)

    def count(*_: object) -> None:
        if next(pieces_left, None) == 0:
            sys.setprofile(count_calls)

    data = recognise(dataset)
    split = split_dataset(data, validation=0.2)
    how = recipe(name, *settings.split())
    train(TrainingRequest(data, split, load_tokenizer(tokenizer), how, out, resume=True), count)


@pytest.fixture(scope="module")
def forks() -> multiprocessing.context.ForkServerContext:
    """Fresh processes in which the slow libraries are loaded already."""
    context = multiprocessing.get_context("forkserver")
    libraries = ["tensorboard.summary.writer.record_writer", "diffusers.models.autoencoders.autoencoder_tiny"]
    context.set_forkserver_preload(["gms_rt.train.loop", *libraries])
    return context


def exit_code(forks: multiprocessing.context.ForkServerContext, *arguments: object) -> int | None:
    process = forks.Process(target=go_on_until, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "kind"),
    [("fast", "latent_epochs=20 epochs=6 views=3", "pair"), ("official", "epochs=12 latent_noise=0", "tiny_tokenizer")],
    ids=["fast", "official"],
)
def test_kills_at_any_moment_change_nothing(
    phantoms: Path,
    tmp_path: Path,
    name: str,
    settings: str,
    kind: str,
    request: pytest.FixtureRequest,
    forks: multiprocessing.context.ForkServerContext,
) -> None:
    tokenizer = request.getfixturevalue(kind)
    run(phantoms, tokenizer, tmp_path / "whole", recipe(name, *settings.split()))
    chance = random.Random(5)
    killed = 0
    for _ in range(6):
        moment = (chance.randrange(5), chance.randrange(20_000), signal.SIGKILL)
        killed += exit_code(forks, phantoms, tokenizer, tmp_path / "torn", name, settings, moment) == -signal.SIGKILL
    assert killed >= 4
    run(phantoms, tokenizer, tmp_path / "torn", recipe(name, *settings.split()), resume=True)
    for file in ("last.safetensors", "lmm.safetensors"):
        assert weights(tmp_path / "torn", file) == weights(tmp_path / "whole", file)
    assert events(tmp_path / "torn") == events(tmp_path / "whole"), "each epoch once"


STOPPED = "latent_epochs=30 epochs=4 views=2 save_seconds=1000"


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: str) -> tuple[Path, bytes]:
    """A data set, and the weights that a training on it ends with."""
    folder = tmp_path_factory.mktemp("never-stopped")
    data = write_phantoms(folder / "data")
    run(data, tiny_tokenizer, folder / "whole", recipe("fast", *STOPPED.split()))
    return data, weights(folder / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_polite_stop_saves_and_resumes_to_the_same(
    never_stopped: tuple[Path, bytes],
    tiny_tokenizer: str,
    tmp_path: Path,
    number: signal.Signals,
    forks: multiprocessing.context.ForkServerContext,
) -> None:
    data, expected = never_stopped
    code = exit_code(forks, data, tiny_tokenizer, tmp_path / "torn", "fast", STOPPED, (9, 0, number))
    assert code not in (0, None, -number)
    assert (tmp_path / "torn" / "last.pt").is_file()
    run(data, tiny_tokenizer, tmp_path / "torn", recipe("fast", *STOPPED.split()), resume=True)
    assert weights(tmp_path / "torn") == expected


def test_losses_that_are_read_later_are_the_same(
    phantoms: Path, tiny_tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's are read when it has its next step."""
    from gms_rt.train import steps

    def rows(name: str) -> list[list[str]]:
        return [[v for k, v in row.items() if "second" not in k] for row in table(tmp_path / name)]

    run(phantoms, tiny_tokenizer, tmp_path / "now", PAPER)
    monkeypatch.setattr(steps, "_lag", lambda device: 1)
    run(phantoms, tiny_tokenizer, tmp_path / "later", PAPER)
    assert weights(tmp_path / "later") == weights(tmp_path / "now")
    assert rows("later") == rows("now")


def test_dropped_cases_are_not_counted(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    outcome = run(phantoms, tiny_tokenizer, tmp_path / "run", recipe("paper", "epochs=1", "batch=5", "last_batch=drop"))
    split = split_dataset(recognise(phantoms), validation=0.2)
    assert len(split.train) % 5
    assert outcome.images_per_second * outcome.seconds == pytest.approx(len(split.train) // 5 * 5)


@pytest.mark.parametrize("lag", [0, 1])
def test_nan_names_the_batch_and_keeps_the_last_good_state(
    phantoms: Path, tiny_tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lag: int
) -> None:
    from gms_rt.train import objective, steps

    monkeypatch.setattr(steps, "_lag", lambda device: lag)
    calls = []

    def poisoned(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return torch.nn.functional.mse_loss(predicted, target) * (float("nan") if len(calls) == 60 else 1)

    monkeypatch.setattr(objective, "latent_loss", poisoned)
    with pytest.raises(GmsError, match=r"loss is nan in epoch \d+, batch \d+, with cases case_\d+") as caught:
        run(phantoms, tiny_tokenizer, tmp_path / "run", recipe("fast", "latent_epochs=30", "views=2"))
    assert "checkpoint is kept" in caught.value.line()
    assert all(value.isfinite().all() for value in load_run(tmp_path / "run").mapper.state_dict().values())
    assert (tmp_path / "run" / "last.pt").is_file()


def test_a_full_disk_keeps_the_last_good_state(
    phantoms: Path, tiny_tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = recipe("paper", "epochs=6")
    run(phantoms, tiny_tokenizer, tmp_path / "whole", how)
    real, room = Path.write_bytes, [12]

    def scarce(self: Path, data: bytes) -> int:
        room[0] -= 1
        if room[0] < 0:
            real(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", scarce)
        with pytest.raises(GmsError, match="no space left"):
            run(phantoms, tiny_tokenizer, tmp_path / "torn", how)
    assert not list((tmp_path / "torn").rglob(".part-*"))
    run(phantoms, tiny_tokenizer, tmp_path / "torn", how, resume=True)
    assert weights(tmp_path / "torn") == weights(tmp_path / "whole")


def test_a_run_is_neither_overwritten_nor_mixed(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    run(phantoms, tiny_tokenizer, tmp_path / "run", PAPER)
    with pytest.raises(UsageError, match="already contains a run"):
        run(phantoms, tiny_tokenizer, tmp_path / "run", PAPER)
    with pytest.raises(UsageError, match="another recipe"):
        run(phantoms, tiny_tokenizer, tmp_path / "run", recipe("paper", "epochs=2", "lr=1e-4"), resume=True)


def test_a_damaged_state_is_refused(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    run(phantoms, tiny_tokenizer, tmp_path / "run", PAPER)
    state = tmp_path / "run" / "last.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(artifacts.ArtifactError, match="cannot be resumed"):
        run(phantoms, tiny_tokenizer, tmp_path / "run", PAPER, resume=True)


def test_the_best_is_chosen_on_validation_and_test_is_never_read(
    phantoms: Path, tiny_tokenizer: str, tmp_path: Path
) -> None:
    data = recognise(phantoms)
    split = split_dataset(data, validation=0.2)
    for case in data.named(split.test):
        case.image.unlink()
    tokenizer: Tokenizer = load_tokenizer(tiny_tokenizer)
    outcome = train(TrainingRequest(data, split, tokenizer, PAPER, tmp_path / "run"))
    rows = table(tmp_path / "run")
    best = max(rows, key=lambda row: (float(row["validation_dice"]), -float(row["validation_loss"])))
    assert int(best["epoch"]) == outcome.best_epoch


def test_without_validation_the_last_weights_stay(phantoms: Path, tiny_tokenizer: str, tmp_path: Path) -> None:
    data = recognise(phantoms)
    split: Split = split_dataset(data, validation=0)
    train(TrainingRequest(data, split, load_tokenizer(tiny_tokenizer), PAPER, tmp_path / "run"))
    assert weights(tmp_path / "run") == weights(tmp_path / "run", "lmm.safetensors")


def test_minutes_end_a_training_inside_an_epoch_with_the_rate_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gms_rt.train import steps

    monkeypatch.setattr(steps, "time", LookedAtClock(1.0))
    data, tokenizer = write_phantoms(tmp_path / "data"), write_pair(tmp_path / "pair")
    how = recipe("paper", "epochs=1000", "minutes=0.5", "warmup=1", "validate_every=1000")
    split, said = split_dataset(recognise(data), validation=0.2), []
    request = TrainingRequest(recognise(data), split, load_tokenizer(tokenizer), how, tmp_path / "run")
    outcome = train(request, lambda stage, done, total, note: said.append((stage, done, total)))
    rows = table(tmp_path / "run")
    assert outcome.seconds >= 30
    assert said[-1] == ("train", 30, 30)  # seconds, as no steps are given
    assert outcome.best_epoch == len(rows) < 1000
    assert int(rows[-1]["step"]) % int(rows[0]["step"])  # the last epoch is not whole
    assert rows[-1]["validation_dice"]
    assert [row["validation_dice"] for row in rows[:-1]] == [""] * (len(rows) - 1)
    rates = [float(row["lr"]) for row in rows]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 * how.lr < rates[0]
    # The time is spent: the same command again adds nothing.
    again = run(data, tokenizer, tmp_path / "run", how, resume=True)
    assert again.seconds == outcome.seconds
    assert table(tmp_path / "run") == rows


def test_minutes_go_with_one_kind_of_epochs() -> None:
    with pytest.raises(GmsError, match="the clock can end only one"):
        recipe("fast", "minutes=5")
    assert recipe("fast", "minutes=5", "epochs=0").minutes == 5
    assert "minutes" not in recipe("fast").to_values()
