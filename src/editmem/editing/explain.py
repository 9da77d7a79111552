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
    for writer in sorted(writers, key=lambda writer: writer.stage is None):
        if not len(writer.memory):
            continue
        found = writer.memory.match(writer.see(inputs, lengths), 2 * top)[0]
        if writer.stage is None:
            acting = found[0].row if found and found[0].score >= found[0].threshold else -1
        else:
            staged = writer.stage.explain(inputs, lengths, top)
            acting, found = staged.acting, [*staged.matches, *found]
            recognised = None if staged.recognised < 0 else ledger.record(writer.active.rows[staged.recognised])
            rewritten = writer.stage.read(inputs, lengths, True)
            if rewritten is not None and rewritten.lengths is not None:
                inputs, lengths = rewritten.inputs, rewritten.lengths
        if edit is None and acting >= 0:
            edit = ledger.record(writer.active.rows[acting])
        candidates += _candidates(writer, ledger, found)
    return Explanation(text, edit, tuple(candidates[:top]), recognised)


def _candidates(writer: Writer, ledger: Ledger, found: Sequence[Match]) -> list[Candidate]:
    best: dict[str, Match] = {}
    for match in found:  # an edit may have several rows
        best.setdefault(writer.active.rows[match.row], match)
    return [Candidate(ledger.record(edit), m.score, m.threshold, m.parts) for edit, m in best.items()]
