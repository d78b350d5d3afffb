"""The documents are true: links resolve, verbs are documented, the reference is current, commands run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gms_rt.cli.main import VERBS

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("gms_rt/*/README.md")]
PAGES += [ROOT / "gms_rt/demo/model/MODEL_CARD.md"]
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    broken = []
    for match in LINK.finditer(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        target = match[1] or match[2]
        if re.match(r"https?:|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        if not place.exists() or (anchor and anchor not in headings(place)):
            broken.append(target)
    assert broken == []


def test_the_reference_is_current() -> None:
    # In a process of its own: click keeps what earlier calls made of its options.
    script = [sys.executable, str(ROOT / "scripts/cli-reference")]
    current = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs/cli.md").read_text() == current, "run: scripts/cli-reference > docs/cli.md"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_told_of_in_the_guides(verb: str) -> None:
    guides = "".join(p.read_text() for p in PAGES if p.name != "cli.md")
    assert f"gms-rt {verb}" in guides


def test_the_readme_names_what_a_newcomer_needs() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(word in text for word in ("scripts/demo", "scripts/test", "Not for clinical use", "docs/deployers.md"))


def commands(page: Path) -> list[str]:
    """The commands after `$ ` in a page's console blocks, in order."""
    lines = "\n".join(CONSOLE.findall(page.read_text())).replace("\\\n", "").splitlines()
    return [line[2:].strip() for line in lines if line.startswith("$ ")]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/deployers.md", "docs/integrators.md", "docs/researchers.md"])
def test_every_command_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """In order, in one clone-like folder; the scripts themselves are run by tests/test_scripts.py."""
    found = commands(ROOT / page)
    assert found
    for name in ("gms_rt", "docs", "benchmarks", "README.md", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "gms_rt/demo/samples", tmp_path / "scans")
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "COLUMNS": "100"}
    for command in found:
        first = shlex.split(command)[0]
        if first.startswith("scripts/") or first in ("pip", "git"):
            continue
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"


def test_commands_left_to_the_script_tests_are_run_there() -> None:
    tested = (ROOT / "tests/test_scripts.py").read_text()
    for page in PAGES:
        for command in commands(page):
            first = shlex.split(command)[0]
            # scripts/check runs this very file: it cannot be run from here.
            if first.startswith("scripts/") and first != "scripts/check":
                run = re.compile(rf"subprocess\.run\(\s*\[[^\]]*{re.escape(first)}\"")
                assert run.search(tested), f"{page.name}: {command}"
