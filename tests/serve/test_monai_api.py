"""What 3D Slicer's MONAI Label extension asks for, asked by that extension's own client.

It is read from the wheel of `monailabel`, which `scripts/test` fetches on a throwaway machine; by hand:
`python -m pip download --no-deps --dest build/clients monailabel`.
"""

from __future__ import annotations

import gc
import importlib.util
import types
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.infer_engine import brightness_engine
from support.serve_server import Running, Setup, picture, running
from support.trees import ROOT

from gms_rt.infer import InferJob, InferOptions, OutFolder, find_sources, run_cases
from gms_rt.serve.guard import GuardSettings

nibabel = pytest.importorskip("nibabel")
# The extension's client leaves connections and files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
CLIENT = "plugins/slicer/MONAILabel/MONAILabelLib/client.py"  # in the wheel


@pytest.fixture(scope="module")
def library() -> types.ModuleType:
    """The extension's module."""
    pytest.importorskip("requests", reason="the extension's client needs requests")
    wheels = sorted((ROOT / "build/clients").glob("monailabel-*.whl"))
    if not wheels:
        pytest.skip("no wheel of monailabel in build/clients")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        source = wheel.read(next(name for name in wheel.namelist() if name.endswith(CLIENT)))
    module = types.ModuleType("monai_label_client")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if importlib.util.find_spec("cgi") is None:
            pytest.skip("the extension's client needs the module cgi, which Python 3.13 has no more")
        exec(compile(source, CLIENT, "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("monai") / "brightness") as found:
        yield found


@pytest.fixture
def client(library: types.ModuleType, server: Running, tmp_path: Path) -> Iterator[Any]:
    yield library.MONAILabelClient(f"http://127.0.0.1:{server.port}", str(tmp_path), "user-xyz")
    gc.collect()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    values = np.stack([picture(n, 40, 50)[..., 0] for n in range(4)], axis=-1).astype(np.int16)
    path = tmp_path / "brain.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 3, 4, 1])), path)
    return path


def labels_by_infer(tmp_path: Path, volume: Path) -> Any:
    with OutFolder(tmp_path / "out") as held, brightness_engine(tmp_path / "brightness") as engine:
        run_cases(find_sources([str(volume)]), InferJob(engine, held, InferOptions()))
    return nibabel.load(tmp_path / "out/nifti/brain_dseg.nii.gz")


def test_info_has_what_the_extension_reads(client: Any) -> None:
    info = client.info()
    assert info["models"]["brightness"]["type"] == "segmentation"
    assert info["labels"] == list(info["models"]["brightness"]["labels"])
    assert not info.get("config")  # the extension takes that for an old server
    assert (info["strategies"], info["trainers"], info["datastore"]["total"]) == ({}, {}, 0)
    assert client.auth_enabled() is False
    assert client.train_status(check_if_running=True) is False


def test_a_session_is_uploaded_and_segmented(
    library: types.ModuleType, client: Any, volume: Path, tmp_path: Path
) -> None:
    session = client.create_session(str(volume))["session_id"]
    assert client.get_session(session)
    result, params = client.infer("brightness", "brain", {}, session_id=session)
    ours, theirs = nibabel.load(result), labels_by_infer(tmp_path, volume)
    assert np.array_equal(ours.dataobj, theirs.dataobj)
    assert np.array_equal(ours.affine, theirs.affine)
    assert list(params["label_names"].values()) == [1]
    client.remove_session(session)
    with pytest.raises(library.MONAILabelClientException) as told:
        client.get_session(session)
    assert told.value.status_code == 404


def test_an_image_of_the_datastore_is_segmented_and_labelled(client: Any, volume: Path, tmp_path: Path) -> None:
    assert client.upload_image(str(volume), "a brain") == {"image": "a brain"}
    result, _ = client.infer("brightness", "a brain", {})
    assert np.array_equal(nibabel.load(result).dataobj, labels_by_infer(tmp_path, volume).dataobj)
    assert client.save_label("a brain", result, "final", {})["image"] == "a brain"
    assert set(client.datastore()["objects"]["a brain"]["labels"]) == {"final"}
    assert Path(client.download_label("a brain", "final")).read_bytes() == Path(result).read_bytes()


def test_a_file_can_come_with_the_question(client: Any, volume: Path, tmp_path: Path) -> None:
    result, _ = client.infer("brightness", "", {}, file=str(volume))
    assert np.array_equal(nibabel.load(result).dataobj, labels_by_infer(tmp_path, volume).dataobj)


def test_errors_are_told(library: types.ModuleType, client: Any) -> None:
    for model, image in (("other", "x"), ("brightness", "nothing")):
        with pytest.raises(library.MONAILabelClientException) as told:
            client.infer(model, image, {})
        assert "Status: 404" in told.value.msg


def test_the_login_is_the_token(library: types.ModuleType, tmp_path: Path) -> None:
    token = "0123456789abcdef"
    with running(tmp_path / "brightness", Setup(guard=GuardSettings(token=token))) as server:
        client = library.MONAILabelClient(f"http://127.0.0.1:{server.port}", str(tmp_path))
        assert client.auth_enabled() is True
        for refused in (client.info, lambda: client.auth_token("anybody", "a wrong password")):
            with pytest.raises(library.MONAILabelClientException) as told:
                refused()
            assert told.value.status_code == 401
        client.update_auth(client.auth_token("anybody", token))
        assert client.auth_valid_token() is True
        assert "brightness" in client.info()["models"]
        gc.collect()
