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
from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import IGNORED_LABEL, Tape
from editmem.memory import Draft, Kept, Memory, Prompts, Spec


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

    Returns:
        What came of each edit.
    """
    start = time.perf_counter()
    count = len(edits)
    batch = batch_of(edits, [pad], pad, runner.host.device)
    logits, prompts, tape = runner.record(batch)
    # Where the host would make another value of the answer, it is taught to end it there.
    bare = functools.partial(runner.go_on, pad=pad, bare=True)
    closing, known = endings.closing(edits, logits[:count, -1], bare)
    batch.labels[:, -1] = closing[batch.owner]
    asked = edits
    edits = [
        edit if token == IGNORED_LABEL else dataclasses.replace(edit, target=(*edit.target, token))
        for edit, token in zip(edits, closing.tolist(), strict=True)
    ]
    before = _mean_losses(logits[:count], batch.labels[:count])
    draft = memory.draft(edits, prompts, batch.owner.to(prompts.x.device))
    steps = _learn(runner, draft, batch, tape, memory.spec)
    kept = commit(edits, draft, prompts)
    with torch.no_grad():
        plain = batch_of([dataclasses.replace(edit, contexts=()) for edit in edits], [pad], pad, runner.host.device)
        plain.labels[:, -1] = IGNORED_LABEL
        logits = runner.logits(plain)
        following = logits[:, -1].argmax(-1).tolist()
    # Above the last block, and where the prompt is not read anew, it is the bare host that goes on after an answer.
    holds = runner.site.block == len(runner.host.blocks) - 1 and not rewritten
    runs_on = _run_on(runner, endings, asked, edits, following, known if holds else {}, pad)
    said = ((logits.argmax(-1) == plain.labels) | (plain.labels == IGNORED_LABEL)).all(1).tolist()
    after = _mean_losses(logits, plain.labels)
    seconds = (time.perf_counter() - start) / count
    columns = zip(said, runs_on, before.tolist(), after.tolist(), steps.tolist(), kept, strict=True)
    return [Outcome(ok and not on, was, now, n, seconds, own, ok and on) for ok, on, was, now, n, own in columns]


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


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, float32 `[B, L]`, 0 where there is none."""
    flat = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    return flat.view(labels.shape)


def _mean_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each row's target, `[B]`."""
    return _token_losses(logits, labels).sum(1) / (labels != IGNORED_LABEL).sum(1)


def _learn(runner: Runner, draft: Draft, batch: Batch, tape: Tape, spec: Spec) -> Tensor:
    """Optimise until each target token beats all others together by the margin, in every row of its edit.

    Returns:
        int64 `[E]`, the steps that each edit took.
    """
    count = int(batch.owner.max()) + 1
    steps = torch.zeros(count, dtype=torch.long, device=batch.ids.device)
    enough = math.log1p(math.exp(-spec.margin))  # a lead of m nats over all others together is this loss
    with torch.enable_grad(), runner.context.setting(tape=tape):
        for _ in range(spec.steps):
            losses = _token_losses(runner.logits(batch, draft.places(runner.site.path)), batch.labels)
            worst = torch.zeros(count, dtype=losses.dtype, device=losses.device)
            worst = worst.scatter_reduce(0, batch.owner, losses.detach().amax(1), "amax")
            unfinished = worst > enough
            if not bool(unfinished.any()) and draft.settled():
                break
            steps += unfinished
            draft.step(torch.where(unfinished[batch.owner][:, None], losses, 0).sum(), unfinished)
    return steps
