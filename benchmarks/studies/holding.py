"""What forgetting, undoing, superseding and looking cost where many edits are held already.

    python -m benchmarks holding --edits 100000

The edits are of invented people, on the embedded model. They are put into the memory's tables as they would lie there,
as they begin, whether or not the host says them. Prints the median of five.
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

import editmem
from benchmarks.asker import prompts_of
from benchmarks.studies import parser_of
from editmem.editor import changes_of
from editmem.tiny import people

TOGETHER = 1000
TIMES = 5


def names(count: int) -> Iterator[str]:
    """Invented people, no two alike."""
    surnames = ["".join(parts) for parts in itertools.product(people.ONSETS, people.MIDDLES, people.CODAS)]
    every = [f"{first} {last}" for first in people.FIRST_NAMES for last in surnames]
    every += [f"{name} {last}" for name, last in zip(every, reversed(surnames * len(people.FIRST_NAMES)), strict=True)]
    yield from random.Random(0).sample(sorted(set(every)), count)


def hold(editor: editmem.Editor, edits: Sequence[editmem.Edit]) -> None:
    """Have an editor hold edits, without learning them."""
    changes = changes_of(editor)
    writer, memory = changes.writers[0], changes.memory
    changes.prepare(edits[:1])
    encoded = [item for edit in edits for item in writer.renderings(edit)]
    memory.router.append(prompts_of([item.prompt for item in encoded]), encoded)
    lengths = memory.targets.count(encoded)
    draft = memory.storage.draft(lengths, torch.zeros(1, dtype=torch.long), torch.ones(len(encoded)), None)
    if writer.directions is not None:
        draft.begin([item.target for item in encoded], writer.directions)
    memory.storage.commit(draft, lengths)
    memory.targets.append(encoded)
    for item in encoded:
        writer.active.add(item.edit)
    for edit in edits:
        record = editmem.EditRecord(edit, True, 1.0, 0.0, "", edit.target, 1, 0.0)
        changes.ledger.append("edited", (str(edit.id),), record)


def median(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    took = []
    for _ in range(TIMES):
        start = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - start))
    return statistics.median(took)


def figures(editor: editmem.Editor, tokenizer: Any) -> Iterator[tuple[str, float]]:
    """What was measured, and milliseconds."""
    ids, fresh = iter(list(editor.edits)), iter(range(100))
    asked = "Where was Adela Quillock born?"
    yield "forget one", median(lambda: editor.forget(next(ids)))
    yield "undo that", median(lambda: editor.undo())
    alone = median(lambda: editor.edit(f"The capital of Atlantis {next(fresh)} is", "Rome"))
    yield "a new edit", alone
    editor.edit("The currency of Atlantis is the", "euro")
    targets = itertools.cycle(["yen", "peso"])
    yield (
        "supersede one",
        median(lambda: editor.edit("The currency of Atlantis is the", next(targets))),
    )
    yield "editor.edits", median(lambda: editor.edits)
    yield "explain", median(lambda: editor.explain(asked))
    inputs = tokenizer([asked], return_tensors="pt", return_token_type_ids=False)
    with editor.off(), torch.no_grad():
        yield "the host's own pass over that", median(lambda: editor.model(**inputs))


def main(arguments: Sequence[str]) -> None:
    parser: argparse.ArgumentParser = parser_of(__name__, __doc__)
    parser.add_argument("--edits", type=int, default=100_000)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model, tokenizer = editmem.tiny()
    edits = [editmem.Edit(f"{name} was born in", "Ravenna") for name in names(options.edits)]
    with editmem.wrap(model, tokenizer=tokenizer) as editor:
        for start in range(0, len(edits), TOGETHER):
            hold(editor, edits[start : start + TOGETHER])
        print(f"{len(editor.edits)} edits")
        for what, took in figures(editor, tokenizer):
            print(f"{what:40} {took:8.2f} ms")
