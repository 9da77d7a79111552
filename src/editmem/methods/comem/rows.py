"""Questions with the embeddings of items in front, as the host reads them while something is learned."""

from collections.abc import Callable, Sequence

from torch import Tensor

from editmem.editing.batches import Batch, collate, vision_of
from editmem.editing.writer import Writer
from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import Call


def batch_with(questions: Sequence[EncodedEdit], items: Sequence[Sequence[int]], queries: int, writer: Writer) -> Batch:
    """Questions and answers as rows with places for the embeddings of items in front."""
    pad = writer.pad
    prompts = [[pad] * (queries * len(own)) + list(q.prompt) for q, own in zip(questions, items, strict=True)]
    rows = [(i, prompt, q.target) for i, (prompt, q) in enumerate(zip(prompts, questions, strict=True))]
    batch = collate(rows, pad, writer.host.device)
    if not questions[0].vision:
        return batch
    seen = [(q.vision, len(q.prompt), len(q.prompt)) for q in questions]
    return Batch(batch.ids, batch.mask, batch.step, batch.labels, batch.owner, vision_of(seen, batch))


def standing_in(items: Sequence[Sequence[int]], embeddings: Tensor) -> Callable[[Tensor, Tensor, Call], Tensor]:
    """Stands at the host's word embeddings, and puts those of items in front of each row's text."""

    def put(tokens: Tensor, out: Tensor, call: Call) -> Tensor:
        out = out.clone()
        for b, own in enumerate(items):
            first = int(call.real[b].long().argmax())
            put = embeddings[list(own)].flatten(0, 1)
            out[b, first : first + len(put)] = put.to(out.dtype)
        return out

    return put
