"""Write edits: the one optimisation loop.

Everything below the edited block is frozen. It runs once; what its blocks return is recorded, and replayed
in every optimiser step, so that a step costs the blocks above only. This holds for any architecture.
"""

import copy
import dataclasses
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from editmem.call import IGNORED_LABEL, Call, Context, Mode, tail_after
from editmem.edit import EncodedEdit
from editmem.errors import InvalidEditError
from editmem.host import Host, SiteInfo
from editmem.memory.base import Draft, Kept, Memory, Prompts


@dataclass(frozen=True)
class Outcome:
    """What came of one edit, in numbers.

    Attributes:
        took: whether the model, memory and router included, now says the target token by token.
        loss_before, loss_after: mean negative log-likelihood of the target, in nats.
        steps: optimiser steps.
        seconds: share of the wall time.
        kept: what the memory knows of it.
    """

    took: bool
    loss_before: float
    loss_after: float
    steps: int
    seconds: float
    kept: Kept


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
        of_tokens = [p.ndim > 1 and p.shape[1] == plain for p, (_, plain, _) in zip(parts, seen, strict=True)]
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
        parameters = inspect.signature(host.model.forward).parameters
        self.options = {name for name in ("position_ids", "logits_to_keep", "use_cache") if name in parameters}

    def logits(self, batch: Batch, stand_in: nn.Module | Callable | None) -> Tensor:
        """Logits `[B, L, V]` of the target's tokens, with `stand_in` in place of the site's memories if given."""
        keep = batch.labels.shape[1]
        inputs: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.mask, **batch.vision}
        if "position_ids" in self.options and not batch.vision:
            inputs["position_ids"] = (batch.mask.cumsum(1) - 1).clamp(min=0)
        if "logits_to_keep" in self.options:
            inputs["logits_to_keep"] = keep
        if "use_cache" in self.options:
            inputs["use_cache"] = False
        lengths = (batch.mask * (batch.step <= 0)).sum(1)
        stand_ins = stand_in.places(self.site.path) if isinstance(stand_in, Draft) else {self.site.path: stand_in}
        stand_ins = {} if stand_in is None else stand_ins
        with self.context.setting(stand_ins=stand_ins, lengths=lengths, silent=False):
            return self.host.model(**inputs).logits[:, -keep:].to(batch.ids.device)

    def routed(self, batch: Batch, route: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        """Logits `[B, L, V]` of the target's tokens, with what is to act decided beforehand; for training."""
        keep, lengths = batch.labels.shape[1], (batch.mask * (batch.step <= 0)).sum(1)
        with self.context.setting(stand_ins={}, lengths=lengths, route=route, silent=False):
            out = self.host.model(input_ids=batch.ids, attention_mask=batch.mask, **batch.vision)
        return out.logits[:, -keep:].to(batch.ids.device)

    def greedy(self, batch: Batch, count: int, pad: int, bare: bool = False) -> list[list[int]]:
        """The next `count` tokens of each prompt, the likeliest at each step, memories included unless `bare`."""
        if batch.vision:
            return self._greedy_seeing(batch, count, pad, bare)
        mask, tokens, said = batch.mask, batch.ids, []
        lengths: Tensor | None = mask.sum(1)
        inputs: dict[str, Any] = {"use_cache": True} if "use_cache" in self.options else {}
        for _ in range(count):
            if "position_ids" in self.options:
                inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
            if "logits_to_keep" in self.options:
                inputs["logits_to_keep"] = 1
            with torch.no_grad(), self.context.setting(stand_ins={}, lengths=lengths, silent=bare):
                out = self.host.model(input_ids=tokens, attention_mask=mask, **inputs)
            said.append(out.logits[:, -1].argmax(-1).to(tokens.device))
            mask = nn.functional.pad(mask, (0, 1), value=1)
            tokens, lengths = said[-1][:, None], None
            inputs["past_key_values"] = out.past_key_values
        return torch.stack(said, 1).tolist()

    def _greedy_seeing(self, batch: Batch, count: int, pad: int, bare: bool) -> list[list[int]]:
        """By `generate`: where a picture's tokens are in the text, hosts count positions in ways of their own."""
        from transformers import GenerationConfig

        config = GenerationConfig(max_new_tokens=count, do_sample=False, num_beams=1, pad_token_id=pad)
        with self.context.setting(stand_ins={}, silent=bare):
            said = cast(Any, self.host.model).generate(
                input_ids=batch.ids, attention_mask=batch.mask, generation_config=config, **batch.vision
            )
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

    def record(self, batch: Batch) -> tuple[Tensor, Prompts, "Recording"]:
        """As `probe`, and what the blocks below the site returned."""
        recording = Recording([*self.host.vision, *self.host.blocks[: self.site.block]])
        with recording.recording():
            logits, prompts = self.probe(batch)
        return logits, prompts, recording

    def probe(self, batch: Batch) -> tuple[Tensor, Prompts]:
        """One pass through the bare host: logits, and what the site saw."""
        seen, look = _looking()
        with torch.no_grad():
            logits = self.logits(batch, look)
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


class Recording:
    """What a few modules returned in one forward pass, to be returned again without running them.

    A module that did not run then is not replaced. Hosts change what they get, so that each gets a copy.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self.modules = modules
        self.outputs: dict[nn.Module, Any] = {}

    def recording(self):  # type: ignore[no-untyped-def]
        return _forwards(self.modules, [self._keeping(module, module.forward) for module in self.modules])

    def replaying(self):  # type: ignore[no-untyped-def]
        return _forwards(
            list(self.outputs),
            [
                lambda *_, out=out, **__: out if isinstance(out, Tensor) else copy.copy(out)
                for out in self.outputs.values()
            ],
        )

    def _keeping(self, module: nn.Module, forward: Callable) -> Callable:
        def run(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            self.outputs[module] = out if isinstance(out, Tensor) else copy.copy(out)
            return out

        return run


@contextmanager
def _forwards(modules: Sequence[nn.Module], forwards: Sequence[Callable]) -> Iterator[None]:
    own: list[Callable | None] = [module.__dict__.get("forward") for module in modules]
    for module, forward in zip(modules, forwards, strict=True):
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):  # type: ignore[assignment]
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward


def write(
    runner: Runner,
    memory: Memory,
    edits: Sequence[EncodedEdit],
    pad: int,
    continues: Tensor,
    committed: Callable[[], None],
) -> list[Outcome]:
    """Learn a batch of edits, keep them in the memory, and check what the model says then.

    Args:
        runner: for the memory's host and site.
        memory: where the edits go.
        edits: what to write; independent of each other.
        pad: a token id to pad with.
        continues: bool `[V]`, tokens that go on with the word before them.
        committed: called when the memory holds the edits, before they are checked.

    Returns:
        What came of each edit.
    """
    start = time.perf_counter()
    count = len(edits)
    batch = batch_of(edits, [pad], pad, runner.host.device)
    logits, prompts, recording = runner.record(batch)
    # Where the host would go on with the answer's last word, it is taught to end the word there.
    closing = _closing(logits[:count, -1], continues)
    batch.labels[:, -1] = closing[batch.owner]
    edits = [
        edit if token == IGNORED_LABEL else dataclasses.replace(edit, target=(*edit.target, token))
        for edit, token in zip(edits, closing.tolist(), strict=True)
    ]
    before = _mean_losses(logits[:count], batch.labels[:count])
    draft = memory.draft(edits, prompts, batch.owner.to(prompts.x.device))
    steps = _learn(runner, draft, batch, recording, memory.spec)
    kept = memory.commit(edits, draft, prompts)
    committed()
    with torch.no_grad():
        plain = batch_of([dataclasses.replace(edit, contexts=()) for edit in edits], [], pad, runner.host.device)
        logits = runner.logits(plain, None)
    took = ((logits.argmax(-1) == plain.labels) | (plain.labels == IGNORED_LABEL)).all(1)
    after = _mean_losses(logits, plain.labels)
    seconds = (time.perf_counter() - start) / count
    columns = zip(took.tolist(), before.tolist(), after.tolist(), steps.tolist(), kept, strict=True)
    return [Outcome(ok, was, now, taken, seconds, known) for ok, was, now, taken, known in columns]


def _closing(logits: Tensor, continues: Tensor) -> Tensor:
    """Int64 `[E]`: where the host would go on with the answer's last word, the likeliest token that does not.

    Args:
        logits: `[E, V]`, after the answers' last tokens.
        continues: as of `write`.
    """
    width = logits.shape[-1]
    continues = nn.functional.pad(continues.to(logits.device), (0, max(0, width - len(continues))))[:width]
    runs_on = continues[logits.argmax(-1)]
    likeliest = logits.masked_fill(continues, -torch.inf).argmax(-1)
    return torch.where(runs_on, likeliest, IGNORED_LABEL)


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label, float32 `[B, L]`, 0 where there is none."""
    flat = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    return flat.view(labels.shape)


def _mean_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of each row's target, `[B]`."""
    return _token_losses(logits, labels).sum(1) / (labels != IGNORED_LABEL).sum(1)


def _learn(runner: Runner, draft: Draft, batch: Batch, recording: Recording, spec: Any) -> Tensor:
    """Optimise until each target token beats all others together by the margin, in every row of its edit.

    Returns:
        int64 `[E]`, the steps that each edit took.
    """
    count = int(batch.owner.max()) + 1
    steps = torch.zeros(count, dtype=torch.long, device=batch.ids.device)
    enough = math.log1p(math.exp(-spec.margin))  # a lead of m nats over all others together is this loss
    with torch.enable_grad(), recording.replaying():
        for _ in range(spec.steps):
            losses = _token_losses(runner.logits(batch, draft), batch.labels)
            worst = torch.zeros(count, dtype=losses.dtype, device=losses.device)
            worst = worst.scatter_reduce(0, batch.owner, losses.detach().amax(1), "amax")
            unfinished = worst > enough
            if not bool(unfinished.any()) and draft.settled():
                break
            steps += unfinished
            draft.step(torch.where(unfinished[batch.owner][:, None], losses, 0).sum(), unfinished)
    return steps
