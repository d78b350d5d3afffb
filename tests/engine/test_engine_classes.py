"""The classes of an engine's mask: from the graph, the run or a file, into the manifest, and out to whoever runs it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from support.precision_graphs import scenes, tiny_graph
from support.small_builds import build, built

from gms_rt.artifacts import read_json, write_json
from gms_rt.class_lists import classes_from_file, classes_value, values_from_classes
from gms_rt.classes import DEFAULT_CLASSES, SegmentClass
from gms_rt.cli.main import run
from gms_rt.engine.manifest import CERTIFICATE, read_manifest, verify_files
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.select import load
from gms_rt.engine.signature import SIGNATURE
from gms_rt.engine.source import read_source
from gms_rt.errors import ArtifactError, ConfigError

CYST, TUMOUR = SegmentClass("Cyst", colour=(0, 255, 0)), SegmentClass("Tumour")


def class_file(folder: Path, *classes: SegmentClass) -> Path:
    path = folder / "classes.json"
    write_json(path, classes_value(classes))
    return path


def named_graph(folder: Path, text: str) -> Path:
    """The small graph with this in its metadata."""
    path = tiny_graph(folder)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"gms_rt.classes": text})
    onnx.save(model, path)
    return path


def test_an_engine_without_classes_says_nothing_of_them(graph: Path, tmp_path: Path) -> None:
    manifest = build(graph, tmp_path / "e", "fp32")
    assert "classes" not in read_json(tmp_path / "e/engine.json")
    assert manifest.segment_classes == DEFAULT_CLASSES


def test_classes_of_a_graph_reach_the_engine_and_a_file_comes_before_them(tmp_path: Path) -> None:
    graph = named_graph(tmp_path, json.dumps(values_from_classes([CYST])))
    assert build(graph, tmp_path / "e", "fp32").segment_classes == (CYST,)
    manifest = build(graph, tmp_path / "f", "fp32", classes=class_file(tmp_path, TUMOUR, CYST))
    assert read_manifest(tmp_path / "f").segment_classes == manifest.segment_classes == (TUMOUR, CYST)
    assert f"--classes {tmp_path / 'classes.json'}" in manifest.rebuild
    note = "the graph draws one mask: only 'Tumour' can be found; results list Cyst, which stay empty"
    assert note in manifest.notes
    again = build(graph, tmp_path / "f", "fp32", classes=class_file(tmp_path, CYST))
    assert again.segment_classes == (CYST,) and note not in again.notes
    build(graph, tmp_path / "f", "fp32", classes=class_file(tmp_path, TUMOUR, CYST))
    with load(tmp_path / "f", device="cpu") as engine:
        assert engine.manifest.segment_classes == (TUMOUR, CYST)
        assert engine(scenes(1, seed=3)[0]).shape == scenes(1, seed=3)[0].shape[:2]


@pytest.mark.parametrize(("text", "words"), [("[", "is not JSON"), ("[]", "1 to 255"), ('[{"name": 3}]', "not text")])
def test_foreign_classes_of_a_graph_are_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    graph = named_graph(tmp_path, text)
    with pytest.raises(ArtifactError, match=rf"metadata gms_rt\.classes.*{words}"):
        read_source(BuildRequest(graph))
    # A file stands in for them.
    assert read_source(BuildRequest(graph, classes=class_file(tmp_path, CYST))).classes == (CYST,)


def test_new_names_need_no_new_engine(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    first = built(graph, out, "fp32")
    model = (out / "model.onnx").stat().st_mtime_ns
    for name in (CERTIFICATE, SIGNATURE):
        (out / name).write_text("{}")
    again = built(graph, out, "fp32", classes=class_file(tmp_path, CYST))
    assert not again.unchanged
    assert again.manifest.segment_classes == read_manifest(out).segment_classes == (CYST,)
    assert (out / "model.onnx").stat().st_mtime_ns == model
    assert again.manifest.files == first.manifest.files
    verify_files(out, again.manifest)
    # What was said about the manifest before is not said about this one.
    assert not (out / CERTIFICATE).exists() and not (out / SIGNATURE).exists()
    assert built(graph, out, "fp32", classes=class_file(tmp_path, CYST)).unchanged
    assert build(graph, out, "fp32").classes == []


def test_a_wrong_class_file_is_told_before_anything_is_built(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[[class]]\nname = ''\n")
    with pytest.raises(ConfigError, match=r"c\.toml: class 1: name is empty"):
        build(graph, tmp_path / "e", "fp32", classes=tmp_path / "c.toml")
    assert not (tmp_path / "e").exists()


def test_the_bundled_model_claims_no_more_than_it_is() -> None:
    (only,) = read_source(BuildRequest()).classes
    assert "Phantom" in only.name and "Not for clinical use" in only.description
    assert (only.category, only.kind) == (DEFAULT_CLASSES[0].category, DEFAULT_CLASSES[0].kind)


def test_inspect_shows_classes(graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "examples/classes/breast-lesion.toml"
    manifest = build(graph, tmp_path / "e", "fp32", classes=example)
    assert manifest.segment_classes == classes_from_file(example)
    assert run(["inspect", str(tmp_path / "e")]) == 0
    shown = capsys.readouterr().out
    assert "class: 1 Breast lesion: category Morphologically Abnormal Structure (49755003, SCT)" in shown
    assert run(["inspect", str(tmp_path / "e"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["classes"] == manifest.classes
