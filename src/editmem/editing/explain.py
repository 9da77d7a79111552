"""Work out which edit acts on a prompt, and why."""

from collections.abc import Sequence
from typing import Any

from editmem.editing.writer import Writer
from editmem.edits.edit import Prompt
from editmem.edits.explanation import Candidate, Explanation
from editmem.edits.history import Ledger
from editmem.edits.image import Picture
from editmem.memory import Match

TOGETHER = 32
"""Prompts that are read at once."""


def explain_each(writers: Sequence[Writer], ledger: Ledger, prompts: Sequence[Prompt], top: int) -> list[Explanation]:
    """As `explain`, of several prompts, which are read together where no memory rewrites them."""
    if any(writer.stage is not None for writer in writers):
        return [explain(writers, ledger, prompt, None, top) for prompt in prompts]
    first, explained = writers[0], []
    for start in range(0, len(prompts), TOGETHER):
        part = prompts[start : start + TOGETHER]
        batch = first.batch([first.encode.prompt(prompt) for prompt in part], [])
        inputs, lengths = {"input_ids": batch.ids, "attention_mask": batch.mask}, batch.mask.sum(1)
        asked = [writer for writer in writers if len(writer.memory)]
        found = [(writer, writer.memory.match(writer.look(inputs, lengths), 2 * top)) for writer in asked]
        for row, prompt in enumerate(part):
            own = [(writer, matches[row]) for writer, matches in found]
            acting = (writer.active.id_of(m[0].row) for writer, m in own if m and m[0].score >= m[0].threshold)
            edit = next((ledger.record(edit_id) for edit_id in acting), None)
            candidates = [each for writer, matches in own for each in _candidates(writer, ledger, matches)]
            explained.append(Explanation(first.encode.text(prompt), edit, tuple(candidates[:top])))
    return explained


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
        found = writer.memory.match(writer.look(inputs, lengths), 2 * top)[0]
        if writer.stage is None:
            acting = found[0].row if found and found[0].score >= found[0].threshold else -1
        else:
            staged = writer.stage.explain(inputs, lengths, top)
            acting, found = staged.acting, [*staged.matches, *found]
            recognised = None if staged.recognised < 0 else ledger.record(writer.active.id_of(staged.recognised))
            rewritten = writer.stage.read(inputs, lengths, True)
            if rewritten is not None and rewritten.lengths is not None:
                inputs, lengths = rewritten.inputs, rewritten.lengths
        if edit is None and acting >= 0:
            edit = ledger.record(writer.active.id_of(acting))
        candidates += _candidates(writer, ledger, found)
    return Explanation(text, edit, tuple(candidates[:top]), recognised)


def _candidates(writer: Writer, ledger: Ledger, found: Sequence[Match]) -> list[Candidate]:
    best: dict[str, Match] = {}
    for match in found:  # an edit may have several rows
        best.setdefault(writer.active.id_of(match.row), match)
    return [Candidate(ledger.record(edit), m.score, m.threshold, m.parts) for edit, m in best.items()]
