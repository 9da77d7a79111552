"""Follow many answers at once: which texts are the beginning of some answer."""

import torch
from torch import Tensor, nn

from editmem.hosts.forward import NO_TOKEN

_FACTOR = 6364136223846793005


class Prefixes(nn.Module):
    """The beginnings of the targets of several groups, as hashes in one sorted table.

    A side memory knows to which group of edits a prompt belongs, not to which edit. It acts while the text since
    the prompt is the beginning of any target of the group.
    """

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.empty(0, dtype=torch.long), persistent=False)

    def fill(self, groups: Tensor, targets: Tensor) -> None:
        """Hold these targets: groups int64 `[N]`, targets int64 `[N, W]` padded with `NO_TOKEN`."""
        # What is said after all of a target but its last token is the last thing that an edit decides.
        more = torch.nn.functional.pad(targets[:, 1:] != NO_TOKEN, (0, 1))
        self.codes = _hashes(groups, targets)[more].unique().to(self.codes.device)

    def known(self, codes: Tensor) -> Tensor:
        """Whether these are codes of beginnings of targets that go on."""
        if not self.codes.numel():
            return torch.zeros_like(codes, dtype=torch.bool)
        return self.codes[torch.searchsorted(self.codes, codes).clamp(max=self.codes.shape[0] - 1)] == codes

    def reach(self, group: Tensor, said: Tensor) -> Tensor:
        """How many leading tokens of `said` `[..., W]` begin a target of `group` `[...]` and are not all: `[...]`."""
        return (self.known(_hashes(group, said)) & (said != NO_TOKEN)).long().cumprod(-1).sum(-1)


def code_after(group: Tensor, said: Tensor, count: Tensor) -> Tensor:
    """The code of the first `count` `[...]` tokens of `said` `[..., W]` in a group, int64 `[...]`."""
    codes = torch.cat([_start(group)[..., None], _hashes(group, said)], -1)
    return codes.gather(-1, count[..., None]).squeeze(-1)


def code_with(code: Tensor, token: Tensor) -> Tensor:
    """The code of a text and one more token."""
    return (code ^ (code >> 29)) * _FACTOR + token + 1


def _start(group: Tensor) -> Tensor:
    return (group + 1) * _FACTOR


def _hashes(group: Tensor, tokens: Tensor) -> Tensor:
    """Of each beginning of `tokens` `[..., W]` in its group: int64 `[..., W]`, products that wrap around."""
    code, codes = _start(group), []
    for column in tokens.unbind(-1):
        code = code_with(code, column)
        codes.append(code)
    return torch.stack(codes, -1)
