"""The house: which folder may import which, and what stands in no module of the core."""

import ast
import re
from pathlib import Path

import pytest

import editmem

ROOT = Path(editmem.__file__).parent
FLOORS = [
    ["errors", "kernels", "state", "tiny"],
    ["text", "real"],
    ["hosts", "edits"],
    ["storage"],
    ["checks", "memory"],
    ["routing"],
    ["residual"],
    ["editing"],
    ["editor"],
    ["lookup"],
    ["methods"],
    ["wrap"],
    ["serve"],
    ["cli", "__init__"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MODULES = sorted(ROOT.rglob("*.py"))


def place(path):
    """Of a file its parts below the package, without the suffix."""
    return path.relative_to(ROOT).with_suffix("").parts


def imported(path):
    """The modules of the package that a file imports, as parts below the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[1:] for name in node.names if name.name.startswith("editmem."))
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            package, *parts = (node.module or "").split(".")
            if package == "editmem":
                yield from ([parts] if parts else ([name.name] for name in node.names if name.name in FLOOR))
        assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"{path}: relative import"


def test_every_folder_has_its_floor():
    assert {place(path)[0] for path in MODULES} == set(FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(place(path)))
def test_imports_go_down(path):
    own = place(path)
    for other in imported(path):
        assert other[0] == own[0] or FLOOR[other[0]] < FLOOR[own[0]], f"{own} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(place(path)))
def test_methods_do_not_know_each_other(path):
    """But for the list of them, and the names that the package exports."""
    own = place(path)
    for other in imported(path):
        if other[0] == "methods" and len(other) > 1 and own not in (("methods", "__init__"), ("__init__",)):
            assert own[:2] == ("methods", other[1]), f"{own} imports {other}"


def told_apart(path):
    """Lines on which a spec or a memory is asked what it is, or what it has."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            asked, about = ast.unparse(node.args[0]), ast.unparse(node.args[1])
            names = {part.split(".")[-1] for part in about.strip("()").split(", ")}
            special = bool(names & {"Spec", "Memory", "Draft"}) or any(
                name.endswith(("Spec", "Memory")) for name in names
            )
            if node.func.id == "isinstance" and special:
                yield node.lineno
            if node.func.id in ("getattr", "hasattr") and asked.split(".")[-1] in ("spec", "memory"):
                yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: "/".join(place(path)))
def test_nobody_asks_a_memory_what_it_is(path):
    """Outside of its method's folder; `wrap` takes a spec in many forms, and the checks read its fields by name."""
    if place(path)[0] not in ("methods", "wrap", "checks"):
        assert not list(told_apart(path))


PAGES = [path for folder in ("docs", ".") for path in sorted((ROOT.parents[1] / folder).glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_files_that_are_there(page):
    """As they stand in the package, or in the repository; other folders' pages name their own files."""
    repository = ROOT.parents[1]
    for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file() or (repository / name).is_file(), f"{page.name} names {name}"


def test_functions_are_short():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"
