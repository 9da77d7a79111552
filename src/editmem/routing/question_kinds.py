"""What kind of answer a question asks for, by its words: yes or no, somebody, a time, a place, a reason, a number."""

import torch
from torch import Tensor

from editmem.routing.question_encoder import question_encoder
from editmem.text.spelling import pieces

ANY, WHETHER, WHO, WHERE, WHY, MANY, WHEN = range(7)
"""Kinds; of a question with words of several the first in this order, but `ANY`, which is that of all others."""
WORDS = {
    "whether": "is are was were am do does did can could has have had will would should shall may might must",
    "who": "who whom whose",
    "where": "where",
    "why": "why",
    "how": "how",
    "many": "many much",
    "when": "when",
    "time": "year date century month decade",
    "by": "by",
}
"""The words that tell: "whether" and "when" where a question begins with them, "by" where it ends with it."""


_IDS: dict[tuple[str, torch.device], Tensor] = {}


def _ids(name: str, device: torch.device) -> Tensor:
    """The encoder's ids of one of `WORDS`."""
    if (name, device) not in _IDS:  # no `functools.cache`: torch.compile would look through it
        hashes = torch.tensor([pieces(word)[0].hashes[0] for word in WORDS[name].split()])
        _IDS[name, device] = question_encoder().ids(hashes).to(device)
    return _IDS[name, device]


def auxiliaries(device: torch.device) -> Tensor:
    """The encoder's ids of "is", "has", "did" and their like."""
    return _ids("whether", device)


def kinds(ids: Tensor) -> Tensor:
    """The kinds of texts up to each of their words.

    Args:
        ids: int64 `[N, P]`, vocabulary ids of the question encoder, 0 where there is no word.

    Returns:
        int64 `[N, P]`.
    """
    there = ids > 0
    position = torch.arange(ids.shape[1], device=ids.device)
    last = torch.where(there, position, 0).cummax(1).values
    begins = there & (there.long().cumsum(1) == 1)

    def so_far(name: str, where: Tensor = there) -> Tensor:
        return (torch.isin(ids, _ids(name, ids.device)) & where).cummax(1).values

    by = torch.isin(ids.gather(1, last), _ids("by", ids.device))
    tests = {
        WHETHER: so_far("whether", begins),
        WHO: so_far("who"),
        WHERE: so_far("where"),
        WHY: so_far("why"),
        MANY: so_far("how") & so_far("many"),
        WHEN: so_far("when", begins) | so_far("time"),
    }
    found = torch.where(by, WHO, ANY)
    for kind, holds in reversed(tests.items()):
        found = torch.where(holds, kind, found)
    return found


def differ(one: Tensor, other: Tensor) -> Tensor:
    """Bool, whether two kinds, int64, are known and not the same."""
    return (one != other) & (one != ANY) & (other != ANY)
