"""What `help` shows: public names are typed and documented, with examples that run; nothing internal is among them."""

import doctest
import inspect
from pathlib import Path

import pytest

import editmem

NAMES = [
    "METHODS", "Candidate", "CheckpointError", "ComemSpec", "Edit", "EditMemError", "EditRecord", "Editor", "Event",
    "Explanation", "ForgetCost", "GraceSpec", "HostError", "InvalidEditError", "Item", "Ledger", "LedgerError",
    "MemeicSpec", "MemoirSpec", "Picture", "Preview", "Spec", "SpecError", "Taken", "UnknownEditError", "WiseSpec",
    "load", "real", "tiny", "unwrap", "wrap",
]  # fmt: skip
BASES = ["METHODS", "Spec"]
"""A list, and what the settings of all methods are derived from: nothing to be used by itself."""
DEPRECATED = ["decomposed"]


def members(cls):
    """The public methods and properties of a class that it defines itself, by name."""
    own = {name: inspect.getattr_static(cls, name) for name in vars(cls) if not name.startswith("_")}
    kinds = {name: getattr(value, "fget", None) or getattr(value, "__func__", value) for name, value in own.items()}
    return {name: value for name, value in kinds.items() if inspect.isfunction(value)}


EDITOR = members(editmem.Editor)
OBJECTS = {name: getattr(editmem, name) for name in NAMES if name not in BASES}
OBJECTS |= {f"Editor.{name}": value for name, value in EDITOR.items() if name not in DEPRECATED}


def test_public_names():
    assert sorted(editmem.__all__) == sorted(NAMES)


@pytest.mark.parametrize("name", OBJECTS)
def test_examples(name, monkeypatch):
    """One each, that runs as it stands."""
    monkeypatch.chdir(Path(__file__).parents[1])
    found = doctest.DocTestFinder(recurse=False).find(OBJECTS[name], name, globs={})
    assert found
    assert found[0].examples, f"{name} has no example"
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(found[0], out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BASES])
def test_docstrings_and_types(name):
    value = getattr(editmem, name)
    assert inspect.getdoc(value), name
    functions = {f"{name}.{own}": method for own, method in members(value).items()} if inspect.isclass(value) else {}
    for own, function in functions.items() if functions else [(name, value)]:
        assert inspect.getdoc(function), f"{own} has no docstring"
        if inspect.isfunction(function):
            signature = inspect.signature(function)
            assert signature.return_annotation is not signature.empty, f"{own}: what it returns is not said"
            for parameter in list(signature.parameters.values()):
                typed = parameter.annotation is not parameter.empty or parameter.name in ("self", "cls")
                assert typed, f"{own}: {parameter.name} has no type"


def test_help_shows_nothing_internal():
    """Public methods and properties of an editor are those of its page in the documentation."""
    assert sorted(EDITOR) == sorted([
        "confirm", "decomposed", "edit", "edits", "explain", "forget", "forget_cost", "history", "off",
        "pinned", "preview", "prompt_lengths", "push_to_hub", "reading", "reject", "save_pretrained", "tokenizer",
        "undo", "unwrap", "version",
    ])  # fmt: skip
    assert "Not for users" in editmem.Editor.__init__.__doc__


def test_errors_that_are_documented_are_exported():
    for name, value in vars(editmem.errors).items():
        if inspect.isclass(value) and issubclass(value, Exception):
            assert getattr(editmem, name) is value
