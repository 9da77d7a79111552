"""How alike two questions are, and how alike they have to be for an edit to act."""

import torch
from torch import Tensor

from editmem.routing.question_kinds import WHETHER, differ

KIND = 0.1
"""How much less alike questions are that ask for answers of two kinds, as "founded by" and "founded in the year" do."""
USUAL = 0.65
"""How alike a question is, on the whole, to the nearest ones that are usually asked."""
STRICTER = 0.2
"""How far an edit's threshold may be above the usual one, by what it is not for."""
BEYOND = 0.02
"""How much more alike than a question that an edit is not for others have to be."""


def likeness(cosine: Tensor, usual: Tensor, own: Tensor, kind: Tensor, own_kind: Tensor) -> Tensor:
    """How alike questions are, float32: a cosine, less half of what each has with those that are usually asked
    (cross-domain similarity local scaling, arXiv 1710.04087, equation 3), since some are near to everything. Those of
    another kind of answer are less alike, and what is answered by yes or no is like nothing else.

    Args:
        cosine: of the questions.
        usual, own: how alike each of the two is to what is usually asked, less `USUAL`.
        kind, own_kind: of the answers, see `kinds`; all of them broadcast.
    """
    score = cosine - (usual + own) / 2 - torch.where(differ(kind, own_kind), KIND, 0.0)
    return torch.where((kind == WHETHER) == (own_kind == WHETHER), score, -1)


def limit(alike: Tensor, other: Tensor, usual: float) -> Tensor:
    """The similarity from which on an edit acts, a float32 scalar: above the usual one by questions that it is not for,
    but no higher than its own phrasings are alike.

    Args:
        alike: float32 `[Q, Q]`, of what is asked by its own prompt, by other ways to ask the same, and by questions
            that the edit is not for.
        other: bool `[Q]`, which the edit is not for.
        usual: the threshold of an edit of which nothing is known but its prompt.
    """
    alike = alike.masked_fill(torch.eye(len(alike), dtype=torch.bool, device=alike.device), -1)
    value = alike.new_full((), usual)
    against = alike[other][:, ~other]
    if against.numel():
        value = torch.maximum(value, against.max() + BEYOND).clamp(max=usual + STRICTER)
    near = alike[~other][:, ~other].amax(1)[1:]  # of each phrasing to what else the edit has
    if near.numel():
        value = torch.minimum(value, near.min().clamp(min=usual))
    return value
