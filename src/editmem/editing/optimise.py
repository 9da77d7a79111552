"""Write edits: the one optimisation loop.

Everything below the edited block is frozen. It runs once; what its blocks return is recorded, and replayed
in every optimiser step, so that a step costs the blocks above only. This holds for any architecture.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from editmem.editing.endings import Endings
from editmem.edits.edit import EncodedEdit
from editmem.errors import InvalidEditError
from editmem.hosts import compat
from editmem.hosts.decisions import Decisions
from editmem.hosts.forward import IGNORED_LABEL, Call, Context, Mode, Tape, tail_after
from editmem.hosts.structure import Host, SiteInfo
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

    def call(self) -> Call:
        real = self.mask.bool()
        tail = tail_after(self.ids, self.step, real, self.labels.shape[1])
        return Call(Mode.BOUNDARY, real, self.ids, self.step, tail)


def collate(rows: Sequence[tuple[int, Sequence[int], Sequence[int]]], pad: int, device: torch.device) -> Batch:
    """A batch of (owner, prompt ids, target ids) rows."""
    texts = [[*prompt, *target[:-1]] for _, prompt, target in rows]
    width = max(map(len, texts))
    longest = max(len(target) for _, _, target in rows)
    ids = [[pad] * (width - len(text)) + text for text in texts]
    mask = [[0] * (width - len(text)) + [1] * len(text) for text in texts]
    step = [list(range(len(target) - width, len(target))) for _, _, target in rows]
    labels = [[IGNORED_LABEL] * (longest - len(target)) + list(target) for _, _, target in rows]
    owners = [owner for owner, _, _ in rows]
    columns = [torch.tensor(values, device=device) for values in (ids, mask, step, labels, owners)]
    return Batch(columns[0], columns[1], columns[2], columns[3], columns[4])


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


class Runner:
    """Runs the host on batches with a module of our choice at a site, from the first block or from a recording.

    Args:
        host: the host.
        site: where the stand-in sits.
        context: the context of the slots on this host.
    """

    def __init__(self, host: Host, site: SiteInfo, context: Context) -> None:
        self.host, self.site, self.context = host, site, context
        parameters = compat.parameter_names(host.model.forward)
        self.options = {name for name in compat.OPTIONAL if name in parameters}
        self.cache_name = compat.cache_name(parameters)

    def logits(self, batch: Batch, stand_ins: Mapping[str, Callable] | None = None) -> Tensor:
        """Logits `[B, L, V]` of the target's tokens, with `stand_ins` in place of the memories at these paths."""
        keep = batch.labels.shape[1]
        inputs = self._inputs(batch)
        if "position_ids" in self.options and not batch.vision:
            inputs["position_ids"] = (batch.mask.cumsum(1) - 1).clamp(min=0)
        if "logits_to_keep" in self.options:
            inputs["logits_to_keep"] = keep
        if "use_cache" in self.options:
            inputs["use_cache"] = False
        lengths = (batch.mask * (batch.step <= 0)).sum(1)
        with self.context.setting(stand_ins=stand_ins or {}, lengths=lengths, silent=False):
            return self.host.model(**inputs).logits[:, -keep:].to(batch.ids.device)

    def _inputs(self, batch: Batch) -> dict[str, Any]:
        follows = compat.prefix_inputs(self.host.model, batch.step > 0)
        return {"input_ids": batch.ids, "attention_mask": batch.mask, **batch.vision, **follows}

    def decided(self, batch: Batch, decisions: Decisions) -> Tensor:
        """Logits `[B, L, V]` of the target's tokens, with what is to act decided beforehand; for training."""
        keep, lengths = batch.labels.shape[1], (batch.mask * (batch.step <= 0)).sum(1)
        with self.context.setting(stand_ins={}, lengths=lengths, decided=decisions, silent=False):
            out = self.host.model(**self._inputs(batch))
        return out.logits[:, -keep:].to(batch.ids.device)

    def greedy(self, batch: Batch, count: int, pad: int, bare: bool = False) -> list[list[int]]:
        """The next `count` tokens of each text, the likeliest at each step, memories included unless `bare`."""
        if batch.vision:
            return self._greedy_seeing(batch, count, pad, bare)
        mask, tokens, said = batch.mask, batch.ids, []
        lengths: Tensor | None = (mask * (batch.step <= 0)).sum(1)
        inputs: dict[str, Any] = {"use_cache": True} if "use_cache" in self.options else {}
        follows = compat.prefix_inputs(self.host.model, batch.step > 0)
        for _ in range(count):
            if "position_ids" in self.options:
                inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
            if "logits_to_keep" in self.options:
                inputs["logits_to_keep"] = 1
            with torch.no_grad(), self.context.setting(stand_ins={}, lengths=lengths, silent=bare):
                out = self.host.model(input_ids=tokens, attention_mask=mask, **inputs, **follows)
            said.append(out.logits[:, -1].argmax(-1).to(tokens.device))
            mask = nn.functional.pad(mask, (0, 1), value=1)
            tokens, lengths, follows = said[-1][:, None], None, {}
            inputs[self.cache_name] = compat.cache_of(out)
        return torch.stack(said, 1).tolist()

    def go_on(
        self, rows: Sequence[tuple[EncodedEdit, Sequence[int]]], count: int, pad: int, bare: bool
    ) -> list[list[int]]:
        """As `greedy`, of edits' prompts with what was said after them."""
        batch = collate([(i, edit.prompt, [*said, pad]) for i, (edit, said) in enumerate(rows)], pad, self.host.device)
        seen = [(edit.vision, len(edit.prompt), len(edit.prompt)) for edit, _ in rows]
        return self.greedy(dataclasses.replace(batch, vision=vision_of(seen, batch)), count, pad, bare)

    def _greedy_seeing(self, batch: Batch, count: int, pad: int, bare: bool) -> list[list[int]]:
        """By `generate`: where a picture's tokens are in the text, hosts count positions in ways of their own."""
        from transformers import GenerationConfig

        config = GenerationConfig(max_new_tokens=count, do_sample=False, num_beams=1, pad_token_id=pad)
        with self.context.setting(stand_ins={}, silent=bare):
            said = cast(Any, self.host.model).generate(generation_config=config, **self._inputs(batch))
        return said[:, batch.ids.shape[1] :].tolist()

    def see(self, inputs: Mapping[str, Any], lengths: Tensor) -> Prompts:
        """What the site of the bare host sees of prompts of `lengths` (int64 `[B]`) tokens."""
        seen, look = _looking()
        options: dict[str, Any] = {"use_cache": False} if "use_cache" in self.options else {}
        if "logits_to_keep" in self.options:
            options["logits_to_keep"] = 1
        if "position_ids" in self.options and set(inputs) == {"input_ids", "attention_mask"}:
            options["position_ids"] = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with torch.no_grad(), self.context.setting(stand_ins={self.site.path: look}, lengths=lengths, silent=False):
            self.host.model(**inputs, **options)
        return seen[0]

    def record(self, batch: Batch) -> tuple[Tensor, Prompts, Tape]:
        """As `probe`, and what the parts of the host below the site returned."""
        tape = Tape()
        with self.context.setting(tape=tape):
            logits, prompts = self.probe(batch)
        below = {path for path, _ in self.host.below(self.site)}
        tape.outputs = {path: out for path, out in tape.outputs.items() if path in below}
        return logits, prompts, tape.rewound()

    def probe(self, batch: Batch) -> tuple[Tensor, Prompts]:
        """One pass through the bare host: logits, and what the site saw."""
        seen, look = _looking()
        with torch.no_grad():
            logits = self.logits(batch, {self.site.path: look})
        if not torch.isfinite(seen[0].x[seen[0].call.real]).all():
            raise InvalidEditError(
                f"the host's activations at {self.site.path} are not finite (NaN or infinity); nothing was written. "
                "Check the host's weights and dtype"
            )
        return logits, seen[0]


def _looking() -> tuple[list[Prompts], Callable[[Tensor, Tensor, Call], Tensor]]:
    """A stand-in that changes nothing, and the list in which it notes what it sees."""
    seen: list[Prompts] = []

    def look(x: Tensor, out: Tensor, call: Call) -> Tensor:
        seen.append(Prompts(x, out, call))
        return out

    return seen, look


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
