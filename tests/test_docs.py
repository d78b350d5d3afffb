"""The documents are true: links and paths resolve, verbs and rooms are described, commands run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.trees import ROOT

from gms_rt import __version__
from gms_rt.cli.main import VERBS

PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *ROOT.glob("[a-z]*/README.md"),
    *ROOT.glob("gms_rt/*/README.md"),
]
PAGES += [*ROOT.glob("gms_rt/demo/*/MODEL_CARD.md"), *ROOT.glob("benchmarks/results/*/README.md")]
ROOMS = sorted(path.name for path in (ROOT / "gms_rt").iterdir() if path.is_dir() and path.name != "__pycache__")
MODULES = sorted(path.name for path in (ROOT / "gms_rt").glob("[a-z]*.py"))
# Pages whose console blocks are run, in order, in a clone-like folder; those of a line share it.
RUN = [["README.md", "docs/deployers.md"], ["docs/integrators.md"], ["docs/researchers.md"]]
# Words of the field or of this project that a newcomer cannot be expected to know.
TERMS = ("Dice", "Parity", "LMM", "vaelight", "taef2")
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
# A path in `code`: something with a slash, of plain characters, that ends in a slash or a known suffix.
SOURCE = re.compile(r"`([\w.-]+/(?:[\w.-]+/)*(?:[\w-]+\.(?:py|c|h|toml|json|md))?)`")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return BLOCK.sub("", page.read_text())


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def targets(page: Path) -> list[str]:
    """The links of a page that stay in the project."""
    found = [match[1] or match[2] for match in LINK.finditer(prose(page))]
    return [target for target in found if not re.match(r"https?:|mailto:", target)]


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


@each_page
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in targets(page):
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        if not place.exists() or (anchor and anchor not in headings(place)):
            broken.append(target)
    assert broken == []


@each_page
def test_named_source_files_exist(page: Path) -> None:
    """Paths are written from the project's root, from `gms_rt/`, or from the page's folder."""
    missing = []
    for path in SOURCE.findall(prose(page)):
        first = path.split("/")[0]
        known = (ROOT / first).exists() or (ROOT / "gms_rt" / first).exists()  # else a user's own path: busi/, runs/
        if known and not any((base / path).exists() for base in (ROOT, ROOT / "gms_rt", page.parent)):
            missing.append(path)
    assert missing == []


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs/index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in targets(index)}
    assert [str(page.relative_to(ROOT)) for page in PAGES if page != index and page.resolve() not in linked] == []


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/researchers.md", "docs/training.md"])
def test_a_term_is_explained_where_it_is_first_used(page: str) -> None:
    """The link to its glossary entry stands before the first use, or in the same paragraph."""
    text = prose(ROOT / page)
    for term in TERMS:
        used = re.search(rf"\b{term}\b(?!\]\()", text)
        if used is None or re.search(r"\(glossary\.md\)", text[: used.start()]):  # the page begins with the glossary
            continue
        link = re.search(rf"glossary\.md#{term.lower()}\b", text)
        assert link is not None, f"{term} is not explained"
        assert link.start() < text.find("\n\n", used.start()), f"{term} is used before it is explained"


def test_the_architecture_and_the_contributors_table_name_every_room() -> None:
    tree = (ROOT / "docs/architecture.md").read_text()
    table = (ROOT / "CONTRIBUTING.md").read_text()
    for room in ROOMS:
        assert f"  {room}/ " in tree, room
        assert f"| `gms_rt/{room}` |" in table, room
    for module in MODULES:
        assert module.startswith("__") or f"  {module} " in tree, module
        assert module.startswith("__") or f"| `gms_rt/{module}` |" in table, module


def test_the_contributors_table_names_the_tests_of_each_room() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text()
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert [name for name in sorted(folders) if name != "benchmarks" and f"`tests/{name}`" not in table] == []


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    assert text.startswith("cff-version: 1.2.0\n")
    assert f"\nversion: {__version__}\n" in text
    assert "\ntitle: gms-rt\n" in text
    assert "\nlicense: Apache-2.0\n" in text


def test_the_reference_is_current() -> None:
    # In a process of its own: click keeps what earlier calls made of its options.
    script = [sys.executable, str(ROOT / "scripts/cli-reference")]
    current = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (ROOT / "docs/cli.md").read_text() == current, "run: scripts/cli-reference > docs/cli.md"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_told_of_in_the_guides(verb: str) -> None:
    guides = "".join(p.read_text() for p in PAGES if p.name not in ("cli.md", "CHANGELOG.md"))
    assert f"gms-rt {verb}" in guides


def test_the_readme_names_what_a_newcomer_needs() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(word in text for word in ("scripts/demo", "scripts/test", "Not for clinical use", "docs/deployers.md"))
    assert all(f"$ gms-rt {verb}" in text for verb in ("build", "infer", "bench", "parity"))


def test_the_readme_is_read_in_three_minutes() -> None:
    words = re.sub(r"\]\([^)]*\)", "]", (ROOT / "README.md").read_text()).split()
    assert len(words) < 850


def printed(page: Path) -> list[tuple[str, str]]:
    """Each command of a page with the output that the page shows below it."""
    found: list[tuple[str, str]] = []
    for block in CONSOLE.findall(page.read_text()):
        for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command.strip(), output))
    return found


def fixed_parts(output: str) -> set[str]:
    """What an output says on every machine: the label that a line begins with, and whole lines without a number."""
    lines = [re.sub(r"\b(HD|p)\d+", r"\1", " ".join(line.split())) for line in output.splitlines()]
    labels = {match[0] for line in lines if (match := re.match(r"[a-z][a-z ]*:", line))}
    return labels | {line for line in lines if line and not re.search(r"\d", line)}


def commands(page: Path) -> list[str]:
    """The commands after `$ ` in a page's console blocks, in order."""
    return [command for command, _ in printed(page)]


def test_every_page_with_commands_is_run() -> None:
    """A new page with console blocks joins RUN, unless it only names the project's scripts."""
    with_commands = {str(p.relative_to(ROOT)) for p in PAGES if any(not c.startswith("scripts/") for c in commands(p))}
    assert with_commands == {page for pages in RUN for page in pages}


@pytest.fixture(scope="module")
def engines() -> dict[str, Path]:
    """Engine folders of pages that have run, by the command that built them: the same build takes them over."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("pages", RUN, ids="+".join)
def test_every_command_of_a_page_runs(pages: list[str], tmp_path: Path, engines: dict[str, Path]) -> None:
    """In order, in one clone-like folder, and prints what the page shows, numbers and machine aside.

    A command that an earlier page of the folder has too is run once. The scripts themselves are run by
    tests/test_scripts.py.
    """
    found = [pair for page in pages for pair in printed(ROOT / page)]
    assert all(printed(ROOT / page) for page in pages)
    for name in ("gms_rt", "docs", "benchmarks", "README.md", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "gms_rt/demo/samples", tmp_path / "scans")
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "COLUMNS": "100"}
    said: dict[str, str] = {}
    for command, shown in found:
        first = shlex.split(command)[0]
        if first.startswith("scripts/") or first in ("pip", "git"):
            continue
        if command not in said:
            build = command.removesuffix(" --quiet")
            if build in engines:
                shutil.copytree(engines[build], tmp_path / "engines/demo-fp16")
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"$ {command}\n{done.stdout}\n{done.stderr}"
            if command == "gms-rt build --precision fp16":
                engines[command] = tmp_path / "engines/demo-fp16"
            said[command] = done.stdout
        missing = fixed_parts(shown) - fixed_parts(said[command]) - {"note:"}  # a note depends on the machine
        assert missing == set(), f"$ {command}\n{said[command]}"


def test_commands_left_to_the_script_tests_are_run_there() -> None:
    tested = (ROOT / "tests/test_scripts.py").read_text()
    for page in PAGES:
        for command in commands(page):
            first = shlex.split(command)[0]
            # scripts/check runs this very file: it cannot be run from here.
            if first.startswith("scripts/") and first != "scripts/check":
                run = re.compile(rf"subprocess\.run\(\s*\[[^\]]*{re.escape(first)}\"")
                assert run.search(tested), f"{page.name}: {command}"
