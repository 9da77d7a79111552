"""Edits as token ids, and rows of them as one batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baselines.sites import hooked
from benchmarks.records import Record

IGNORED = -100  # the label of positions without a target


@dataclass(frozen=True)
class Row:
    """One text that the host reads.

    Attributes:
        ids: the prompt's tokens, then the target's.
        prompt: how many of them are the prompt's.
        subject: position of the subject's last token in the prompt; the prompt's last token where it is unknown.
    """

    ids: tuple[int, ...]
    prompt: int
    subject: int


@dataclass(frozen=True)
class Batch:
    """Rows, padded on the right; logits are asked for at M places only, where a row wants a token.

    Attributes:
        ids, mask: int64 `[B, L]`.
        rows, columns: int64 `[M]`, the places; a row without a target is asked at its subject.
        labels: int64 `[M]`, the next tokens wanted; `IGNORED` for a row without a target.
        subjects: int64 `[B]`, see `Row`.
    """

    ids: Tensor
    mask: Tensor
    rows: Tensor
    columns: Tensor
    labels: Tensor
    subjects: Tensor

    def asked(self) -> dict[str, Tensor]:
        """As a host takes it."""
        return {"input_ids": self.ids, "attention_mask": self.mask}

    def at_subjects(self, states: Tensor) -> Tensor:
        """`[B, L, D]` to `[B, D]`."""
        return states[torch.arange(len(states), device=states.device), self.subjects]

    def logits(self, model: Any, run: Callable[..., Any] | None = None) -> Tensor:
        """What a host says at the places, float32 `[M, V]`.

        Args:
            model: the host.
            run: what is called in its stead, with the same arguments; it must go through the host's modules.
        """

        def wanted(head: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
            return (given[0][self.rows, self.columns][None],)

        with hooked([model.get_output_embeddings().register_forward_pre_hook(wanted)]):
            said = (run or model)(**self.asked(), use_cache=False)
        return said.logits[0].float()

    def losses(self, logits: Tensor) -> Tensor:
        """`[B]`: mean negative log-likelihood of each row's target, in nats; 0 for a row without one."""
        losses = nn.functional.cross_entropy(logits, self.labels, ignore_index=IGNORED, reduction="none")
        counts = self.rows.bincount(minlength=len(self.ids))
        return losses.new_zeros(len(self.ids)).index_add(0, self.rows, losses) / counts

    def greedy(self, logits: Tensor) -> Tensor:
        """Bool `[B]`: whether every token of the target is the likeliest."""
        missed = (logits.argmax(-1) != self.labels) & (self.labels != IGNORED)
        return self.rows[missed].bincount(minlength=len(self.ids)) == 0


def encode(tokenizer: Any, prompt: str, target: str = "", subject: str | None = None) -> Row:
    """A prompt and its answer, joined by a space as `Session.score` joins them.

    Args:
        tokenizer: a fast one where a subject is given.
        prompt, target: the texts; an empty target is none.
        subject: whom or what the prompt is about; its last mention counts.
    """
    at = -1 if subject is None else prompt.rfind(subject)
    encoded = tokenizer(prompt)
    ids = encoded["input_ids"]
    token = None if at < 0 else encoded.char_to_token(at + len(str(subject)) - 1)
    end = tokenizer(f" {target}", add_special_tokens=False)["input_ids"] if target else []
    return Row((*ids, *end), len(ids), len(ids) - 1 if token is None else token)


def collate(rows: Sequence[Row], pad: int, device: torch.device) -> Batch:
    """Rows as a batch."""
    width = max(len(row.ids) for row in rows)
    ids = [[*row.ids, *[pad] * (width - len(row.ids))] for row in rows]
    mask = [[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows]
    places = []
    for i, row in enumerate(rows):
        targets = [(i, at - 1, row.ids[at]) for at in range(row.prompt, len(row.ids))]
        places += targets or [(i, row.subject, IGNORED)]
    columns = [list(column) for column in zip(*places, strict=True)]
    tensors = (ids, mask, *columns, [row.subject for row in rows])
    return Batch(*(torch.tensor(t, device=device) for t in tensors))


def padding(tokenizer: Any) -> int:
    """The token that fills rows up; it is masked, so that any will do."""
    return next(int(t) for t in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if t is not None)


def without_repeats(records: Sequence[Record]) -> list[list[Record]]:
    """Cut a sequence of edits where a prompt comes again, so that the later edit supersedes the earlier one."""
    parts: list[list[Record]] = [[]]
    for record in records:
        if any(record.prompt == other.prompt for other in parts[-1]):
            parts.append([])
        parts[-1].append(record)
    return parts
