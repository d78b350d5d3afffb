"""A MONAI bundle that MONAI loads, a repository that `build` reads, configurations that nothing runs here."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.foreign_models import quiet
from support.hub_server import HubServer, hub_server
from support.packed_check import check
from support.precision_graphs import scenes

from gms_rt.cli.main import run
from gms_rt.engine.manifest import read_manifest
from gms_rt.engine.request import BuildRequest
from gms_rt.runtime.signal_stack import keep_signal_stack

REPOSITORY = "someone/tiny"


@pytest.fixture(scope="module")
def shared(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shared")
    hosts, graph = "monai-bundle,huggingface,holoscan,deepstream", str(engine.parent / "tiny.onnx")
    assert run(["pack", str(engine), "--for", hosts, "--graph", graph, "--out", str(out)]) == 0
    return out


def test_monai_loads_the_bundle_and_its_answer_is_the_engines(shared: Path, monkeypatch: Any, tmp_path: Path) -> None:
    import cv2

    with quiet():
        bundle = pytest.importorskip("monai.bundle")
    folder = shared / "monai-bundle"
    assert check(folder, monkeypatch, "--exact") == 0
    parser = bundle.ConfigParser()
    parser.read_meta(str(folder / "configs/metadata.json"))
    form = parser["_meta_::network_data_format"]
    assert form["inputs"]["image"]["spatial_shape"] == [64, 64] and form["inputs"]["image"]["dtype"] == "uint8"
    assert form["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "Segmented region"}
    (tmp_path / "pictures").mkdir()
    picture = cv2.resize(scenes(1, seed=5)[0], (90, 70))
    cv2.imwrite(str(tmp_path / "pictures/scan.png"), picture)
    # MONAI says of every configuration that it is a program, and ours is.
    with keep_signal_stack(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle.run(
            config_file=str(folder / "configs/inference.json"),
            bundle_root=str(folder),
            dataset_dir=str(tmp_path / "pictures"),
            output_dir=str(tmp_path / "eval"),
        )
    mask = cv2.imread(str(tmp_path / "eval/scan-mask.png"), cv2.IMREAD_GRAYSCALE)
    assert mask.shape == (70, 90) and set(np.unique(mask)) == {0, 255}


@pytest.fixture
def hub(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The hub's client asks the stand-in and keeps its cache apart."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants, file_download

    files = {path.name: path.read_bytes() for path in (shared / "huggingface").iterdir()}
    with hub_server({REPOSITORY: files}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):
            if hasattr(module, "HUGGINGFACE_CO_URL_TEMPLATE"):
                monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
        yield server


def test_a_shared_graph_is_built_by_its_name(hub: HubServer, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["build", f"hf:{REPOSITORY}", "--precision", "fp32", "--target", "cpu", "--json"]
    assert run(words) == 0
    assert json.loads(capsys.readouterr().out)["certificate"]["verdict"] == "pass"
    manifest = read_manifest(tmp_path / "engines/tiny-fp32")
    assert (manifest.source["kind"], manifest.source["hub"]) == ("graph", f"hf:{REPOSITORY}")
    assert (tmp_path / "engines/tiny-fp32/golden.npz").is_file()


def test_a_shared_graph_that_was_changed_is_refused(hub: HubServer, tmp_path: Path, capsys: Any) -> None:
    words = ["build", f"hf:{REPOSITORY}", "--precision", "fp32", "--out", str(tmp_path / "engine")]
    hub.files[REPOSITORY]["model.onnx"] += b"\0"
    assert run(words) == 1
    assert "model.onnx: is not what config.json says" in capsys.readouterr().err
    hub.files[REPOSITORY]["config.json"] = b'{"model_type": "bert"}'
    shutil.rmtree(tmp_path / "cache")
    assert run(words) == 1
    assert "is not a gms-rt-hub file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "code", "told"), [("hf:someone/absent", 2, "does not exist"), ("hf:nobody", 2, "write hf:OWNER/NAME")]
)
def test_what_the_hub_does_not_have_is_told(hub: HubServer, name: str, code: int, told: str, capsys: Any) -> None:
    assert run(["build", name, "--precision", "fp32"]) == code
    assert told in capsys.readouterr().err


def test_a_shared_graphs_engine_is_named_after_it() -> None:
    assert BuildRequest(Path("hf:someone/tiny@v1/x")).name == "tiny"
    assert BuildRequest(Path("hf:someone/tiny")).name == "tiny"


def test_the_model_card_begins_with_its_facts(shared: Path) -> None:
    text = (shared / "huggingface/README.md").read_text()
    front = text.split("---\n")[1]
    assert "license: apache-2.0" in front and "pipeline_tag: image-segmentation" in front
    assert "gms-rt build hf:OWNER/tiny-fp32 --precision fp16" in text


def test_only_the_engines_own_graph_is_shared(engine: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["pack", str(engine), "--for", "huggingface", "--out", str(tmp_path / "out")]
    assert run(words) == 2
    assert "--graph" in capsys.readouterr().err
    (tmp_path / "other.onnx").write_bytes(b"other")
    assert run([*words, "--graph", str(tmp_path / "other.onnx")]) == 2
    assert "is not the graph that this engine was built from" in capsys.readouterr().err
    assert not (tmp_path / "out/huggingface").exists()


@pytest.mark.parametrize("host", ["holoscan", "deepstream"])
def test_what_was_not_run_says_so(shared: Path, host: str) -> None:
    readme = (shared / host / "README.md").read_text()
    assert "**Not run here:**" in readme and "@@" not in readme
    for program in (shared / host).glob("*.py"):
        compile(program.read_text(), str(program), "exec")


def test_holoscans_configuration_names_the_models_tensors(shared: Path) -> None:
    yaml = pytest.importorskip("yaml")
    told = yaml.safe_load((shared / "holoscan/app.yaml").read_text())
    assert told["inference"]["pre_processor_map"] == {"segmenter": ["image"]}
    assert told["inference"]["inference_map"] == {"segmenter": ["mask"]}
    assert (told["preprocessor"]["resize_width"], told["preprocessor"]["resize_height"]) == (64, 64)


def test_deepstreams_repository_is_tritons(shared: Path) -> None:
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    text = (shared / "deepstream/model_repository/tiny-fp32/config.pbtxt").read_text()
    assert text_format.Parse(text, config.ModelConfig()).backend == "onnxruntime"
    assert 'model_name: "tiny-fp32"' in (shared / "deepstream/nvinferserver.txt").read_text()
