"""A student trained for INT8: the graph quantised with its learned ranges draws what the trained student drew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_student import SIZE, small_student

from gms_rt.artifacts import read_json, write_json
from gms_rt.demo.phantoms import phantom_images
from gms_rt.engine.build import build_engine
from gms_rt.engine.request import BuildRequest
from gms_rt.errors import ArtifactError, ConfigError, UsageError
from gms_rt.export.fuse import graph_from_run
from gms_rt.export.options import ExportOptions
from gms_rt.graph.graph import LEARNED_RANGES
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.model.student import Student
from gms_rt.model.student_quantisation import (
    STEPS,
    WEIGHT_STEPS,
    QuantisedConv2d,
    fake_quantised,
    observed_ranges,
    plain_student,
    quantised_names,
)
from gms_rt.model.student_run import RANGES, ranges_from_run, save_student
from gms_rt.precision.int8 import qdq_graph
from gms_rt.precision.learned import recipe_from_learned_ranges
from gms_rt.precision.recipe import WEIGHT_LEVELS


def pixels(first: int, count: int) -> torch.Tensor:
    return torch.from_numpy(phantom_images(range(first, first + count), SIZE, SIZE)).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Path]:
    """A student after a few steps with its roundings, and its run folder."""
    student = small_student(context=True)
    quantised = fake_quantised(student, observed_ranges(student, [pixels(0, 4)]))
    before = {name: value.clone() for name, value in quantised.state_dict().items()}
    optimiser = torch.optim.SGD(quantised.parameters(), lr=1e-3)
    for step in range(3):
        given = pixels(4 * step, 4)
        optimiser.zero_grad()
        loss = (quantised.taught(given).logits - (given[:, :1] > 0.5).float()).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    moved = [name for name, value in quantised.state_dict().items() if not torch.equal(value, before[name])]
    assert {"stem.conv.weight", "mask.weight", "mask.high", "levels.0.0.first.conv.high"} <= set(moved)
    folder = tmp_path_factory.mktemp("trained") / "run"
    plain, ranges = plain_student(quantised)
    save_student(folder, plain, ranges=ranges)
    return quantised, folder


@pytest.fixture(scope="module")
def graph(trained: tuple[Student, Path]) -> Path:
    return graph_from_run(trained[1], trained[1].parent / "edge.onnx", ExportOptions(SIZE, SIZE))


def test_the_int8_graph_draws_what_the_student_trained_with_roundings_drew(
    trained: tuple[Student, Path], graph: Path
) -> None:
    source = read_graph(graph)
    typed = recipe_from_learned_ranges(source, "").apply(source, "cpu")
    images = np.random.default_rng(3).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    images = np.concatenate([images, phantom_images(range(90, 94), SIZE, SIZE)])
    expected = trained[0].segment(torch.from_numpy(images)).numpy().astype(int)
    plain = Session(source).probabilities(images).astype(int)
    found = Session(typed).probabilities(images).astype(int)
    # A sum at the edge between two steps may fall on the other side of it, and is then seen in a few pixels.
    apart, rounding = np.abs(found - expected), np.abs(plain - expected)
    assert apart.mean() < 0.1 * rounding.mean() and (apart > 1).mean() < 0.01
    assert rounding.mean() > 0.3, "the roundings change nothing, so this shows nothing"


def test_all_but_the_first_convolution_are_int8(graph: Path) -> None:
    source = read_graph(graph)
    recipe = recipe_from_learned_ranges(source, "")
    convolutions = [node.name for node in source.nodes if node.op_type == "Conv"]
    assert recipe.int8 == convolutions[1:] and recipe.cpu_only == convolutions[-1:]
    assert len(recipe.skips) > 4 and all(recipe.spans[name] == [0.0, high] for name, high in recipe.ranges.items())
    recipe.apply(source, "tensorrt")  # checks by itself that every layer has its type
    zeros = [t for t in qdq_graph(source, recipe.int8, recipe.values(source)).initialisers.values()
             if t.name.endswith("/zero") and not t.dims]  # fmt: skip
    assert zeros and all(each.data_type == 2 for each in zeros), "an activation is signed"


def test_steps_are_the_quantisers() -> None:
    assert WEIGHT_STEPS == WEIGHT_LEVELS
    layer = QuantisedConv2d(torch.nn.Conv2d(1, 1, 1), 2.0)
    rounded = layer.rounded_input(torch.tensor([-1.0, 0.0, 1.003, 2.0, 5.0]))
    assert torch.allclose(rounded, torch.tensor([0.0, 0.0, 128 / STEPS * 2, 2.0, 2.0]))


def test_a_build_needs_no_images(trained: tuple[Student, Path], graph: Path, tmp_path: Path) -> None:
    request = BuildRequest(graph, tmp_path / "engine", precision="int8", targets=("cpu",))
    built = build_engine(request)
    recipe = read_json(tmp_path / "engine" / "precision.json")
    assert recipe["calibrator"] == "learned" and recipe["calibration"] is None
    assert built.manifest.census["graph"]["compute"]["Conv"] == {"fp32": 1, "int8": len(recipe["int8"])}
    assert built.manifest.gate is None, "drawn pictures decide nothing"
    images = phantom_images(range(200, 232), SIZE, SIZE)
    from gms_rt.precision.images import ImageSet

    judged = build_engine(
        BuildRequest(graph, tmp_path / "judged", precision="int8", targets=("cpu",), gate_images=ImageSet(images, "x"))
    )
    assert judged.manifest.gate is not None and judged.manifest.gate["passed"]


def test_a_build_from_the_run_takes_them_too(trained: tuple[Student, Path], tmp_path: Path) -> None:
    built = build_engine(BuildRequest(trained[1], tmp_path / "engine", precision="int8", targets=("cpu",)))
    assert read_json(built.folder / "precision.json")["calibrator"] == "learned"


def test_a_student_without_ranges_still_asks_for_images(tmp_path: Path) -> None:
    save_student(tmp_path / "run", small_student())
    assert ranges_from_run(tmp_path / "run") == {}
    with pytest.raises(UsageError, match="--calib"):
        build_engine(BuildRequest(tmp_path / "run", tmp_path / "engine", precision="int8", targets=("cpu",)))


def test_ranges_of_other_weights_or_another_student_are_refused(trained: tuple[Student, Path], tmp_path: Path) -> None:
    plain, ranges = plain_student(trained[0])
    run = tmp_path / "run"
    save_student(run, plain, ranges=ranges)
    assert ranges_from_run(run) == pytest.approx(ranges)
    value = read_json(run / RANGES)
    write_json(run / RANGES, {**value, "weights": "0" * 64})
    with pytest.raises(ArtifactError, match="other weights"):
        ranges_from_run(run)
    write_json(run / RANGES, {**value, "ranges": {"mask": 1.0}})
    with pytest.raises(ArtifactError, match="does not fit the student"):
        ranges_from_run(run)
    write_json(run / RANGES, {**value, "version": 2})
    with pytest.raises(ArtifactError, match="reads up to version 1"):
        ranges_from_run(run)
    save_student(run, plain)
    assert not (run / RANGES).exists(), "ranges stayed beside weights that they are not for"
    with pytest.raises(ConfigError, match="do not fit this student"):
        fake_quantised(plain, {"mask": 1.0})


@pytest.mark.parametrize("text", ["[", "{}", '{"nowhere": 1.0}', "[1]", '{"encoder/relu": "x"}'])
def test_damaged_ranges_in_a_graph_are_refused(graph: Path, text: str) -> None:
    source = read_graph(graph)
    for each in source.model.metadata_props:
        if each.key == LEARNED_RANGES:
            assert json.loads(each.value)
            each.value = text
    with pytest.raises(ArtifactError, match=r"gms_rt\.ranges"):
        recipe_from_learned_ranges(source, "")


def test_observed_ranges_leave_the_student_as_it_was() -> None:
    student = small_student().train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    ranges = observed_ranges(student, [pixels(0, 2), pixels(2, 2)])
    assert list(ranges) == quantised_names(student) and min(ranges.values()) > 0 and student.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
