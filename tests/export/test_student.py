"""A student's graph equals the student, costs what its shape says, and keeps what other fused graphs promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.small_student import SIZE, small_student

from gms_rt.demo.phantoms import phantom_images
from gms_rt.errors import ArtifactError, UsageError
from gms_rt.export.fuse import graph_from_run
from gms_rt.export.options import ExportOptions
from gms_rt.export.student import graph_from_student
from gms_rt.graph.count import stages, work_from_file
from gms_rt.graph.graph import attribute
from gms_rt.graph.read import read_graph
from gms_rt.model.student import Student, StudentShape, student_flop
from gms_rt.model.student_folding import convolutions, fold_student, unfold_student
from gms_rt.model.student_run import save_student
from gms_rt.runtime.signal_stack import cpu_core


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Student, Path]:
    student = small_student(context=True)
    out = tmp_path_factory.mktemp("student") / "edge.onnx"
    return student, graph_from_student(student, out, source={"kind": "test"}, options=ExportOptions(SIZE, SIZE, (1, 3)))


def spread(graph: Path, student: Student, images: np.ndarray) -> int:
    """The largest difference to PyTorch over both runtimes, in grey levels."""
    expected = student.segment(torch.from_numpy(images)).numpy().astype(int)
    assert len(np.unique(expected)) > 50, "the student draws nothing"
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    compiled = cpu_core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = [session.run(None, {"image": images})[0], compiled(images)[0]]
    assert all(f.shape == (*images.shape[:3], 1) and f.dtype == np.uint8 for f in found)
    return max(int(np.abs(f[..., 0] - expected).max()) for f in found)


@pytest.mark.parametrize("count", [1, 3])
def test_the_graph_equals_the_student(exported: tuple[Student, Path], count: int) -> None:
    student, graph = exported
    images = phantom_images(range(40, 40 + count), SIZE, SIZE)
    images[0, :20, :20] = 255  # borders, too, where a wrong padding would show
    assert spread(graph, student, images) <= 1


def test_a_graph_that_is_not_square(tmp_path: Path) -> None:
    student = small_student(merge_blocks=0, blocks=(0, 1, 2))
    out = graph_from_student(student, tmp_path / "g.onnx", source={}, options=ExportOptions(64, 96, opset=21))
    assert spread(out, student, phantom_images(range(1), 64, 96)) <= 1


def test_the_graph_is_a_fused_graph_like_any_other(exported: tuple[Student, Path]) -> None:
    student, path = exported
    model = onnx.load(path)
    nodes = model.graph.node
    assert (nodes[0].op_type, nodes[-1].op_type) == ("Cast", "Cast")
    assert {node.name.partition("/")[0] for node in nodes} == {"input", "encoder", "lmm", "decoder", "output"}
    facts = {each.key: each.value for each in model.metadata_props}
    assert facts["gms_rt.format"] == "1" and json.loads(facts["gms_rt.tokenizer"]) == {}
    shape = json.loads(json.loads(facts["gms_rt.source"])["student"])
    assert StudentShape(**{**shape, "blocks": tuple(shape["blocks"])}) == student.shape
    golden = np.load(path.with_suffix(".golden.npz"))
    assert np.array_equal(golden["probabilities"][3], student.segment(torch.from_numpy(golden["images"][3:4]))[0])


def test_layers_are_named_as_in_the_student_and_only_they_are_there(exported: tuple[Student, Path]) -> None:
    student, path = exported
    graph = read_graph(path)
    names = [node.name.partition("/")[2] for node in graph.nodes if node.op_type == "Conv"]
    assert names == list(convolutions(student))
    kinds = {node.op_type for node in graph.nodes}
    assert kinds <= {"Cast", "Reshape", "Transpose", "Conv", "Relu", "Add", "DepthToSpace", "ReduceMean", "Sigmoid",
                     "Mul", "Round"}  # fmt: skip
    shuffles = [node for node in graph.nodes if node.op_type == "DepthToSpace"]
    assert [attribute(node, "mode", b"DCR") for node in shuffles] == [b"DCR", b"DCR"]
    latent = [name for name in graph.initialisers if "latent" in name]
    assert not latent, "the head that only training has was exported"


def test_it_costs_what_its_shape_says(exported: tuple[Student, Path]) -> None:
    student, path = exported
    assert work_from_file(path).flop == student_flop(student.shape)
    found = {row["stage"]: row["flop"] for row in stages(read_graph(path))}
    assert all(found[stage] > 0 for stage in ("encoder", "lmm", "decoder"))


def test_a_run_exports_at_its_own_size_and_says_which_weights(tmp_path: Path) -> None:
    student = small_student()
    save_student(tmp_path / "run", student)
    graph = graph_from_run(tmp_path / "run", tmp_path / "g.onnx", ExportOptions(SIZE, SIZE))
    assert spread(graph, student, phantom_images(range(1), SIZE, SIZE)) <= 1
    with pytest.raises(UsageError, match="multiples of 32"):
        graph_from_run(tmp_path / "run", tmp_path / "h.onnx", ExportOptions(72, 72))


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    student = small_student()
    with torch.no_grad():
        student.mask.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ArtifactError, match=r"mask\.weight"):
        graph_from_student(student, tmp_path / "g.onnx", source={}, options=ExportOptions(SIZE, SIZE))


def test_folding_and_unfolding_change_no_result() -> None:
    student = small_student(context=True)
    pixels = torch.from_numpy(phantom_images(range(2), SIZE, SIZE)).permute(0, 3, 1, 2) / 255
    flat = fold_student(student)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in flat.modules())
    back = unfold_student(flat)
    with torch.no_grad():
        said, plain, again = student.taught(pixels), flat.taught(pixels), back.taught(pixels)
    for other in (plain, again):
        assert torch.allclose(other.logits, said.logits, atol=1e-4)
        assert other.latent is not None and said.latent is not None
        assert torch.allclose(other.latent, said.latent, atol=1e-4)
