"""What one forward pass knows: which tokens are real, where prompts end, what was decided.

Memories read a `Call` and never keep anything between forward passes themselves.  What must outlive a
forward, the decision made at a prompt's end, travels with the KV cache or with the running `generate`.
"""

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from editmem.hosts.decisions import Decisions

IGNORED_LABEL = -100
OUTPUT = ":out"
"""Behind the path of a module in `Call.noted`, where it is what came out that is noted."""
NO_TOKEN = -1
PADDING = -2


class Mode(Enum):
    """How a forward pass learns where prompts end.

    BOUNDARY: it is known (from `generate`, `labels` or `prompt_lengths`).
    SCAN: it is not; every real token may be the end of a prompt, as a causal model sees the text.
    CONTINUE: one more token on a cache; decisions are carried on.
    """

    BOUNDARY = "boundary"
    SCAN = "scan"
    CONTINUE = "continue"


@dataclass
class Call:
    """One forward pass of the host, as its memories see it.

    Attributes:
        mode: see `Mode`.
        real: bool `[B, T]`, False on padding.
        tokens: int64 `[B, T]`, or None where the host was given embeddings.
        step: int64 `[B, T]` (BOUNDARY): distance of each token from its prompt's last token, which has 0;
            negative inside the prompt, positive in the answer.
        tail: int64 `[B, W]` (BOUNDARY): the tokens after the prompt's end as far as they are known,
            padded with `NO_TOKEN`.
        before: int64 `[B, S]`, the text in the cache before `tokens`, with `NO_TOKEN` and `PADDING`; None where there
            is none, or nothing is known of it.
        start: how many columns the cache has before `tokens`; None where that is not known.
        noted: what went into blocks (`[B, T, d]`), by path, and what came out of other modules, by path and `OUTPUT`.
        decides: whether prompt tokens are among the tokens of this forward (BOUNDARY).
        decisions: what memories keep from one forward to the next.
        stand_ins: modules that run at a site in place of its memories, by site path (used while writing).
        acted: what memories with several sites have worked out for this forward, by key.
        elsewhere: the same call on other devices.
    """

    mode: Mode
    real: Tensor
    tokens: Tensor | None
    step: Tensor | None = None
    tail: Tensor | None = None
    before: Tensor | None = None
    start: int | None = None
    decides: bool = True
    decisions: Decisions = field(default_factory=Decisions)
    stand_ins: dict[str, Any] = field(default_factory=dict)
    noted: dict[str, Tensor] = field(default_factory=dict)
    acted: dict[str, Any] = field(default_factory=dict)
    elsewhere: "dict[torch.device, Call]" = field(default_factory=dict)

    def noted_at(self, name: str) -> Tensor:
        """What was noted under `name`, where this call's tensors are."""
        return self.noted[name].to(self.real.device)

    def widened(self, columns: int) -> "Call":
        """The call with more columns in front, which are no part of the prompt, such as virtual tokens."""
        more = columns - self.real.shape[1]
        if more <= 0:
            return self
        fill = {"real": 0, "tokens": NO_TOKEN, "step": -columns - 1}
        tensors = {name: t for name in fill if (t := getattr(self, name)) is not None}
        wider: dict[str, Any] = {name: pad(t, (more, 0), value=fill[name]) for name, t in tensors.items()}
        return replace(self, **wider)

    def on(self, device: torch.device) -> "Call":
        """The call with its tensors on a device; what is noted, decided and carried is shared."""
        if self.real.device == device:
            return self
        if device not in self.elsewhere:
            tensors = {name: getattr(self, name) for name in ("real", "tokens", "step", "tail", "before")}
            moved: dict[str, Any] = {name: t if t is None else t.to(device) for name, t in tensors.items()}
            self.elsewhere[device] = replace(self, **moved)
        return self.elsewhere[device]

    def again(self) -> "Call":
        """The call as it is now, for a part of the forward that will be run once more."""
        decisions, noted, acted = Decisions(self.decisions), dict(self.noted), dict(self.acted)
        return replace(self, decisions=decisions, noted=noted, acted=acted, elsewhere={})

    def text(self) -> tuple[Tensor, int]:
        """The text so far, int64 `[B, S]`, and at which column this forward's tokens begin in it.

        Negative where nothing is known, on padding, and beyond a prompt's end.
        """
        tokens = torch.full_like(self.real, NO_TOKEN, dtype=torch.long) if self.tokens is None else self.tokens.long()
        wanted = self.real if self.step is None else self.real & (self.step <= 0)
        tokens = torch.where(wanted, tokens, NO_TOKEN)
        return (tokens, 0) if self.before is None else (torch.cat([self.before, tokens], 1), self.before.shape[1])

    def column(self, number: int) -> "Call":
        """One token of it on its own, as one more on a cached text."""
        tokens = None if self.tokens is None else self.tokens[:, number : number + 1]
        return Call(Mode.CONTINUE, self.real[:, number : number + 1], tokens)


@dataclass
class Generation:
    """A running `generate`.

    Attributes:
        columns: columns of its prompt, padding and cached turns included.
        prompt_mask: `[rows, columns]`, False on padding; None until known.
        text: int64 `[rows, columns]`, the prompt as far as it is known, `NO_TOKEN` elsewhere; None where it is not.
        said: int64 `[rows]`, how many of each row's last tokens are not prompt but the beginning of the answer of an
            edit; None where that is so nowhere.
        pending: the call of the forward that was just prepared, in a tuple of one.
        prepares: whether forwards are prepared; if not, each is taken as one that is called by hand.
        decisions: on its rows.
    """

    columns: int
    prompt_mask: Tensor | None = None
    text: Tensor | None = None
    said: Tensor | None = None
    pending: tuple[Call | None] | None = None
    prepares: bool = False
    decisions: Decisions = field(default_factory=Decisions)


class Tape:
    """What a few modules returned in one forward pass, to be returned again without running them.

    It records while it is first set in a context, and plays from `rewound` on. A module that did not run is not
    replaced. Hosts change what they get, so that each gets a copy.
    """

    def __init__(self) -> None:
        self.outputs: dict[str, Any] = {}
        self.plays = False

    def run(self, path: str, module: Callable, *args: Any, **kwargs: Any) -> Any:
        """What the module at `path` returns."""
        if self.plays and path in self.outputs:
            return _copied(self.outputs[path])
        out = module(*args, **kwargs)
        if not self.plays:
            self.outputs[path] = _copied(out)
        return out

    def rewound(self) -> "Tape":
        """Plays from now on."""
        self.plays = True
        return self

    def only(self, rows: Tensor, count: int) -> "Tape | None":
        """What was recorded of some rows (int64 `[n]`) of a batch of `count`; None where they cannot be told apart."""
        tape = Tape()
        for path, out in self.outputs.items():
            parts = out if isinstance(out, tuple) else (out,)
            if not all(part is None or (isinstance(part, Tensor) and part.shape[:1] == (count,)) for part in parts):
                return None
            chosen = tuple(part if part is None else part[rows.to(part.device)] for part in parts)
            tape.outputs[path] = chosen if isinstance(out, tuple) else chosen[0]
        return tape.rewound()


def _copied(out: Any) -> Any:
    return out if isinstance(out, Tensor) else copy.copy(out)


class Context(threading.local):
    """Per thread: the forward in progress, the generations around it, what was set and what was read for it.

    `wanted` is bool `[B, L]`: of which of each row's last tokens logits are asked for, where not of all.
    """

    def __init__(self) -> None:
        self.call: Call | None = None
        self.inside = False
        self.silent = False
        self.generations: list[Generation] = []
        self.lengths: Tensor | None = None
        self.stage_options: Mapping[str, Any] = {}
        self.stand_ins: dict[str, Any] | None = None
        self.tape: Tape | None = None
        self.wanted: Tensor | None = None
        self.decided = Decisions()
        self.watched: list[Call] | None = None

    def __deepcopy__(self, memo: dict) -> "Context":
        return Context()

    def recalling(self, call: Call | None) -> AbstractContextManager[None]:
        """Around a part of a forward that is run once more, with the call that it had."""
        return self.setting(call=None if call is None else call.again(), inside=True)

    @contextmanager
    def setting(self, **values: Any) -> Iterator[None]:
        """Set attributes for the duration of a block; nests."""
        before = {name: getattr(self, name) for name in values}
        for name, value in values.items():
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


def untracked() -> bool:
    """Whether a forward is being compiled or captured, so that nothing may be looked up for it."""
    if torch.compiler.is_compiling():
        return True
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def real_tokens(mask: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    """Bool `[B, T]` of the newest T columns of an attention mask; masks that are not `[B, columns]` say nothing."""
    if mask is None or not isinstance(mask, Tensor) or mask.ndim != 2:
        return torch.ones(shape, dtype=torch.bool, device=device)
    return mask[:, -shape[1] :].to(device=device, dtype=torch.bool)


def tail_after(tokens: Tensor | None, step: Tensor, real: Tensor, window: int) -> Tensor:
    """Int64 `[B, window]`: the real tokens at steps 1, 2, ... of each row."""
    tail = torch.full((step.shape[0], window + 1), NO_TOKEN, dtype=torch.long, device=step.device)
    if tokens is None:
        return tail[:, :window]
    inside = real & (step >= 1) & (step <= window)
    slot = torch.where(inside, step - 1, window)
    return tail.scatter(1, slot, torch.where(inside, tokens, NO_TOKEN))[:, :window]


def call_of_forward(
    inputs: dict[str, Any], decisions: Decisions | None, before: Tensor | None, window: int, lengths: Tensor | None
) -> Call:
    """The call of a forward that is not part of `generate`.

    Args:
        inputs: the host's arguments by name.
        decisions: what earlier forwards left with the cache; None where there is no cache or it is new.
        before: as in `Call`.
        window: W, the longest answer that a memory of this host holds, in tokens.
        lengths: int64 `[B]`, tokens of each row's prompt, or None.
    """
    tokens, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
    tokens = None if tokens is None else tokens.long()
    given = tokens if tokens is not None else embeds
    if given is None:
        raise ValueError("the host was called without input_ids or inputs_embeds")
    shape, device = (given.shape[0], given.shape[1]), given.device
    start = None if untracked() else 0 if before is None else before.shape[1]
    known: dict[str, Any] = {"before": before, "start": start, "decisions": Decisions(decisions or {})}
    real = real_tokens(inputs.get("attention_mask"), shape, device)
    labels = inputs.get("labels")
    if lengths is None and labels is None:
        mode = Mode.CONTINUE if decisions is not None and shape[1] == 1 else Mode.SCAN
        return Call(mode, real, tokens, **known)
    position = real.long().cumsum(1) - 1
    end = lengths.to(device) - 1 if lengths is not None else end_from_labels(cast(Tensor, labels), position, real)
    silent = (end < 0)[:, None]
    step = torch.where(silent | (position < 0), -shape[1] - 1, position - end[:, None])
    return Call(Mode.BOUNDARY, real, tokens, step, tail_after(tokens, step, real, window), **known)


def end_from_labels(labels: Tensor, position: Tensor, real: Tensor) -> Tensor:
    """Int64 `[B]`: the position before the first labelled token; the last token's where none is labelled."""
    labelled = labels.to(real.device) != IGNORED_LABEL
    first = labelled.long().argmax(1, keepdim=True)
    before = position.gather(1, first).squeeze(1) - 1
    return torch.where(labelled.any(1), before, position[:, -1])


def call_of_generation(
    generation: Generation, ids: Tensor, tokens: Tensor | None, new: int, columns: int, window: int
) -> Call | None:
    """The call of one forward inside `generate`; None when every answer that is held must have ended.

    Args:
        generation: the running generation.
        ids: int64 `[B, ...]`, the newest tokens of each row up to now, as generation has them.
        tokens: int64 `[B, new]`, those that this forward reads; None where it reads embeddings.
        new: how many columns this forward adds to the cache.
        columns: how many columns the text has by now, padding and cached turns included.
        window: W, the longest answer held, in tokens.
    """
    start, end = columns - new, generation.columns
    ids, tokens = ids.long(), None if tokens is None else tokens.long()
    if start - end >= window:
        return None
    rows, device = ids.shape[0], ids.device
    step = torch.arange(start - end + 1, columns - end + 1, device=device).expand(rows, new)
    real = torch.ones_like(step, dtype=torch.bool)
    if start < end and generation.prompt_mask is not None:
        step, real = _steps_in_prompt(generation, step, start, min(columns, end))
    if generation.said is not None:
        step = step + _for_rows(generation.said, rows)[:, None].to(device)
    for key, state in generation.decisions.items():
        generation.decisions[key] = {name: _for_rows(tensor, rows) for name, tensor in state.items()}
    tail, before = _tail_of(generation, ids, columns - end, window), None
    if start < end and start > 0 and generation.text is not None:
        before = _for_rows(generation.text, rows)[:, :start].to(device)
    return Call(Mode.BOUNDARY, real, tokens, step, tail, before, start, start < end, generation.decisions)


def _tail_of(generation: Generation, ids: Tensor, count: int, window: int) -> Tensor:
    """Int64 `[B, window]`: the tokens after each row's prompt, `count` of them in the newest columns of `ids`."""
    rows, device = ids.shape[0], ids.device
    tail = torch.full((rows, window), NO_TOKEN, dtype=torch.long, device=device)
    after = ids[:, ids.shape[1] - count :][:, :window].long() if count > 0 else tail[:, :0]
    if generation.said is None or generation.text is None:
        tail[:, : after.shape[1]] = after
        return tail
    said = _for_rows(generation.said, rows).to(device)
    most = int(said.max())
    text = _for_rows(generation.text, rows).to(device)[:, generation.columns - most :]
    after = torch.cat([text, after, tail], 1)
    return after.gather(1, (most - said)[:, None] + torch.arange(window, device=device))


def _for_rows(values: Tensor, rows: int) -> Tensor:
    """What is known of prompts, for the rows that came of them: beams, several sequences."""
    return values if values.shape[0] == rows else values.repeat_interleave(rows // values.shape[0], dim=0)


def _steps_in_prompt(generation: Generation, step: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Replace the steps of prompt columns by counts of real tokens, so that padding on either side is skipped."""
    mask = _for_rows(generation.prompt_mask.bool(), step.shape[0]).to(step.device)  # type: ignore[union-attr]
    position = mask.long().cumsum(1) - 1
    inside = torch.where(position < 0, -generation.columns - 1, position - position[:, -1:])
    step = torch.cat([inside[:, start:stop], step[:, stop - start :]], 1)
    real = torch.cat([mask[:, start:stop], torch.ones_like(step[:, stop - start :], dtype=torch.bool)], 1)
    return step, real
