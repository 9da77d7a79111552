"""What an edit costs, alone and in batches, beside the host's own forward pass over the same prompts and answers.

    python -m benchmarks cost --locft FOLDER --model FOLDER [--float32]
    python -m benchmarks cost

Without `--model` it is the embedded model and facts of its own. A call is `Editor.edit` of new prompts, from text to
records; the forward pass is one of the bare host over the padded texts of the same edits, the best of three, just
before the call. Prints the first call, which calibrates, and for each size of batch the median of the ratios.
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
from editmem.tiny.world import facts


def edits_of(locft: Path | None, count: int) -> list[editmem.Edit]:
    if locft:
        records = json.loads((locft / "wikibigedit_2k.json").read_text(encoding="utf-8"))[:count]
        return [editmem.Edit(record["prompt"], record["target_new"]) for record in records]
    answers = [fact.answer for fact in facts()]
    return [
        editmem.Edit(fact.prompts()[0], next(answer for answer in answers[i:] if answer != fact.answer))
        for i, fact in enumerate(facts()[:count])
    ]


def seconds_of(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def forward_seconds(editor: editmem.Editor, model: Any, tokenizer: Any, edits: Sequence[editmem.Edit]) -> float:
    texts = [f"{edit.text} {edit.target}" for edit in edits]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    with torch.no_grad(), editor.off():
        return min(seconds_of(lambda: model(**inputs)) for _ in range(3))


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--model", help="folder or Hub name; the embedded model by default")
    parser.add_argument("--locft", type=Path, help="folder of wikibigedit_2k.json")
    parser.add_argument("--method", default="memoir")
    parser.add_argument("--calls", type=int, default=6, help="of each size")
    parser.add_argument("--float32", action="store_true", help="the model in float32: faster on CPUs without bfloat16")
    options = parser.parse_args(arguments)
    model, tokenizer = load_host(options.model) if options.model else editmem.tiny()
    model = model.float() if options.float32 else model
    edits = iter(edits_of(options.locft, 40 * options.calls))
    with editmem.wrap(model, options.method, tokenizer=tokenizer) as editor:
        first = [next(edits)]
        print(f"first call {seconds_of(lambda: editor.edit(first)):.2f} s")
        for size in (1, 32):
            ratios, each = [], []
            for _ in range(options.calls):
                batch = [next(edits) for _ in range(size)]
                bare = forward_seconds(editor, model, tokenizer, batch)
                whole = seconds_of(lambda batch=batch: editor.edit(batch))
                ratios.append(whole / bare)
                each.append(whole / size)
            low, high = min(ratios), max(ratios)
            print(
                f"{size:3} together: {statistics.median(ratios):.1f} ({low:.1f} to {high:.1f}) forward passes, "
                f"{1000 * statistics.median(each):.1f} ms an edit"
            )
        print(f"took {statistics.mean(record.took for record in editor.edits.values()):.3f} of {len(editor.edits)}")
