"""Folders for other hosts: complete, and their answers are the engine's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.browser import CHROMIUM, Page, browser
from support.packed_check import check
from support.precision_graphs import tiny_graph

from gms_rt.cli.main import run
from gms_rt.engine.manifest import Plan
from gms_rt.errors import GmsError, UsageError
from gms_rt.pack import browser as browser_host
from gms_rt.pack.hosts import HOSTS, hosts_from_names
from gms_rt.pack.triton import container
from gms_rt.runtime.signal_stack import cpu_core

SHARED = {"LICENSE", "README.md", "engine.json", "golden.npz"}


def test_each_folder_is_complete(packed: Path) -> None:
    for name in ("openvino", "onnxruntime", "triton", "ovms"):
        folder = packed / name
        assert {path.name for path in folder.iterdir()} >= {*SHARED, "check.py", "client.py", "segment_picture.py"}
        readme = (folder / "README.md").read_text()
        assert "Not for clinical use." in readme and "@@" not in readme
        assert ("Not run here" in readme) == (name in ("triton", "ovms"))
        for program in folder.glob("*.py"):
            compile(program.read_text(), str(program), "exec")
        with np.load(folder / "golden.npz") as golden:
            assert np.array_equal(golden["answers"], golden["probabilities"])  # FP32 of an FP32 graph


@pytest.mark.parametrize("host", ["openvino", "onnxruntime"])
def test_the_hosts_answer_is_the_engines(packed: Path, host: str, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip(host)
    exact = ["--exact"] if host == "openvino" else []  # another runtime may round otherwise
    assert check(packed / host, monkeypatch, *exact) == 0
    told = capsys.readouterr().out
    assert "masks: 0 of 12288 pixels differ from the engine's own" in told and told.endswith("ok\n")


def test_a_wrong_answer_is_told(packed: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    folder = shutil.copytree(packed / "openvino", tmp_path / "openvino")
    client = folder / "client.py"
    client.write_text(client.read_text().replace("maps.append(", "maps.append(255 - "))
    assert check(folder, monkeypatch) == 1
    assert capsys.readouterr().out.endswith("NOT ok\n")


def test_one_other_byte_fails_where_that_is_asked(packed: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    folder = shutil.copytree(packed / "openvino", tmp_path / "openvino")
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    first = arrays["answers"][0, 0, 0]
    arrays["answers"][0, 0, 0] = first - 1 if first else 1
    np.savez(folder / "golden.npz", **arrays)
    assert check(folder, monkeypatch) == 0
    assert "bytes: 12287 of 12288 equal to the engine's own, at most 1 levels apart" in capsys.readouterr().out
    assert check(folder, monkeypatch, "--exact") == 1


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="no cmake or C++ compiler")
def test_the_openvino_program_is_compiled_and_answers_byte_for_byte(
    packed: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    utils = pytest.importorskip("openvino.utils")
    folder = shutil.copytree(packed / "openvino", tmp_path / "openvino")
    configure = ["cmake", "-S", ".", "-B", "build", f"-DOpenVINO_DIR={utils.get_cmake_path()}"]
    for command in (configure, ["cmake", "--build", "build"]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if "OpenVINOConfig" in done.stderr and done.returncode:
            pytest.skip("this OpenVINO has no CMake files")
        assert done.returncode == 0, done.stdout + done.stderr
    assert check(folder, monkeypatch, "--exact", "--program", str(folder / "build/segment")) == 0


def test_the_onnxruntime_program_is_compiled_where_its_headers_are(packed: Path, tmp_path: Path) -> None:
    places = [Path("/usr/include"), *(Path(p) for p in [os.environ.get("ONNXRUNTIME", "")] if p)]
    if not any(next(place.rglob("onnxruntime_cxx_api.h"), None) for place in places):
        pytest.skip("ONNX Runtime's C++ headers are not installed (set ONNXRUNTIME to a release's folder)")
    folder = shutil.copytree(packed / "onnxruntime", tmp_path / "onnxruntime")
    configure = ["cmake", "-S", ".", "-B", "build", f"-DONNXRUNTIME={os.environ.get('ONNXRUNTIME', '/usr')}"]
    for command in (configure, ["cmake", "--build", "build"]):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    command = [sys.executable, "check.py", "--program", "build/segment"]
    assert subprocess.run(command, cwd=folder).returncode == 0


def test_the_ir_names_the_engine(packed: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(packed / "openvino/model.xml")
    assert model.get_rt_info(["gms_rt", "engine"]).astype(str) == "tiny-fp32"
    digest = model.get_rt_info(["gms_rt", "manifest_sha256"]).astype(str)
    assert len(digest) == 64


def test_triton_reads_its_configurations(packed: Path, engine: Path) -> None:
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    found = {}
    for path in (packed / "triton").glob("model_repository_*/*/config.pbtxt"):
        found[path.parts[-3]] = text_format.Parse(path.read_text(), config.ModelConfig())
    assert set(found) == {"model_repository_openvino", "model_repository_onnxruntime"}
    for kind, parsed in found.items():
        folder = packed / "triton" / kind / "tiny-fp32"
        assert (parsed.name, parsed.backend) == ("tiny-fp32", kind.rpartition("_")[2])
        (image,), (mask,) = parsed.input, parsed.output
        assert (image.name, image.data_type, list(image.dims)) == ("image", config.TYPE_UINT8, [1, 64, 64, 3])
        assert (mask.name, mask.data_type, list(mask.dims)) == ("mask", config.TYPE_UINT8, [1, 64, 64, 1])
        assert parsed.max_batch_size == 0 and not parsed.HasField("dynamic_batching")
        assert parsed.parameters["gms_rt_engine"].string_value == "tiny-fp32"
        assert (folder / mask.label_filename).read_text() == "Segmented region\n"
        with np.load(packed / "triton/golden.npz") as golden:
            for number, warmup in enumerate(parsed.model_warmup):
                entry = warmup.inputs["image"]
                assert list(entry.dims) == [1, 64, 64, 3]
                stored = (folder / "warmup" / entry.input_data_file).read_bytes()
                assert stored == golden["images"][number].tobytes()
    readme = (packed / "triton/README.md").read_text()
    assert "perf_analyzer -m tiny-fp32" in readme and "no plan of full TensorRT" in readme


def test_a_graph_of_any_batch_is_joined_by_the_server(tmp_path: Path, engine: Path) -> None:
    from support.small_builds import build

    config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    graph = tiny_graph(tmp_path, batch="batch")
    shutil.copyfile(engine.parent / "tiny.golden.npz", graph.with_suffix(".golden.npz"))
    build(graph, tmp_path / "open", "fp32", calibration=None, gate_images=None)
    words = ["pack", str(tmp_path / "open"), "--for", "triton", "--batch", "4", "--out", str(tmp_path / "out")]
    assert run(words) == 0
    text = (tmp_path / "out/triton/model_repository_openvino/open/config.pbtxt").read_text()
    parsed = text_format.Parse(text, config.ModelConfig())
    assert parsed.max_batch_size in (0, 4)
    if parsed.max_batch_size:
        assert parsed.HasField("dynamic_batching") and list(parsed.input[0].dims) == [64, 64, 3]


@pytest.mark.parametrize(("version", "tag"), [("10.3.0.26", "24.08"), ("10.13.3.9", "25.10"), ("12.0.1", "XX.YY")])
def test_a_plans_container_has_its_tensorrt(version: str, tag: str) -> None:
    plan = Plan("tensorrt", "p.plan", "0" * 64, 1, 80, version, 1.0)
    assert container(plan) == tag


def test_the_model_server_takes_pictures_as_it_decodes_them(packed: Path) -> None:
    config = json.loads((packed / "ovms/models/config.json").read_text())
    names = [each["config"]["name"] for each in config["model_config_list"]]
    assert names == ["tiny-fp32", "tiny-fp32-jpeg"]
    with np.load(packed / "ovms/golden.npz") as golden:
        images, answers = golden["images"], golden["answers"]
    core = cpu_core()
    for name, taken in zip(names, (images, images[..., ::-1]), strict=True):
        model = core.compile_model(
            packed / f"ovms/models/{name}/1/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        got = np.concatenate([model(np.ascontiguousarray(image[None]))[0] for image in taken])[..., 0]
        assert np.array_equal(got, answers), name


def ort_web() -> Path:
    """ONNX Runtime Web's files, from npm."""
    try:
        return browser_host.ort_web_folder(Path(os.environ["ORT_WEB"]) if "ORT_WEB" in os.environ else None)
    except GmsError as error:
        pytest.skip(f"onnxruntime-web is not there ({error})")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_segments_offline_as_the_engine_does(engine: Path, tmp_path: Path) -> None:
    import cv2

    parts = ort_web()
    assert run(["pack", str(engine), "--for", "browser", "--ort-web", str(parts), "--out", str(tmp_path)]) == 0
    page_file = tmp_path / "browser/index.html"
    with np.load(tmp_path / "browser/golden.npz") as golden:
        image, answer = golden["images"][0], golden["answers"][0]
    assert cv2.imwrite(str(tmp_path / "scan.png"), image[..., ::-1])
    with browser(tmp_path) as opened:
        page = Page(opened)
        page.open(page_file.as_uri())
        page.wait("window.gmsrt && window.gmsrt.ready")
        found = page.value("window.gmsrt.check()")
        assert (found["flipped"], found["largest"] <= 1, found["mean"]) == (0, True, 1)
        page.choose("#file", [tmp_path / "scan.png"])
        page.wait("document.querySelector('#status').innerText.includes('pixels (')")
        assert f": {np.count_nonzero(answer >= 128)} of 4096 pixels" in page.text("#status")
        # The page itself and what it made of itself: nothing else was asked for.
        assert [address for address in page.requests if not address.startswith(("blob:", "data:"))] == [
            page_file.as_uri()
        ]
        assert page.complaints == []
        # It could not send a picture if it wanted to.
        refused = page.value("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
        assert refused == "refused"
        assert any("Content Security Policy" in complaint for complaint in page.complaints)


def test_a_folder_without_the_runtime_is_refused(engine: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["pack", str(engine), "--for", "browser", "--ort-web", str(tmp_path), "--out", str(tmp_path / "out")]
    assert run(words) == 2
    assert "ort-wasm-simd-threaded.wasm" in capsys.readouterr().err
    assert not (tmp_path / "out/browser").exists()


def test_npm_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'no such package' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("GMS_RT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(GmsError, match=r"no such package.*--ort-web"):
        browser_host.ort_web_folder(None)


def test_hosts_by_name() -> None:
    assert [host.name for host in hosts_from_names(["ovms,openvino", "ovms"])] == ["ovms", "openvino"]
    assert [host.name for host in hosts_from_names(["all"])] == list(HOSTS)
    for wrong in ("tensorflow", ","):
        with pytest.raises(UsageError, match="--for"):
            hosts_from_names([wrong])


def test_the_models_own_licence_travels(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "terms").write_text("mine\n")
    words = ["pack", str(engine), "--for", "onnxruntime", "--out", str(tmp_path)]
    assert run([*words, "--licence", str(tmp_path / "terms")]) == 0
    assert (tmp_path / "onnxruntime/LICENSE").read_text() == "mine\n"
    assert "Nobody named" not in (tmp_path / "onnxruntime/README.md").read_text()
    assert run(words) == 0  # an older folder is replaced
    assert "Apache License" in (tmp_path / "onnxruntime/LICENSE").read_text()
    assert "Nobody named the model's own licence" in (tmp_path / "onnxruntime/README.md").read_text()


def test_what_cannot_be_checked_is_not_packed(engine: Path, tmp_path: Path, capsys: Any) -> None:
    folder = shutil.copytree(engine, tmp_path / "engine")
    (folder / "golden.npz").unlink()
    manifest = json.loads((folder / "engine.json").read_text())
    del manifest["files"]["golden.npz"]
    (folder / "engine.json").write_text(json.dumps(manifest))
    assert run(["pack", str(folder), "--for", "openvino", "--out", str(tmp_path / "out")]) == 2
    assert "no reference pictures" in capsys.readouterr().err
    (folder / "model.onnx").write_bytes(b"changed")
    assert run(["pack", str(folder), "--for", "openvino", "--out", str(tmp_path / "out")]) == 1
    assert "was changed since it was built" in capsys.readouterr().err
