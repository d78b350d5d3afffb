"""`gms-rt export` and `gms-rt import-official`: one line for every mistake, and the chain from checkpoint to graph."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from gms_rt.cli.main import run
from gms_rt.model.lmm import LatentMapper, LmmConfig
from gms_rt.model.official import official_names

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def ingredients(tmp_path_factory) -> Path:
    """A checkpoint with official names, and a tokenizer folder."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("ingredients")
    weights = LatentMapper(LmmConfig(width=16)).state_dict()
    names = official_names(LmmConfig(width=16))
    torch.save({"model": {official: weights[ours] for official, ours in names.items()}}, folder / "best_model.pth")
    wide = {"encoder_block_out_channels": (8,) * 3, "decoder_block_out_channels": (8,) * 3}
    blocks = {"num_encoder_blocks": (0, 0, 1), "num_decoder_blocks": (1, 0, 0)}
    diffusers.AutoencoderTiny(**wide, **blocks).save_pretrained(folder / "tokenizer")
    return folder


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    code = run([str(a) for a in arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.slow
def test_from_checkpoint_to_graph(ingredients, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ingredients)  # a relative tokenizer must be found from anywhere later
    imported = tmp_path / "run"
    code, out, _ = call(
        capsys, "import-official", "best_model.pth", "--tokenizer", "taesd:tokenizer", "--out", imported, "--json"
    )
    assert code == 0 and json.loads(out)["keys"] == 196
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "export", "run", "--size", "32x48", "--out", "g.onnx", "--json")
    facts = json.loads(out)
    assert (code, facts["height"], facts["width"], facts["opset"]) == (0, 32, 48, 18)
    assert facts["bytes"] == (tmp_path / "g.onnx").stat().st_size
    model = onnx.load(tmp_path / "g.onnx")
    text = " ".join(p.value for p in model.metadata_props)
    assert str(ingredients) not in text, "a graph must not tell where its tokenizer lay"

    # Without --size a graph is as large as the pictures of the training.
    config = imported / "config.toml"
    config.write_text(config.read_text() + "\n[training]\nsize = 40\n")
    code, out, _ = call(capsys, "export", "run", "--out", "trained.onnx", "--json")
    facts = json.loads(out)
    assert (code, facts["height"], facts["width"]) == (0, 40, 40)
    config.write_text(config.read_text().replace("size = 40", 'size = "large"'))
    code, _, err = call(capsys, "export", "run", "--out", "broken.onnx")
    assert code == 2 and "config.toml" in err and "'large'" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["export", "absent"], 2, "is not a folder"),
        (["export", ".", "--out", "x.onnx"], 2, "not a run folder"),
        (["export", ".", "--size", "12by4"], 2, "HEIGHTxWIDTH"),
        (["export", ".", "--batch", "a"], 2, "1-8"),
        (["export", ".", "--out", "graph.bin"], 2, ".onnx"),
        (["import-official", "absent.pth", "--tokenizer", "taesd:tokenizer", "--out", "r"], 2, "is not a file"),
        (["import-official", "best_model.pth", "--tokenizer", "wrong", "--out", "r"], 2, "choose a preset (sd-vae,"),
        (["import-official", "best_model.pth", "--tokenizer", "taesd:tokenizer", "--out", "tokenizer"], 2, "exists"),
        (["import-official", "note.txt", "--tokenizer", "taesd:tokenizer", "--out", "r"], 1, "checkpoint"),
    ],
)
def test_mistakes_are_one_line(ingredients, capsys, monkeypatch, arguments, code, words):
    monkeypatch.chdir(ingredients)
    Path("note.txt").write_text("no checkpoint")
    found, out, err = call(capsys, *arguments)
    assert (found, out) == (code, "")
    assert words in err and len(err.strip().splitlines()) == 1
    assert not Path("r").exists() and not Path("x.onnx").exists()
