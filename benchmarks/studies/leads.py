"""By how much answers lead on offsets that nobody learned: the settings of `editing/token_directions.py`.

    python -m benchmarks leads --model FOLDER --locft FOLDER [--edits 60] [--float32]
    python -m benchmarks leads

Without `--model` it is the embedded model and facts of its own. The records are those of the calibration part; answers
end as edits teach them to. For each ridge and length: the least lead of an answer's token over all others together in
nats, after the prompt and the answer's tokens before it (no more than 16: float32 tells no more of its loss), that of
the lowest twentieth, and the share of tokens that lead by the margin.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import editmem
from benchmarks.models import load_host
from benchmarks.studies import parser_of
from benchmarks.studies.cost import edits_of_the_world
from benchmarks.studies.said import RECORDS, from_locft
from editmem.editing.batches import batch_of
from editmem.editing.optimise import token_losses, with_ends
from editmem.editing.token_directions import LENGTH, RIDGE, token_directions
from editmem.editor import changes_of
from editmem.hosts.forward import IGNORED_LABEL

RIDGES = (0.001, 0.1, 1.0, 3.0, 10.0, 1000.0)
LENGTHS = (1.0, 2.0, 4.0, 8.0, 64.0)
MOST = 16.0


def leads(editor: editmem.Editor, edits: Sequence[editmem.Edit]) -> Iterator[tuple[float, float, Tensor]]:
    """Ridge, length, and the lead of each token of the edits' answers in nats, up to `MOST`, ascending."""
    writer: Any = changes_of(editor).writers[0]
    encoded = [item for edit in edits for item in writer.renderings(edit)]
    with writer.host.frozen(), torch.no_grad():
        runner, batch = writer.runner(), batch_of(encoded, [writer.pad], writer.pad, writer.host.device)
        logits, prompts = runner.probe(batch)
        last = (batch.labels != IGNORED_LABEL).sum(1).cumsum(0) - 1
        bare = functools.partial(runner.go_on, pad=writer.pad, bare=True)
        batch.labels[:, -1], _ = writer.endings.closing(encoded, logits[last], bare)
        ended, asked = with_ends(encoded, batch.labels[:, -1]), batch.labels != IGNORED_LABEL
        draft = writer.memory.draft(ended, prompts, batch.owner)
        for ridge, length in [(ridge, LENGTH) for ridge in RIDGES] + [(RIDGE, length) for length in LENGTHS]:
            given = token_directions(runner, lambda: prompts, ridge)
            assert given is not None, "the memory's site is not in the last block, or the head has no plain weights"
            size = writer.directions.size * length / LENGTH
            draft.begin([item.target for item in ended], dataclasses.replace(given, size=size))
            losses = token_losses(runner.logits(batch, draft.places(runner.site.path), asked), batch.labels)[asked]
            yield ridge, length, losses.expm1().clamp(min=math.exp(-MOST)).log().neg().sort().values


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__name__, __doc__)
    parser.add_argument("--model", help="folder or Hub name; the embedded model by default")
    parser.add_argument("--locft", type=Path, help=f"folder of {RECORDS}")
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--float32", action="store_true", help="the model in float32")
    options = parser.parse_args(arguments)
    model, tokenizer = load_host(options.model) if options.model else editmem.tiny()
    model = model.float() if options.float32 else model
    edits = (
        from_locft(options.locft / RECORDS, options.edits)[0] if options.locft else edits_of_the_world(options.edits)
    )
    with editmem.wrap(model, tokenizer=tokenizer) as editor:
        margin = editor.specs[0].margin
        print("ridge  length  least  twentieth  share that leads by the margin")
        for ridge, length, lead in leads(editor, edits):
            share = (lead > margin).double().mean()
            print(f"{ridge:5g} {length:7g} {lead[0]:6.1f} {lead[len(lead) // 20]:10.1f} {share:8.3f}")
