"""What a build starts with, what it is judged on, and the command that asks for the same again."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.phantom_folders import write_tokenizer
from support.precision_graphs import scenes, tiny_graph
from support.small_builds import CALIBRATION, GATE

from gms_rt.arrays import U8
from gms_rt.artifacts import sha256_file
from gms_rt.cli.build import command as verb
from gms_rt.demo.bundled import demo_graph
from gms_rt.engine.build import build_engine
from gms_rt.engine.images import BuildImages, build_images
from gms_rt.engine.request import BuildRequest
from gms_rt.engine.source import read_source
from gms_rt.errors import UsageError
from gms_rt.precision.gate import Gate, gate_from_options
from gms_rt.precision.images import ImageSet


def images_of(request: BuildRequest) -> BuildImages:
    return build_images(request, read_source(request))


def test_the_command_names_what_differs_from_a_bare_build() -> None:
    assert BuildRequest(precision="int8").command == "gms-rt build --precision int8"
    full = BuildRequest(
        Path("my runs/busi"), Path("engines/e"), "int8", ("cpu", "tensorrt-rtx"), (80, 89), Path("calib"), Path("test"),
        Gate(0.98, 0.9), "mse", Path("precision.json"), "256x320", 2, calibration_limit=8, gate_limit=12,
    )  # fmt: skip
    words = shlex.split(full.command)
    assert words[:3] == ["gms-rt", "build", "my runs/busi"]
    # The verb takes every word of it, and would make the same request.
    options = verb.make_context("build", words[2:]).params
    assert (options["gate_mean"], options["gate_min"], options["calibrator"]) == (0.98, 0.9, "mse")
    for name in ("source", "out", "precision", "calibration", "gate_images", "recipe", "size", "batch",
                 "calibration_limit", "gate_limit"):  # fmt: skip
        assert options[name] == getattr(full, name), name
    assert options["target_list"] == ("cpu,tensorrt-rtx",) and options["sm_list"] == ("80,89",)
    promising = BuildRequest(precision="int8", gate=Gate(0.98, 0.0, 0.97, 0.9)).command
    options = verb.make_context("build", shlex.split(promising)[2:]).params
    named = [options[f"gate_{name}"] for name in ("mean", "min", "coverage", "floor")]
    assert named == [0.98, None, 0.97, 0.9] and gate_from_options(*named) == Gate(0.98, 0.0, 0.97, 0.9)
    # Images in memory have no name.
    assert "--calib" not in shlex.split(dataclasses.replace(full, calibration=CALIBRATION).command)


def test_the_folder_is_named_after_the_source() -> None:
    assert BuildRequest().folder == Path("engines/demo-fp16")
    assert BuildRequest(Path("graphs/busi.onnx"), precision="int8").folder == Path("engines/busi-int8")
    assert BuildRequest(Path("graphs/busi.onnx"), Path("mine")).folder == Path("mine")


def test_a_batch_needs_a_graph_that_leaves_it_open(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--batch: 4 was asked for, but the graph was exported for 1"):
        read_source(BuildRequest(graph, batch=4))
    assert read_source(BuildRequest(graph, batch=1)).graph.size[0] == 1
    source = read_source(BuildRequest(tiny_graph(tmp_path, batch="n"), batch=4))
    assert (source.graph.size[0], source.any_batch) == (4, False)
    assert read_source(BuildRequest(tiny_graph(tmp_path, batch="n"))).any_batch


def test_the_bundled_model_is_judged_on_phantoms_unless_other_images_are_given(tmp_path: Path) -> None:
    source = read_source(BuildRequest())
    assert source.path == demo_graph() and source.about == {"kind": "bundled"}
    images = build_images(BuildRequest(), source)
    assert images.calibration is not None and images.gate is not None and not images.note
    assert not {*images.calibration.each_sha256()} & {*images.gate.each_sha256()}
    assert build_images(BuildRequest(gate_images=GATE), source).gate is GATE
    given = build_images(BuildRequest(calibration=CALIBRATION, gate_images=GATE), source)
    assert (given.calibration, given.gate) == (CALIBRATION, GATE)


def test_images_are_given_or_the_graphs_own_or_phantoms(graph: Path) -> None:
    assert images_of(BuildRequest(graph, precision="fp32")) == BuildImages(None, None)
    strange = images_of(BuildRequest(graph))
    assert strange.calibration is not None and "phantoms" in strange.calibration.source
    assert "phantoms" in strange.note, "ranges of other images than the model's own must not go unsaid"
    with pytest.raises(UsageError, match="--calib"):
        images_of(BuildRequest(graph, precision="int8"))
    pictures = scenes(6)
    np.savez(graph.with_suffix(".golden.npz"), images=pictures, probabilities=pictures[..., 0])
    own = images_of(BuildRequest(graph))
    assert own.gate is not None and own.gate.source.startswith("the graph's reference pictures")
    assert own.calibration is not None and own.reference is not None
    parts = [{*each.each_sha256()} for each in (own.calibration, own.gate, ImageSet(own.reference.images, "proof"))]
    assert [len(part) for part in parts] == [2, 1, 3] and len(set.union(*parts)) == 6
    assert (
        "of the graph's reference pictures 2 for ranges and 1 for gate, the certificate is about the others" in own.note
    )
    # Images for one purpose only are split: none calibrates and judges.
    halves = images_of(BuildRequest(graph, calibration=ImageSet(pictures, "six")))
    assert halves.calibration is not None and halves.gate is not None
    assert (len(halves.calibration.images), len(halves.gate.images)) == (2, 4)


def reference(graph: Path, pictures: U8, **more: object) -> None:
    arrays = {"images": pictures, "probabilities": pictures[..., 0], **more}
    np.savez(graph.with_suffix(".golden.npz"), **arrays)


def test_reference_pictures_have_one_part_in_a_build_whoever_named_them(graph: Path) -> None:
    pictures = scenes(12)
    reference(graph, pictures)
    bf16 = images_of(BuildRequest(graph, precision="bf16"))
    assert bf16.calibration is None and bf16.gate is not None and bf16.reference is not None
    assert (len(bf16.gate.images), len(bf16.reference.images)) == (6, 6)
    given = images_of(BuildRequest(graph, calibration=CALIBRATION, gate_images=ImageSet(pictures[:5], "five of them")))
    assert given.reference is not None and np.array_equal(given.reference.images, pictures[5:])
    assert given.reference.names == tuple(f"case {number}" for number in range(6, 13))
    used_up = images_of(BuildRequest(graph, calibration=CALIBRATION, gate_images=ImageSet(pictures, "all of them")))
    assert used_up.reference is None
    whole = images_of(BuildRequest(graph, calibration=CALIBRATION, gate_images=GATE))
    assert whole.reference is not None and whole.reference.sha256, "nothing was taken, so the file is copied as it is"
    twice = images_of(BuildRequest(graph, precision="bf16", gate_images=ImageSet(pictures[:3].repeat(2, 0), "twice")))
    assert twice.reference is not None and len(twice.reference.images) == 9
    reference(graph, np.repeat(pictures[:3], 5, axis=0))
    few = images_of(BuildRequest(graph))
    assert few.gate is not None and few.gate.synthetic, "three different pictures are too few to share out"
    assert few.reference is not None and len(few.reference.images) == 15


def test_drawn_reference_pictures_give_neither_ranges_nor_gate(graph: Path) -> None:
    pictures = scenes(8)
    for said in ({"names": np.array([f"phantom-{n}" for n in range(8)])}, {"synthetic": np.array(True)}):
        reference(graph, pictures, **said)
        images = images_of(BuildRequest(graph))
        assert images.gate is not None and images.gate.synthetic and "phantoms" in images.gate.source
        assert images.reference is not None and images.reference.synthetic
        assert images_of(BuildRequest(graph, precision="bf16")).gate is None
    named = {"names": np.array([f"phantom-{n}" for n in range(8)]), "synthetic": np.array(False)}
    reference(graph, pictures, **named)
    own = images_of(BuildRequest(graph))
    assert own.gate is not None and not own.gate.synthetic, "a file that says so is believed, whatever the names"


def test_a_promise_has_images_of_its_own_in_every_kind_of_build(graph: Path, tmp_path: Path) -> None:
    asked = BuildRequest(graph, precision="int8", gate=Gate(0.9, 0.0, 0.9, 0.5))
    few, many = ImageSet(scenes(60), "few"), ImageSet(scenes(120), "many")
    other = ImageSet(scenes(40, seed=99), "other")
    for given in (
        dataclasses.replace(asked, source=None),
        dataclasses.replace(asked, source=None, gate_images=other),
        dataclasses.replace(asked, calibration=few),
        dataclasses.replace(asked, calibration=few, gate_images=other),
        dataclasses.replace(asked, calibration=many),
        dataclasses.replace(asked, calibration=many, gate_images=other),
    ):
        images = images_of(given)
        assert images.search is not None and images.gate is not None and images.calibration is not None
        judges = {*images.gate.each_sha256()}
        assert not judges & {*images.search.each_sha256(), *images.calibration.each_sha256()}


def test_an_image_that_is_there_twice_judges_once(graph: Path) -> None:
    gate = ImageSet(np.repeat(scenes(3, seed=99), 40, axis=0), "three")
    found = images_of(BuildRequest(graph, calibration=ImageSet(scenes(4), "four"), gate_images=gate)).gate
    assert found is not None and found.each_sha256() == gate.each_sha256()[::40]


def test_a_short_build_takes_fewer_images_of_any_kind(graph: Path, tmp_path: Path) -> None:
    few = {"calibration_limit": 3, "gate_limit": 2}

    def counts(request: BuildRequest) -> tuple[int, int]:
        images = images_of(request)
        assert images.calibration is not None and images.gate is not None
        assert not {*images.calibration.each_sha256()} & {*images.gate.each_sha256()}
        return len(images.calibration.images), len(images.gate.images)

    assert counts(BuildRequest(**few)) == (3, 2)
    assert counts(BuildRequest(graph, **few)) == (3, 2)
    pictures = scenes(30)
    assert counts(BuildRequest(graph, calibration=ImageSet(pictures, "thirty"), **few)) == (3, 2)
    for number, picture in enumerate(pictures):
        assert cv2.imwrite(str(tmp_path / f"{number:02}.png"), picture)
    assert counts(BuildRequest(graph, calibration=tmp_path, gate_limit=1)) == (10, 1)
    assert counts(BuildRequest(graph, calibration=tmp_path, gate_images=tmp_path, **few)) == (3, 2)
    np.savez(graph.with_suffix(".golden.npz"), images=pictures, probabilities=pictures[..., 0])
    assert counts(BuildRequest(graph, **few)) == (3, 2)


def test_the_manifest_says_on_how_few_images_it_was_judged(graph: Path, tmp_path: Path) -> None:
    request = BuildRequest(graph, tmp_path / "e", targets=("cpu",), calibration_limit=3, gate_limit=2)
    manifest = build_engine(request).manifest
    assert manifest.gate is not None and manifest.gate["images"] == 2
    assert "--calib-images 3 --gate-images 2" in manifest.rebuild
    assert build_engine(request).unchanged
    assert not build_engine(dataclasses.replace(request, gate_limit=3)).unchanged


def test_the_note_reaches_the_manifest(graph: Path, tmp_path: Path) -> None:
    manifest = build_engine(BuildRequest(graph, tmp_path / "e", targets=("cpu",))).manifest
    assert any("ranges are those of phantoms" in note for note in manifest.notes)


@pytest.mark.slow
def test_a_run_is_exported_once(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from gms_rt.model.gms import Gms
    from gms_rt.model.lmm import LatentMapper, LmmConfig
    from gms_rt.model.loading import load_tokenizer
    from gms_rt.model.run import save_run

    torch.manual_seed(0)
    run = tmp_path / "runs/small"
    gms = Gms(load_tokenizer(write_tokenizer(tmp_path / "tokenizer")), LatentMapper(LmmConfig(4, 16, (1, 2), 8)))
    save_run(run, gms.eval())
    request = BuildRequest(run, tmp_path / "e", "fp32", ("cpu",), size="32x48")
    manifest = build_engine(request).manifest
    assert (manifest.height, manifest.width) == (32, 48)
    assert manifest.source["kind"] == "run" and manifest.source["run"] == "small"
    assert "golden.npz" in manifest.files
    graph = run / "fused-32x48.onnx"
    first = graph.stat().st_mtime_ns
    assert build_engine(request).unchanged and graph.stat().st_mtime_ns == first
    # Other weights, another graph.
    with torch.no_grad():
        next(gms.mapper.parameters()).add_(0.1)
    before = sha256_file(graph)
    save_run(run, gms)
    assert not build_engine(request).unchanged and sha256_file(graph) != before


def test_without_torch_a_run_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    code = (
        "import sys\nfor name in ('torch', 'diffusers', 'safetensors'): sys.modules[name] = None\n"
        "from gms_rt.cli import main\nsys.exit(main.run(['build', 'run', '--target', 'cpu']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("pip install 'gms-rt[train]'")
