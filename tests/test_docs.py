"""The pages' examples, run as a reader would: block after block, and what they print is what the page says."""

import contextlib
import doctest
import importlib
import io
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import editmem
from editmem.cli import app

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "index.md", *sorted(DOCS.glob("tutorials/*.md")), *sorted(DOCS.glob("how-to/*.md"))]
NEEDS = re.compile(r"^<!-- needs: (\S+) -->$", re.MULTILINE)
"""At the top of a page, what it needs beyond editmem: a module, or the extra `real`, for its examples to run."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SLOW = {"tutorials/pictures.md", "tutorials/serving.md"}
REAL = "EDITMEM_REAL"
"""Set in the environment, pages about a real model run on it, which takes minutes."""
PRINTS = doctest.OutputChecker()


@dataclass(frozen=True)
class Block:
    """An example of a page.

    Attributes:
        line: of the page, on which it begins.
        language: "python", or "sh" for commands, of which those of `editmem` are run. What is "py" in a page is another
            program's, and is not.
        code: what it says.
        printed: what stands in the block of text behind it; None where there is none, and nothing is compared.
    """

    line: int
    language: str
    code: str
    printed: str | None


def blocks(page):
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    for fence, following in zip(found, [*found[1:], None], strict=True):
        if fence[1] in ("python", "sh"):
            says = following is not None and following[1] == "text"
            yield Block(text[: fence.start()].count("\n") + 1, fence[1], fence[2], following[2] if says else None)


def run(page, compare=True):
    """Every example of a page, in order, in one namespace."""
    names = {"__name__": "__main__"}
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            if block.language == "python":
                exec(compile("\n" * block.line + block.code, str(page), "exec"), names)
            else:
                run_commands(block.code, where)
        if compare and block.printed is not None:
            same = PRINTS.check_output(block.printed, said.getvalue(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            assert same, f"{where}: the page says\n{block.printed}\nand it prints\n{said.getvalue()}"


def run_commands(code, where):
    for line in code.replace("\\\n", "").splitlines():
        command, *arguments = shlex.split(line)
        if command == "editmem":
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, f"{where}: {line}\n{result.output}"
            print(result.stdout, end="")


def needed(page):
    found = NEEDS.search(page.read_text(encoding="utf-8"))
    return None if found is None else found[1]


@pytest.fixture
def somewhere(tmp_path, monkeypatch, calibrated_by_little):
    """A folder of its own to run in."""
    monkeypatch.chdir(tmp_path)


def cases():
    for page in PAGES:
        name = page.relative_to(DOCS).as_posix()
        yield pytest.param(page, id=name, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.mark.parametrize("page", list(cases()))
def test_examples_of_pages(page, somewhere):
    needs = needed(page)
    if needs == "editmem[real]":
        if not os.environ.get(REAL):
            pytest.skip(f"it needs the extra `real` and minutes: set {REAL}=1")
    elif needs is not None:
        pytest.importorskip(needs)
    run(page)


def test_real_examples_on_the_embedded_model(somewhere, monkeypatch, host, tokenizer):
    """Calls and names are right, whatever it answers."""
    monkeypatch.setattr(editmem, "real", lambda: (host, tokenizer))
    run(DOCS / "tutorials" / "real-model.md", compare=False)


def test_every_page_of_examples_has_some():
    for page in PAGES:
        assert any(block.language == "python" for block in blocks(page)), page


def test_a_page_that_says_something_else_is_found(tmp_path):
    page = tmp_path / "page.md"
    right, wrong = (f"```python\nprint(1 + 1)\n```\n\n```text\n{said}\n```\n" for said in (2, 3))
    page.write_text(f"{right}\n{wrong}")
    with pytest.raises(AssertionError, match=r"page\.md, line 9: the page says\s+3"):
        run(page)
    page.write_text("```sh\neditmem list --memory nowhere\n```\n")
    with pytest.raises(AssertionError, match="nowhere"):
        run(page)


def test_every_public_name_is_in_the_reference():
    shown = set()
    for page in sorted(DOCS.glob("api/*.md")):
        if page.stem == "serving":  # of the extra; the build of the site finds what is named there
            continue
        for path in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module, name = path.rsplit(".", 1)
            assert getattr(importlib.import_module(module), name) is getattr(editmem, name), path
            shown.add(name)
    assert shown == set(editmem.__all__)
