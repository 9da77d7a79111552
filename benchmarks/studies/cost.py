"""What an edit costs, alone and in batches, beside the host's own forward pass over the same prompts and answers.

    python -m benchmarks cost --locft FOLDER --model FOLDER [--float32]
    python -m benchmarks cost

Without `--model` it is the embedded model and facts of its own. A call is `Editor.edit` of new prompts, from text to
records; the forward pass is one of the bare host over the padded texts of the same edits, the best of five, just
before the call. Prints the first call, which calibrates, and for each size of batch the median of the ratios.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import editmem
from benchmarks.models import load_host
from benchmarks.studies import parser_of
from benchmarks.studies.said import RECORDS, forward_seconds, from_locft
from editmem.tiny.world import facts


def edits_of_the_world(count: int) -> list[editmem.Edit]:
    """Facts of the embedded model, each with the answer of a later one."""
    answers = [fact.answer for fact in facts()]
    return [
        editmem.Edit(fact.prompts()[0], next(answer for answer in answers[i:] if answer != fact.answer))
        for i, fact in enumerate(facts()[:count])
    ]


def seconds_of(editor: editmem.Editor, edits: Sequence[editmem.Edit]) -> float:
    start = time.perf_counter()
    editor.edit(edits)
    return time.perf_counter() - start


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--model", help="folder or Hub name; the embedded model by default")
    parser.add_argument("--locft", type=Path, help=f"folder of {RECORDS}")
    parser.add_argument("--method", default="memoir")
    parser.add_argument("--calls", type=int, default=6, help="of each size")
    parser.add_argument("--float32", action="store_true", help="the model in float32: faster on CPUs without bfloat16")
    options = parser.parse_args(arguments)
    model, tokenizer = load_host(options.model) if options.model else editmem.tiny()
    model = model.float() if options.float32 else model
    count = 1 + 33 * options.calls
    edits = iter(from_locft(options.locft / RECORDS, count)[0] if options.locft else edits_of_the_world(count))
    with editmem.wrap(model, options.method, tokenizer=tokenizer) as editor:
        print(f"first call {seconds_of(editor, [next(edits)]):.2f} s")
        for size in (1, 32):
            ratios, each = [], []
            for _ in range(options.calls):
                batch = [next(edits) for _ in range(size)]
                with editor.off():
                    bare = forward_seconds(model, tokenizer, batch)
                whole = seconds_of(editor, batch)
                ratios.append(whole / bare)
                each.append(whole / size)
            low, high = min(ratios), max(ratios)
            print(
                f"{size:3} together: {statistics.median(ratios):.1f} ({low:.1f} to {high:.1f}) forward passes, "
                f"{1000 * statistics.median(each):.1f} ms an edit"
            )
        print(f"took {statistics.mean(record.took for record in editor.edits.values()):.3f} of {len(editor.edits)}")
