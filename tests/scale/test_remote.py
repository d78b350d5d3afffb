"""Scans of an S3 bucket: the results of the same tree on a disk. The server is moto's, on loopback."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.scale_runs import archive, mean_engine, plain_run, results, setup, table

from gms_rt.errors import InputError, MissingExtraError, UsageError
from gms_rt.infer import OutFolder, find_sources, with_series
from gms_rt.scale.places import find_archive
from gms_rt.scale.processes import ProcessBackend
from gms_rt.scale.remote import RemoteFolder
from gms_rt.scale.run import ScaleJob, scale_cases

absent = [name for name in ("s3fs", "moto", "flask_cors") if importlib.util.find_spec(name) is None]
with_s3 = pytest.mark.skipif(bool(absent), reason=f"{' and '.join(absent)} not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries that speak to the server
URL = "s3://hospital/archive"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The file system of a bucket."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(tmp_path_factory.mktemp("aws") / "none"),
        }.items():
            patch.setenv(name, value)
        import s3fs

        files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        files.mkdir("hospital")
        yield files
        server.stop()


@with_s3
def test_a_bucket_is_segmented_as_the_same_folder_is(bucket: Any, tmp_path: Path) -> None:
    engine, out = mean_engine(tmp_path / "engine"), tmp_path / "out"
    scans = archive(tmp_path / "scans", 4)
    (scans / ".hidden.png").write_bytes(b"x")
    (scans / "notes.doc").write_bytes(b"x")
    (scans / "ct/bare").write_bytes(next((scans / "ct").iterdir()).read_bytes())  # DICOM without an ending
    bucket.put(str(scans), "hospital/archive", recursive=True)
    plain = plain_run(engine, scans, tmp_path / "plain")

    def run(resume: bool = False) -> dict[str, Any]:
        with OutFolder(out) as held, ProcessBackend(setup(engine, out, url=URL), 1) as backend:
            return scale_cases(find_archive(URL), ScaleJob(held, resume=resume), backend)

    found, local = find_archive(URL).found, with_series(find_sources([str(scans)]))
    assert [source.name for source in found.sources] == [source.name for source in local.sources]
    assert [source.stem for source in found.sources] == [source.stem for source in local.sources]
    assert found.skipped == 1
    run()
    assert results(out) == results(plain)
    assert table(out) == table(plain)

    bucket.pipe("hospital/archive/a/000.png", (scans / "b/001.png").read_bytes())
    bucket.pipe("hospital/archive/b/empty.png", (scans / "b/001.png").read_bytes())
    again = run(resume=True)
    assert again["sources_done_before"] == again["sources"] - 2
    assert (out / "masks/a/000.png").read_bytes() == (plain / "masks/b/001.png").read_bytes()
    assert (again["failed"], again["cases"]) == (0, len(table(plain)))


@with_s3
def test_what_is_gone_when_it_is_fetched_fails_and_names_lead_nowhere_else(bucket: Any, tmp_path: Path) -> None:
    for name in ("x.png", "../../../escape.png"):
        bucket.pipe(f"hospital/odd/{name}", b"x")
    (source,) = find_archive("s3://hospital/odd").found.sources
    assert source.name == "x.png"
    folder = RemoteFolder("s3://hospital/odd")
    for name in ("x.png", "../../../escape.png"):
        brought = folder.bring(dataclasses.replace(source, name=name), tmp_path)
        assert brought.path.read_bytes() == b"x"
        assert brought.path.resolve().is_relative_to(tmp_path.resolve())
    bucket.rm("hospital/odd/x.png")
    with pytest.raises(InputError, match="no longer there"):
        folder.bring(source, tmp_path)


@with_s3
def test_a_bucket_that_is_not_there_is_one_line(bucket: Any) -> None:
    with pytest.raises(UsageError, match="s3://nowhere/x: "):
        find_archive("s3://nowhere/x")


def test_an_unknown_file_system_is_one_line() -> None:
    with pytest.raises((UsageError, MissingExtraError), match="nothing://x"):
        find_archive("nothing://x")
