"""Prompts and answers as rows of token ids, as a host is called with them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from editmem.edits.edit import EncodedEdit
from editmem.hosts import compat
from editmem.hosts.forward import IGNORED_LABEL, Call, Mode, tail_after


@dataclass(frozen=True)
class Batch:
    """Rows of token ids, left-padded so that all texts end in the last column.

    Attributes:
        ids: int64 `[B, T]`, prompt and all target tokens but the last.
        mask: int64 `[B, T]`.
        step: int64 `[B, T]`, distance from the prompt's last token.
        labels: int64 `[B, L]`, the target, right-aligned, `IGNORED_LABEL` before it.
        owner: int64 `[B]`, which edit a row belongs to; the first rows are the edits' plain prompts.
        vision: what the host takes besides, to see the pictures in the rows.
    """

    ids: Tensor
    mask: Tensor
    step: Tensor
    labels: Tensor
    owner: Tensor
    vision: Mapping[str, Tensor] = field(default_factory=dict)

    def only(self, rows: Tensor) -> "Batch":
        """Some of its rows (int64 `[n]`), as wide as before; of texts alone."""
        tensors = {name: getattr(self, name)[rows] for name in ("ids", "mask", "step", "labels", "owner")}
        return dataclasses.replace(self, **tensors)

    def call(self) -> Call:
        real = self.mask.bool()
        tail = tail_after(self.ids, self.step, real, self.labels.shape[1])
        return Call(Mode.BOUNDARY, real, self.ids, self.step, tail)


def collate(rows: Sequence[tuple[int, Sequence[int], Sequence[int]]], pad: int, device: torch.device) -> Batch:
    """A batch of (owner, prompt ids, target ids) rows."""

    def on_the_right(texts: Sequence[Sequence[int]], fill: int) -> Tensor:
        tensors = [torch.tensor(text) for text in texts]
        return pad_sequence(tensors, batch_first=True, padding_value=fill, padding_side="left").to(device)

    texts = [[*prompt, *target[:-1]] for _, prompt, target in rows]
    ids, mask = on_the_right(texts, pad), on_the_right([[1] * len(text) for text in texts], 0)
    labels = on_the_right([target for _, _, target in rows], IGNORED_LABEL)
    lengths = torch.tensor([[len(target)] for _, _, target in rows], device=device)
    step = torch.arange(-ids.shape[1], 0, device=device) + lengths
    return Batch(ids, mask, step, labels, torch.tensor([owner for owner, _, _ in rows], device=device))


def batch_of(edits: Sequence[EncodedEdit], after: Sequence[int], pad: int, device: torch.device) -> Batch:
    """Edits' prompts, then their contexts, each with its target and the tokens `after` it."""
    rows = [(i, edit.prompt, [*edit.target, *after]) for i, edit in enumerate(edits)]
    rows += [(i, context, [*edit.target, *after]) for i, edit in enumerate(edits) for context in edit.contexts]
    batch = collate(rows, pad, device)
    seen = [(edits[i].vision, len(edits[i].prompt), len(prompt)) for i, prompt, _ in rows]
    return dataclasses.replace(batch, vision=vision_of(seen, batch))


def vision_of(seen: Sequence[tuple[Mapping[str, Tensor], int, int]], batch: Batch) -> dict[str, Tensor]:
    """What the host takes to see the pictures in the rows of a batch.

    Args:
        seen: for each row what it takes for the plain prompt alone; how many tokens that has; and how many the row's
            prompt has, which are more where text was put in after the picture.
        batch: the rows.
    """
    width, vision = batch.ids.shape[1], {}
    for name in seen[0][0]:
        parts = [part[name] for part, _, _ in seen]
        of_tokens = [compat.is_per_token(name, p, (1, plain)) for p, (_, plain, _) in zip(parts, seen, strict=True)]
        if all(of_tokens):
            ends = (batch.step == 0).long().argmax(1).tolist()
            parts = [
                _placed(part, width, end + 1 - count)
                for part, end, (_, _, count) in zip(parts, ends, seen, strict=True)
            ]
        vision[name] = torch.cat(parts).to(batch.ids.device)
    return vision


def _placed(part: Tensor, width: int, start: int) -> Tensor:
    """`[1, n, ...]` at columns `start` and after of `[1, width, ...]`; text after it counts as no picture."""
    placed = part.new_zeros((1, width, *part.shape[2:]))
    if part.ndim > 2:  # attention to pictures: all that follows sees what the last token sees
        placed[:, start:] = part[:, -1:]
    count = min(part.shape[1], width - start)
    placed[:, start : start + count] = part[:, :count]
    return placed
