"""Names and signatures: a public name in one module, a verb or a noun for a function, at most seven parameters."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.trees import ROOT

PACKAGE = ROOT / "gms_rt"
# The same job in several modules of one kind, which are found by module: a verb's command, a rendering of a report.
SAME_HOOK = {"command": "cli/*.py", "render": "report/*.py"}
# `python -m` and the installed command each start at a `main`.
ENTRY_POINTS = {"main"}
PARAMETERS = 7
IRREGULAR = {
    "bound",
    "chosen",
    "done",
    "drawn",
    "found",
    "given",
    "held",
    "kept",
    "known",
    "made",
    "taken",
    "told",
    "written",
}
# Words that end like a participle and are not one.
VERBS = {"embed", "exceed", "feed", "need", "proceed", "read", "seed", "shed", "speed"}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE), ast.parse(path.read_text())


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node


def test_a_public_name_stands_in_one_module() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in modules():
        for node in public(tree.body):
            hook = node.name in SAME_HOOK and path.match(SAME_HOOK[node.name])
            if node.name not in ENTRY_POINTS and not hook:
                places[node.name].append(str(path))
    twice = [f"{name} in {' and '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]
    assert not twice, "\n".join(twice)


def test_a_function_is_not_named_by_a_lone_participle() -> None:
    found = [
        f"{path}: {node.name}"
        for path, tree in modules()
        for node in public(tree.body)
        if isinstance(node, ast.FunctionDef)
        and (node.name in IRREGULAR or (re.fullmatch(r"[a-z]+ed", node.name) and node.name not in VERBS))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("signature", "count"),
    [("def f(self, a, /, b, *c, d=1, **e): ...", 5), ("def f(): ...", 0), ("def f(cls, a): ...", 1)],
)
def test_parameters_are_counted(signature: str, count: int) -> None:
    (function,) = ast.parse(signature).body
    assert isinstance(function, ast.FunctionDef)
    assert len(parameters(function)) == count


def parameters(function: ast.FunctionDef) -> list[str]:
    """The names of what a caller gives."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [rest for rest in (arguments.vararg, arguments.kwarg) if rest is not None]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def test_a_function_takes_at_most_seven_parameters() -> None:
    """More belong into a frozen dataclass whose fields are explained; the verbs of `cli/` take one per option."""
    found = [
        f"{path}:{node.lineno}: {node.name} takes {len(parameters(node))}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if path.parts[0] != "cli" and isinstance(node, ast.FunctionDef) and len(parameters(node)) > PARAMETERS
    ]
    assert not found, "\n".join(found)
