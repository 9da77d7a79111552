"""Follow answers token by token: an edit acts while the text since the prompt is the beginning of its target.

This is what makes an edit the same in every way of decoding. Its first offset acts on the prompt's last
token; the next acts only where the target's first token has been said; and so on. Where the text leaves
the target, or the target has been said, the host goes on as it would.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from editmem.hosts.forward import NO_TOKEN, PADDING, Call, Mode


@dataclass(frozen=True)
class Action:
    """Which edit acts on which token of a forward pass.

    Attributes:
        edit: int64 `[B, T]`, the row of the edit; arbitrary where nothing acts.
        step: int64 `[B, T]`, which token of the edit's target comes next; arbitrary where nothing acts.
        active: bool `[B, T]`.
    """

    edit: Tensor
    step: Tensor
    active: Tensor


# Of edits `[...]` and the text since their prompts `[..., W]`: after how many of its tokens they act last, `[...]`.
Reach = Callable[[Tensor, Tensor], Tensor]


def on_track(tail: Tensor, target: Tensor) -> Tensor:
    """How many leading tokens of `tail` `[..., V]` are those of `target` `[..., W]`: int64 `[...]`."""
    width = min(tail.shape[-1], target.shape[-1])  # another memory on the host may have longer answers
    return (tail[..., :width] == target[..., :width]).long().cumprod(-1).sum(-1)


def reach_of(targets: Tensor, lengths: Tensor) -> Reach:
    """How far edits act: while their own target is being said.

    Args:
        targets: int64 `[N, W]`, target tokens of each edit, padded with `NO_TOKEN`.
        lengths: int64 `[N]`, tokens in each target.
    """
    return lambda edit, said: torch.minimum(on_track(said, targets[edit]), lengths[edit] - 1)


def follow(call: Call, edit: Tensor, reach: Reach) -> Action:
    """The action where each row has one prompt and one decision (`Mode.BOUNDARY`).

    Args:
        call: the forward; `call.step` and `call.tail` are set.
        edit: int64 `[B]`, the edit that was decided on, -1 for none.
        reach: how far edits act.
    """
    step, row = call.step, edit.clamp(min=0)
    assert step is not None
    assert call.tail is not None
    active = (edit >= 0)[:, None] & (step >= 0) & (step <= reach(row, call.tail)[:, None])
    return Action(row[:, None].expand_as(step), step.clamp(min=0), active)


def scan(call: Call, edit: Tensor, reach: Reach, window: int) -> Action:
    """The action where any token may end a prompt (`Mode.SCAN`): the earliest edit still being said acts.

    Args:
        call: the forward.
        edit: int64 `[B, T]`, the edit that the prompt ending at each token matches, -1 for none.
        reach: how far edits act.
        window: W, tokens of the longest target, rounded up.
    """
    rows, count = edit.shape
    tokens = torch.full_like(edit, NO_TOKEN) if call.tokens is None else call.tokens
    tokens = torch.where(call.real, tokens, NO_TOKEN)
    ahead = torch.nn.functional.pad(tokens, (0, window), value=NO_TOKEN).unfold(1, window, 1)[:, 1:]
    last = torch.where(edit >= 0, reach(edit.clamp(min=0), ahead), -1)
    ago = torch.arange(window, device=edit.device)
    starts = torch.arange(count, device=edit.device)[:, None] - ago
    covers = (starts >= 0) & (last[:, starts.clamp(min=0)] >= ago)
    step = torch.where(covers, ago, -1).max(-1).values
    start = (torch.arange(count, device=edit.device) - step.clamp(min=0)).expand(rows, count)
    return Action(edit.clamp(min=0).gather(1, start), step.clamp(min=0), (step >= 0) & call.real)


def last_action(action: Action, call: Call) -> dict[str, Tensor]:
    """What to carry to the next token: edit and step at each row's last real token, -1 where nothing acts."""
    if call.real.shape[1] == 1:  # decoding: nothing to look for
        active = action.active[:, 0]
        return {
            "edit": torch.where(active, action.edit[:, 0], -1),
            "step": torch.where(active, action.step[:, 0], -1),
        }
    columns = torch.arange(call.real.shape[1], device=call.real.device)
    last = torch.where(call.real, columns, 0).max(1, keepdim=True).values
    active = action.active.gather(1, last)
    return {
        "edit": torch.where(active, action.edit.gather(1, last), -1).squeeze(1),
        "step": torch.where(active, action.step.gather(1, last), -1).squeeze(1),
    }


def proceed(call: Call, carried: dict[str, Tensor], targets: Tensor, lengths: Tensor) -> Action:
    """The action on one more token of a cached text (`Mode.CONTINUE`)."""
    assert call.mode is Mode.CONTINUE
    tokens = torch.full_like(call.real, NO_TOKEN, dtype=torch.long) if call.tokens is None else call.tokens
    row, step = carried["edit"].clamp(min=0), carried["step"].clamp(min=0)
    said = (targets[row].gather(1, step[:, None]) == tokens) & (tokens >= 0)
    active = (
        (torch.minimum(carried["edit"], carried["step"]) >= 0)[:, None]
        & said
        & (step + 1 < lengths[row])[:, None]
        & call.real
    )
    return Action(row[:, None], step[:, None] + 1, active)


HISTORY = ("ends", "ended")
"""What a carry keeps of all decisions on a text, int64 `[B, K]` each: the columns where prompts end, and the edits."""


def recorded(call: Call, edit: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The `HISTORY` after a forward that decided on `edit` (`[B]` or `[B, T]`); as before where columns are unknown."""
    before = {name: state[name] for name in HISTORY if name in state}
    if call.start is None:
        return before
    columns = torch.arange(call.real.shape[1], device=edit.device).expand_as(call.real)
    if call.mode is not Mode.SCAN:
        assert call.step is not None
        is_end = (call.step == 0) & call.real
        columns = torch.where(is_end, columns, -call.start - 1).amax(1, keepdim=True)
        edit = edit[:, None]
    ends = columns + call.start
    if before:
        ends, edit = torch.cat([before["ends"], ends], 1), torch.cat([before["ended"], edit], 1)
    return {"ends": ends, "ended": edit}


def resumed(text: Tensor, state: dict[str, Tensor], reach: Reach, window: int) -> tuple[Action, Call]:
    """What acts in a text of which all is known, as where the end of a cache was taken away.

    Args:
        text: int64 `[B, S]`, as in `Call.before`.
        state: with the `HISTORY`; decisions beyond the text do not count.
        reach, window: as of `scan`.

    Returns:
        the action, and the forward that would have read the text; both with padding on the left.
    """
    ends, ended = state["ends"], state["ended"]
    known = (ends >= 0) & (ends < text.shape[1])
    decided = torch.full((text.shape[0], text.shape[1] + 1), -1, dtype=torch.long, device=text.device)
    decided = decided.scatter(1, torch.where(known, ends, text.shape[1]), torch.where(known, ended, -1))[:, :-1]
    order = (text != PADDING).to(torch.uint8).argsort(dim=1, stable=True)
    text, decided = text.gather(1, order), decided.gather(1, order)
    call = Call(Mode.SCAN, text != PADDING, text)
    return scan(call, decided, reach, window), call
