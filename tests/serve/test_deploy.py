"""The unit and the image start the program with options that it has, and as somebody who may do little."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from support.trees import ROOT

from gms_rt.cli.doctor import ENVIRONMENT
from gms_rt.cli.serve import command
from gms_rt.config import read_toml

UNIT = ROOT / "deploy/gms-rt-serve.service"
IMAGE = ROOT / "deploy/Dockerfile"


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def options(arguments: list[str]) -> dict[str, object]:
    return command.make_context("serve", arguments).params


def test_the_unit_starts_a_service_that_may_do_little() -> None:
    text = UNIT.read_text()
    program, verb, *rest = shlex.split(values(text, "ExecStart")[0])
    assert (Path(program).name, verb) == ("gms-rt", "serve")
    asked = options(rest)
    assert (asked["host"], asked["keep"]) == ("127.0.0.1", None)
    assert values(text, "DynamicUser") == ["yes"]
    assert values(text, "ProtectSystem") == ["strict"]
    # A stop waits for what was taken: longer than a request may last.
    assert float(values(text, "TimeoutStopSec")[0]) > asked["timeout"] + 30


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert not [line for line in done.stderr.splitlines() if UNIT.name in line], done.stderr


def test_the_image_starts_it_as_nobody_in_particular_and_asks_whether_it_is_ready() -> None:
    text = IMAGE.read_text().replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") :]
    start = json.loads(re.findall(r"^ENTRYPOINT (.*)$", last, re.MULTILINE)[0])
    asked = options(json.loads(re.findall(r"^CMD (.*)$", last, re.MULTILINE)[0]))
    assert start == ["gms-rt", "serve"]
    assert asked["token_file"] is not None
    assert re.findall(r"^USER (\d+)$", last, re.MULTILINE) == ["10001"]
    (health,) = re.findall(r"HEALTHCHECK .*CMD (\[.*\])", last)
    compile(json.loads(health)[2], "health", "exec")
    assert "/v2/health/ready" in health


def test_what_the_image_is_built_from_is_in_the_tree_and_sent() -> None:
    text = IMAGE.read_text().replace("\\\n", " ")
    ignored = [line for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines() if line]
    stages = re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE)
    copies = [shlex.split(line) for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)]
    assert len(copies) == 2
    for *sources, _ in copies:
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
            continue
        for source in sources:
            assert (ROOT / source).exists()
    # What makes the wheel: the package with its C sources, and what its description names.
    project = read_toml(ROOT / "pyproject.toml")
    needed = ["pyproject.toml", project["project"]["readme"], *project["project"]["license-files"], "gms_rt/serve/page"]
    needed.append(f"{project['tool']['scikit-build']['cmake']['source-dir']}/CMakeLists.txt")
    for name in needed:
        assert (ROOT / name).exists(), name
        assert not any(fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/") for pattern in ignored), name
    assert "gms-rt" in project["project"]["scripts"]
    assert not {path.name for path in (ROOT / "deploy").iterdir()} & set(ignored)


def test_nothing_is_written_outside_tmp_and_the_variables_exist() -> None:
    text = IMAGE.read_text().replace("\\\n", " ")
    said = dict(re.findall(r"(GMS_RT_\w+)=(\S+)", text)) | dict(re.findall(r"(GMS_RT_\w+)=(\S+)", UNIT.read_text()))
    assert set(said) == {"GMS_RT_CACHE", "GMS_RT_STATE"}
    assert set(said) <= set(ENVIRONMENT)
    assert all(value.startswith("/tmp/") for name, value in re.findall(r"(GMS_RT_\w+)=(\S+)", text))
    assert "--read-only --tmpfs /tmp" in text


def test_extras_that_are_named_exist() -> None:
    known = set(re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    named = re.findall(r"\[([\w,-]+)\]", IMAGE.read_text())
    assert set(named[0].split(",")) <= known


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(click.BadParameter):
        options(["--port", "70000"])
