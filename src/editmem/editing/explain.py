"""Work out which edit acts on a prompt, and why."""

from collections.abc import Sequence
from typing import Any

from editmem.editing.writer import Writer
from editmem.edits.edit import Prompt
from editmem.edits.explanation import Candidate, Explanation
from editmem.edits.history import Ledger
from editmem.edits.image import Picture
from editmem.memory import Match


def explain(writers: Sequence[Writer], ledger: Ledger, prompt: Prompt, image: Any, top: int) -> Explanation:
    """Ask every memory of a host; see `Editor.explain`. What one puts into the prompt, the others read too."""
    first, edit, recognised, candidates = writers[0], None, None, []
    text = first.encode.text(prompt)
    batch = first.batch([first.encode.prompt(prompt)], [])
    if image is not None:
        ids, vision = first.encode.seen(prompt, Picture.of(image))
        batch = first.batch([ids], [vision])
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, **batch.vision}
    lengths = batch.mask.sum(1)
    for writer in sorted(writers, key=lambda writer: writer.reader is None):
        if not len(writer.memory):
            continue
        found = writer.memory.match(writer.runner().see(inputs, lengths), 2 * top)[0]
        if writer.reader is None:
            acting = found[0].row if found and found[0].score >= found[0].threshold else -1
        else:
            acting, shown, hops = writer.reader.explain(batch, top)
            found = [*hops, *found]
            recognised = None if shown < 0 else ledger.record(writer.active.rows[shown])
            reading = writer.reader.read(inputs, lengths, True)
            if reading is not None and reading.lengths is not None:
                inputs, lengths = reading.inputs, reading.lengths
        if edit is None and acting >= 0:
            edit = ledger.record(writer.active.rows[acting])
        candidates += _candidates(writer, ledger, found)
    return Explanation(text, edit, tuple(candidates[:top]), recognised)


def _candidates(writer: Writer, ledger: Ledger, found: Sequence[Match]) -> list[Candidate]:
    best: dict[str, Match] = {}
    for match in found:  # an edit may have several rows
        best.setdefault(writer.active.rows[match.row], match)
    return [Candidate(ledger.record(edit), m.score, m.threshold, m.parts) for edit, m in best.items()]
