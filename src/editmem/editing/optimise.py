"""Learn edits: the one optimisation loop, and what came of it."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from editmem.editing.batches import Batch, batch_of
from editmem.editing.endings import Endings
from editmem.editing.runner import Runner
from editmem.editing.token_directions import TokenDirections
from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import IGNORED_LABEL, Tape
from editmem.memory import Draft, Kept, Memory, Prompts, Spec

NO_GRADIENT = 1e-30
"""A gradient of a logit that is no larger counts for nothing."""


@dataclass(frozen=True)
class Outcome:
    """What came of one edit, in numbers.

    Attributes:
        took: whether the model, memory and router included, now says the target token by token.
        loss_before, loss_after: mean negative log-likelihood of the target, in nats.
        steps: optimiser steps.
        seconds: share of the wall time.
        kept: what the memory knows of it.
        runs_on: whether the model says the target and goes on to another value; it did not take then.
    """

    took: bool
    loss_before: float
    loss_after: float
    steps: int
    seconds: float
    kept: Kept
    runs_on: bool = False


def write(
    runner: Runner,
    memory: Memory,
    edits: Sequence[EncodedEdit],
    pad: int,
    endings: Endings,
    commit: Callable[[Sequence[EncodedEdit], Draft, Prompts], list[Kept]],
    rewritten: bool = False,
    directions: Callable[[], TokenDirections | None] = lambda: None,
) -> list[Outcome]:
    """Learn a batch of edits, keep them in the memory, and check what the model says then.

    Args:
        runner: for the memory's host and site.
        memory: where the edits go.
        edits: what to write; independent of each other.
        pad: a token id to pad with.
        endings: sees to it that answers end.
        commit: keeps drafted edits in the memory, as `Memory.commit`; they are checked after it.
        rewritten: whether a prompt stage changes what the host reads.
        directions: of the host, where it has them for the memory's site; asked for where edits can begin there.

    Returns:
        What came of each edit.
    """
    start = time.perf_counter()
    count = len(edits)
    batch = batch_of(edits, [pad], pad, runner.host.device)
    logits, prompts, tape = runner.record(batch)
    # Where the host would make another value of the answer, it is taught to end it there.
    bare = functools.partial(runner.go_on, pad=pad, bare=True)
    read = batch.labels != IGNORED_LABEL
    closing, known = endings.closing(edits, logits[_last(batch)[read]][:count], bare)
    batch.labels[:, -1] = closing[batch.owner]
    asked = edits
    edits = with_ends(edits, closing)
    before = _mean_losses(logits[(batch.labels != IGNORED_LABEL)[read]], batch.labels)[:count]
    del logits
    draft = memory.draft(edits, prompts, batch.owner.to(prompts.x.device))
    if draft.begins and (of_tokens := directions()) is not None:
        draft.begin([edit.target for edit in edits], of_tokens)
    steps = _learn(runner, draft, batch, tape, memory.spec)
    kept = commit(edits, draft, prompts)
    # Above the last block, and where the prompt is not read anew, it is the bare host that goes on after an answer.
    holds = runner.on_last_block and not rewritten
    said = (_said_from_tape(runner, batch, tape, count) if holds else None) or _said(runner, edits, pad, rewritten)
    runs_on = _run_on(runner, endings, asked, edits, said.following, known if holds else {}, pad)
    seconds = (time.perf_counter() - start) / count
    columns = zip(said.right, runs_on, before.tolist(), said.losses, steps.tolist(), kept, strict=True)
    return [Outcome(ok and not on, was, now, n, seconds, own, ok and on) for ok, on, was, now, n, own in columns]


def with_ends(edits: Sequence[EncodedEdit], closing: Tensor) -> list[EncodedEdit]:
    """Edits whose targets end with what `Endings.closing` gave for them."""
    return [
        edit if token == IGNORED_LABEL else dataclasses.replace(edit, target=(*edit.target, token))
        for edit, token in zip(edits, closing.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class _Said:
    """What the model says of each edit.

    Attributes:
        right: whether it is the target, token by token.
        losses: mean negative log-likelihood of the target.
        following: the token after the target; of those that end with a token of their own, any.
    """

    right: list[bool]
    losses: list[float]
    following: list[int]


@torch.no_grad()
def _said(runner: Runner, edits: Sequence[EncodedEdit], pad: int, rewritten: bool) -> _Said:
    """What the model says, memory included."""
    plain = batch_of([dataclasses.replace(edit, contexts=()) for edit in edits], [pad], pad, runner.host.device)
    plain.labels[:, -1] = IGNORED_LABEL
    return _said_in(runner, plain, rewritten)


@torch.no_grad()
def _said_from_tape(runner: Runner, batch: Batch, tape: Tape, count: int) -> _Said | None:
    """As `_said`, where nothing below the site has changed since `tape` was recorded of the batch."""
    if len(batch.ids) > count:
        shorter = None if batch.vision else tape.only(torch.arange(count, device=batch.ids.device), len(batch.ids))
        if shorter is None:
            return None
        batch, tape = batch.only(torch.arange(count, device=batch.ids.device)), shorter
    with runner.context.setting(tape=tape):
        return _said_in(runner, batch, False)


def _said_in(runner: Runner, batch: Batch, rewritten: bool) -> _Said:
    asked, last = batch.labels != IGNORED_LABEL, _last(batch)
    wanted = asked | last
    # A prompt that is rewritten has other columns, until the host's output is as it was asked for.
    logits = runner.logits(batch)[wanted] if rewritten else runner.logits(batch, wanted=wanted)
    likeliest = torch.full_like(batch.labels, IGNORED_LABEL).masked_scatter(wanted, logits.argmax(-1))
    right = ((likeliest == batch.labels) | ~asked).all(1)
    return _Said(right.tolist(), _mean_losses(logits[asked[wanted]], batch.labels).tolist(), likeliest[:, -1].tolist())


def _last(batch: Batch) -> Tensor:
    """Bool `[B, L]`, the last token of each row."""
    last = torch.zeros_like(batch.labels, dtype=torch.bool)
    last[:, -1] = True
    return last


def _run_on(
    runner: Runner,
    endings: Endings,
    asked: Sequence[EncodedEdit],
    taught: Sequence[EncodedEdit],
    following: Sequence[int],
    known: dict[tuple[int, ...], bool],
    pad: int,
) -> list[bool]:
    """Whether the model, memory included, makes another value of each answer.

    Args:
        asked: the edits.
        taught: the same, with the tokens that end their answers.
        following: the tokens that come after those.
        known: as of `Endings.run_on`.
    """
    pairs = zip(asked, taught, following, strict=True)
    said = [[*with_end.target[len(edit.target) :], token] for edit, with_end, token in pairs]
    seeing = any(edit.vision for edit in asked)  # in their texts, what was said cannot be told from the prompt
    return endings.run_on(asked, said, known, functools.partial(runner.go_on, pad=pad, bare=seeing))


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, float32 `[B, L]`, 0 where there is none; logits `[n, V]` of the others."""
    asked, logits = labels != IGNORED_LABEL, logits.float()
    if logits.requires_grad:
        # Most of a large vocabulary has next to none. Times a weight that is a denormal number, with which processors
        # work many times slower.
        logits.register_hook(functools.partial(nn.functional.hardshrink, lambd=NO_GRADIENT))
    losses = nn.functional.cross_entropy(logits, labels[asked], reduction="none")
    return losses.new_zeros(labels.shape).masked_scatter(asked, losses)


def _mean_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each row's target, `[B]`."""
    return token_losses(logits, labels).sum(1) / (labels != IGNORED_LABEL).sum(1)


def _learn(runner: Runner, draft: Draft, batch: Batch, tape: Tape, spec: Spec) -> Tensor:
    """Optimise until each target token beats all others together by the margin, in every row of its edit.

    Returns:
        int64 `[E]`, the steps that each edit took.
    """
    count = int(batch.owner.max()) + 1
    steps = torch.zeros(count, dtype=torch.long, device=batch.ids.device)
    enough = math.log1p(math.exp(-spec.margin))  # a lead of m nats over all others together is this loss
    for _ in range(spec.steps):
        asked = batch.labels != IGNORED_LABEL
        with torch.enable_grad(), runner.context.setting(tape=tape):
            losses = token_losses(runner.logits(batch, draft.places(runner.site.path), asked), batch.labels)
            worst = torch.zeros(count, dtype=losses.dtype, device=losses.device)
            worst = worst.scatter_reduce(0, batch.owner, losses.detach().amax(1), "amax")
            unfinished = worst > enough
            if not bool(unfinished.any()) and draft.settled():
                break
            steps += unfinished
            draft.step(torch.where(unfinished[batch.owner][:, None], losses, 0).sum(), unfinished)
        batch, tape = _of_unfinished(draft, batch, tape, unfinished)
    return steps


def _of_unfinished(draft: Draft, batch: Batch, tape: Tape, unfinished: Tensor) -> tuple[Batch, Tape]:
    """The rows of edits that are not learned yet, where edits are learned apart; else all."""
    rows = unfinished[batch.owner].nonzero()[:, 0]
    if len(rows) == len(batch.ids) or batch.vision:
        return batch, tape
    left = tape.only(rows, len(batch.ids))
    return (batch, tape) if left is None or not draft.only(rows) else (batch.only(rows), left)
