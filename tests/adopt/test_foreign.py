"""Every form a model's file can have, on graphs written by hand whose masks are known: what is brighter than grey."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.graphs import FLOAT, GraphWriter

from gms_rt.adopt.adopt import graph_from_foreign
from gms_rt.adopt.options import AdoptOptions
from gms_rt.arrays import U8
from gms_rt.engine.golden import PYTORCH, read_golden
from gms_rt.errors import ArtifactError, GmsError, UsageError
from gms_rt.graph.read import read_graph
from gms_rt.graph.run import Session
from gms_rt.runtime.signal_stack import cpu_core

SIDE = 32


def scores(w: GraphWriter, x: str, *, channels: int = 3, classes: int = 2) -> str:
    """Class 0 wins where a pixel is darker than one half, class 1 where it is brighter; others never."""
    weight = np.zeros((classes, channels, 1, 1), np.float32)
    bias = np.full(classes, -50, np.float32)
    weight[0], weight[1] = -20 / channels, 20 / channels
    bias[:2] = 10, -10
    return w.node("Conv", "classes", x, w.constant("classes.weight", weight), w.constant("classes.bias", bias))


def write(w: GraphWriter, path: Path, inputs: Any, outputs: Any, **changes: int) -> Path:
    model = w.model(inputs, outputs)
    for name, value in changes.items():
        if name == "opset":
            model.opset_import[0].version = value
    onnx.save(model, path)
    return path


def nchw(folder: Path, end: Callable[[GraphWriter, str], str], *, shape: Any = None, classes: int = 2) -> Path:
    w = GraphWriter()
    x = end(w, scores(w, "x", classes=classes))
    return write(w, folder / "m.onnx", [("x", FLOAT, shape or [1, 3, SIDE, SIDE])], [(x, _kind(w, x), None)])


def _kind(w: GraphWriter, name: str) -> int:
    maker = next(node for node in w.nodes if name in node.output)
    return TensorProto.INT64 if maker.op_type == "ArgMax" else FLOAT


def pictures() -> U8:
    """Grey pictures with a bright part, far from one half everywhere."""
    images = np.full((2, SIDE, SIDE, 3), 40, np.uint8)
    images[0, 5:20, 8:27] = 220
    images[1, 16:, :16] = 200
    return images


def masks(path: Path, tmp_path: Path, **options: Any) -> U8:
    found = graph_from_foreign(path, tmp_path / "ours.onnx", AdoptOptions(**options))
    assert found.largest_difference <= 1
    graph = read_graph(found.graph)
    assert graph.size == (1, SIDE, SIDE)
    return Session(graph).probabilities(pictures()) >= 128


BRIGHT = pictures()[..., 0] > 128
ENDS: dict[str, tuple[Callable[[GraphWriter, str], str], dict[str, Any], int]] = {
    "softmax": (lambda w, x: x, {"activation": "softmax"}, 2),
    "sigmoid": (lambda w, x: x, {"activation": "sigmoid", "channels": (1,)}, 2),
    "argmax": (lambda w, x: x, {"activation": "argmax"}, 4),
    "argmax of others": (lambda w, x: x, {"activation": "argmax", "channels": (1, 3)}, 4),
    "probabilities": (lambda w, x: w.node("Softmax", "p", x, axis=1), {"activation": "none"}, 2),
    "labels": (lambda w, x: w.node("ArgMax", "l", x, axis=1, keepdims=0), {"activation": "labels"}, 2),
    "labels kept": (lambda w, x: w.node("ArgMax", "l", x, axis=1), {"activation": "labels", "channels": (1, 2)}, 4),
}


@pytest.mark.parametrize("name", ENDS)
def test_each_activation_gives_the_models_mask(name: str, tmp_path: Path) -> None:
    end, options, classes = ENDS[name]
    assert np.array_equal(masks(nchw(tmp_path, end, classes=classes), tmp_path, **options), BRIGHT)


def test_other_classes_are_the_other_mask(tmp_path: Path) -> None:
    path = nchw(tmp_path, lambda w, x: x)
    assert np.array_equal(masks(path, tmp_path, activation="softmax", channels=(0,)), ~BRIGHT)


def test_channels_last_are_found(tmp_path: Path) -> None:
    w = GraphWriter()
    x = scores(w, w.node("Transpose", "first", "x", perm=[0, 3, 1, 2]))
    x = w.node("Transpose", "last", x, perm=[0, 2, 3, 1])
    path = write(w, tmp_path / "m.onnx", [("x", FLOAT, ["n", SIDE, SIDE, 3])], [(x, FLOAT, None)])
    assert np.array_equal(masks(path, tmp_path, activation="argmax"), BRIGHT)


def test_a_smaller_map_is_brought_to_the_pictures_size(tmp_path: Path) -> None:
    def end(w: GraphWriter, x: str) -> str:
        return w.node("AveragePool", "pool", x, kernel_shape=[4, 4], strides=[4, 4])

    got = masks(nchw(tmp_path, end), tmp_path, activation="softmax")
    assert np.mean(got != BRIGHT) < 0.15 and got[0, 12, 16] and not got[0, 2, 2]


def test_open_sizes_are_fixed_and_shapes_folded(tmp_path: Path) -> None:
    def end(w: GraphWriter, x: str) -> str:
        """What exporters write for `interpolate(x, size=input.shape[2:])`."""
        part = w.node("AveragePool", "pool", x, kernel_shape=[2, 2], strides=[2, 2])
        size = w.node(
            "Slice", "size", w.node("Shape", "shape", "x"), *(w.constant(f"c{n}", np.array([n])) for n in (2, 4))
        )
        lead = w.constant("lead", np.array([1, 2]))
        whole = w.node("Concat", "whole", lead, size, axis=0)
        return w.node("Resize", "up", part, "", "", whole, mode="nearest")

    path = nchw(tmp_path, end, shape=["n", 3, "h", "w"])
    with pytest.raises(UsageError, match="--size"):
        graph_from_foreign(path, tmp_path / "ours.onnx", AdoptOptions("softmax"))
    got = masks(path, tmp_path, activation="softmax", size=(SIDE, SIDE))
    assert np.mean(got != BRIGHT) < 0.1
    kinds = {node.op_type for node in read_graph(tmp_path / "ours.onnx").nodes}
    assert not kinds & {"Shape", "Concat"}


def test_half_precision_becomes_fp32(tmp_path: Path) -> None:
    path = nchw(tmp_path, lambda w, x: x)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    assert np.array_equal(masks(path, tmp_path, activation="softmax"), BRIGHT)
    graph = read_graph(tmp_path / "ours.onnx")
    assert TensorProto.FLOAT16 not in graph.dtype.values()


def test_an_old_opset_is_raised(tmp_path: Path) -> None:
    w = GraphWriter()
    x = scores(w, "x")
    path = write(w, tmp_path / "m.onnx", [("x", FLOAT, [1, 3, SIDE, SIDE])], [(x, FLOAT, None)], opset=11)
    assert np.array_equal(masks(path, tmp_path, activation="softmax"), BRIGHT)
    assert read_graph(tmp_path / "ours.onnx").opset == 18


def test_one_of_several_outputs_is_taken(tmp_path: Path) -> None:
    w = GraphWriter()
    x = scores(w, "x")
    other = w.node("Neg", "deep", x)
    path = write(w, tmp_path / "m.onnx", [("x", FLOAT, [1, 3, SIDE, SIDE])], [(x, FLOAT, None), (other, FLOAT, None)])
    with pytest.raises(UsageError, match="name one with --output: classes/out, deep/out"):
        graph_from_foreign(path, tmp_path / "ours.onnx", AdoptOptions("softmax"))
    assert np.array_equal(masks(path, tmp_path, activation="softmax", output="classes/out"), BRIGHT)
    assert "Neg" not in {node.op_type for node in read_graph(tmp_path / "ours.onnx").nodes}


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_batch_norms_join_convolutions_exactly(op: str, groups: int, tmp_path: Path) -> None:
    from gms_rt.graph.simplify import simplify_graph

    random, w = np.random.default_rng(3), GraphWriter()
    shape = (4, 4 // groups, 3, 3)
    x = w.node(op, "c", "x", w.constant("c.weight", random.normal(0, 1, shape).astype(np.float32)), group=groups)
    parts = [w.constant(f"b{n}", random.uniform(0.5, 2, 4).astype(np.float32)) for n in range(4)]
    x = w.node("BatchNormalization", "n", x, *parts)
    model = w.model([("x", FLOAT, [1, 4, 8, 8])], [(x, FLOAT, None)])
    given = random.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    before = _computed(model, given)
    graph = simplify_graph(model)
    assert [node.op_type for node in graph.nodes] == [op]
    np.testing.assert_allclose(_computed(graph.model, given), before, rtol=1e-4, atol=1e-4)


def _computed(model: Any, given: Any) -> Any:
    core = cpu_core()
    return core.compile_model(core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        [given]
    )[0]


def test_the_reference_may_be_onnxruntimes_and_says_whose_it_is(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = nchw(tmp_path, lambda w, x: x)
    found = graph_from_foreign(path, tmp_path / "ours.onnx", AdoptOptions("softmax"), runtime="onnxruntime")
    golden = read_golden(found.golden)
    assert golden.origin.startswith("ONNX Runtime ") and golden.origin != PYTORCH
    assert golden.synthetic and found.synthetic


def _with(path: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    return path


def _volume(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 4


def _second_input(model: Any) -> None:
    model.graph.input.append(helper.make_tensor_value_info("y", FLOAT, [1]))
    model.graph.node.append(helper.make_node("Identity", ["y"], ["z"]))


def _bytes_in(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["f"], to=FLOAT))
    model.graph.node[1].input[0] = "f"


def _foreign_operator(model: Any) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node.append(helper.make_node("FusedConv", ["x"], ["z"], domain="com.microsoft"))


def _quantised(model: Any) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "s"))
    model.graph.node.append(helper.make_node("QuantizeLinear", ["x", "s"], ["z"]))


def _four_channels(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.zeros((2, 4, 1, 1), np.float32), weight.name))


def _not_a_number(model: Any) -> None:
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.full((2, 3, 1, 1), np.nan, np.float32), weight.name))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_volume, "only models of 2-D pictures"),
        (_second_input, r"has 2 inputs \(x, y\)"),
        (_bytes_in, "is of type UINT8"),
        (_foreign_operator, "com.microsoft.FusedConv"),
        (_quantised, "is quantised already"),
        (_four_channels, "does not tell where its channels are"),
        (_not_a_number, "are NaN or infinite"),
    ],
)
def test_what_cannot_be_adopted_is_told(change: Callable[[Any], None], told: str, tmp_path: Path) -> None:
    path = _with(nchw(tmp_path, lambda w, x: x), change)
    with pytest.raises(GmsError, match=told):
        graph_from_foreign(path, tmp_path / "ours.onnx", AdoptOptions("softmax"))
    assert not (tmp_path / "ours.onnx").exists()


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match="is not a valid ONNX model"):
        graph_from_foreign(tmp_path / "m.onnx", tmp_path / "ours.onnx", AdoptOptions("softmax"))
    with pytest.raises(UsageError, match="is not a file"):
        graph_from_foreign(tmp_path / "absent.onnx", tmp_path / "ours.onnx", AdoptOptions("softmax"))


def test_a_wrapping_that_answers_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gms_rt.adopt import answers

    path = nchw(tmp_path, lambda w, x: x)
    monkeypatch.setattr(answers.OriginalModel, "_input", lambda self, images: np.zeros((1, 3, SIDE, SIDE), np.float32))
    with pytest.raises(GmsError, match="does not answer as the model does"):
        graph_from_foreign(path, tmp_path / "ours.onnx", AdoptOptions("softmax"))
    assert not (tmp_path / "ours.onnx").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"activation": "tanh"}, "--activation"),
        ({"activation": "sigmoid", "mean": (1.0, 2.0)}, "--mean"),
        ({"activation": "sigmoid", "std": (0.0,)}, "--std"),
        ({"activation": "sigmoid", "z_score": True, "mean": (0.5,)}, "--z-score"),
        ({"activation": "sigmoid", "channels": (-1,)}, "--channel"),
    ],
)
def test_options_that_cannot_be_are_told(options: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        AdoptOptions(**options)
