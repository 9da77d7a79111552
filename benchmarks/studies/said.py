"""What a real model says once it is edited: greedy answers, after the last edit, by the default spec.

    python -m benchmarks said --model FOLDER --asks asks.py --locft FOLDER --edits 100 [--chat]

Prints shares: the edited prompt answered with its target, as whole words, and so the other ways to ask it; prompts that
are not the edits' answered as by the bare model (`asks`: other questions, other subjects and tricky ones; `locft`: the
record's locality prompt); what a first and a later edit cost, in seconds and in forward passes over prompt and answer.
"""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import editmem
from benchmarks.models import load_host
from benchmarks.studies import parser_of
from benchmarks.studies.asking import items_of
from benchmarks.studies.main_job import ask

Rows = list[tuple[str, str, str | None]]
"""Kind, prompt, and the answer that it must have; None for that of the bare model."""
RECORDS = "wikibigedit_2k.json"


def from_asks(path: Path) -> tuple[list[editmem.Edit], Rows]:
    edits, rows = [], []  # type: list[editmem.Edit], Rows
    for item in items_of(path):
        edits.append(editmem.Edit(item["prompt"], item["target"]))
        rows += [("asks: itself", item["prompt"], item["target"])]
        rows += [("asks: rephrased", text, item["target"]) for text in item["asks"]]
        for kind in ("other_question", "other_subject", "tricky"):
            rows += [(f"asks: {kind}", text, None) for text in item[kind]]
    return edits, rows


def from_locft(path: Path, count: int) -> tuple[list[editmem.Edit], Rows]:
    edits, rows = [], []  # type: list[editmem.Edit], Rows
    for record in json.loads(path.read_text(encoding="utf-8"))[:count]:
        target = record["target_new"]
        edits.append(editmem.Edit(record["prompt"], target))
        rows += [
            ("wikibigedit: itself", record["prompt"], target),
            ("wikibigedit: rephrased", record["rephrase_prompt"], target),
            ("wikibigedit: locality", record["locality_prompt"], None),
        ]
    return edits, rows


def rendered(tokenizer: Any, prompts: Sequence[str], chat: bool) -> list[str]:
    """Prompts as they are, or as a user's turn of a chat."""
    if not chat:
        return list(prompts)
    turns = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return [tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) for turn in turns]


def forward_seconds(model: Any, tokenizer: Any, edits: Sequence[editmem.Edit]) -> float:
    """One pass over prompts and answers in a batch, the best of five."""
    texts = [f"{edit.text} {edit.target}" for edit in edits]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.perf_counter()
            model(**inputs)
            times.append(time.perf_counter() - start)
    return min(times)


def says(answer: str, target: str) -> bool:
    """Whether an answer begins with the target, as whole words: a base model goes on after it."""
    target = target.removesuffix(".")
    return answer.startswith(target) and not answer[len(target) :][:1].isalnum()


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--model", required=True, help="folder or Hub name")
    parser.add_argument("--asks", type=Path)
    parser.add_argument("--locft", type=Path)
    parser.add_argument("--edits", type=int, default=100, help="of WikiBigEdit")
    parser.add_argument("--method", default="memoir")
    parser.add_argument("--chat", action="store_true", help="ask in turns of a chat; the edits are plain text")
    parser.add_argument("--float32", action="store_true", help="the model in float32: faster on CPUs without bfloat16")
    options = parser.parse_args(arguments)
    model, tokenizer = load_host(options.model)
    model = model.float() if options.float32 else model
    edits, rows = from_asks(options.asks) if options.asks else ([], [])
    if options.locft:
        more = from_locft(options.locft / RECORDS, options.edits)
        edits, rows = edits + more[0], rows + more[1]
    prompts = rendered(tokenizer, [prompt for _, prompt, _ in rows], options.chat)
    before = ask(model, tokenizer, prompts, tokens=16, batch=32)
    seconds = []
    with editmem.wrap(model, options.method, tokenizer=tokenizer) as editor:
        for edit in edits[:8]:
            start = time.perf_counter()
            editor.edit([edit])
            seconds.append(time.perf_counter() - start)
        editor.edit(edits[8:], batch_size=16)
        took = statistics.mean(record.took for record in editor.edits.values())
        after = ask(model, tokenizer, prompts, tokens=16, batch=32)
        bare = forward_seconds(model, tokenizer, edits[:1])
    print(
        f"{len(edits)} edits, took {took:.3f}; first {seconds[0]:.2f} s, later {statistics.median(seconds[1:]):.2f} s"
    )
    print(f"a forward pass over prompt and answer {bare:.3f} s")
    right: dict[str, list[bool]] = {}
    for (kind, _, target), was, now in zip(rows, before, after, strict=True):
        right.setdefault(kind, []).append(now == was if target is None else says(now, target))
    for kind, hits in right.items():
        print(f"{kind:24} {statistics.mean(hits):.3f} of {len(hits)}")
