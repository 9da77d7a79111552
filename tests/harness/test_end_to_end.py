"""A real run on the embedded model, and its figures found again without the harness."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import editmem
from benchmarks.datasets import load
from benchmarks.folder import read_json, read_lines
from benchmarks.report.results import read_results
from benchmarks.run import draw, execute
from benchmarks.spec import RunSpec

pytestmark = pytest.mark.slow

SPEC = RunSpec("tiny", "wise", "world", (4, 40), metrics=("reliability", "locality"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute(SPEC, tmp_path_factory.mktemp("results"))


def answer(model, tokenizer, prompt: str) -> str:
    """Greedy, one prompt at a time, without `generate`."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(8):
        with torch.no_grad():
            following = model(input_ids=ids).logits[0, -1].argmax()
        ids = torch.cat([ids, following[None, None]], 1)
    return tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()


def test_the_report_says_what_the_saved_model_does(folder: Path) -> None:
    records = draw(load("world"), 40, SPEC.seed)
    model, tokenizer = editmem.tiny()
    probes = [probe.prompt for record in records for probe in record.locality][:40]
    before = {prompt: answer(model, tokenizer, prompt) for prompt in probes}
    editor = editmem.load(model, folder / "state" / "40", tokenizer=tokenizer)
    right = [answer(editor.model, tokenizer, r.prompt).startswith(r.target) for r in records]
    (group,) = read_results(folder.parent)
    assert group.overall("wise", 40, "reliability") == pytest.approx(statistics.fmean(right))
    kept = [answer(editor.model, tokenizer, prompt) == before[prompt] for prompt in probes]
    locality = [line["value"] for line in read_lines(folder / "scores.jsonl") if line["metric"] == "locality"]
    assert statistics.fmean(kept) == pytest.approx(statistics.fmean(locality), abs=0.05)


def numbers(folder: Path) -> list[dict]:
    own = ("seconds per edit", "edits per second", "peak memory")
    return [line for line in read_lines(folder / "scores.jsonl") if line["metric"] not in own]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_run_that_is_killed_outright_ends_the_same(folder: Path, tmp_path: Path) -> None:
    """The process itself, in the middle of whatever it does."""
    code = (
        "import json, sys; from pathlib import Path; from benchmarks.run import execute; "
        "from benchmarks.spec import RunSpec; execute(RunSpec.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, json.dumps(SPEC.to_dict()), str(tmp_path)]
    ours = tmp_path / SPEC.slug
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (ours / "edits.jsonl").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (read_json(ours / "progress.json") or {"finished": False})["finished"]
    execute(SPEC, tmp_path)
    assert numbers(ours) == numbers(folder)
