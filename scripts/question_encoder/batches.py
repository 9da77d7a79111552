"""Batches of a relation with its nearest ones and made look-alikes, and the loss on them."""

from dataclasses import dataclass
from functools import cached_property

import torch
from relations import Relation
from torch import Tensor
from torch.nn.functional import logsigmoid

TEMPERATURE = 0.05


@dataclass
class Bank:
    """Texts by number: those of each relation, and the made look-alikes of each."""

    relations: list[Relation]
    members: list[list[int]]
    others: list[list[int]]

    def neighbours(self, centres: Tensor, count: int = 24) -> Tensor:
        """Int64 `[R, count]`: the relations nearest to each."""
        found = []
        for start in range(0, len(centres), 2048):
            near = centres[start : start + 2048] @ centres.T
            near.diagonal(start).fill_(-2)
            found.append(near.topk(count, dim=1).indices)
        return torch.cat(found)

    @cached_property
    def kinds(self) -> dict[str, list[int]]:
        """The relations of each kind of subject."""
        found: dict[str, list[int]] = {}
        for at, relation in enumerate(self.relations):
            found.setdefault(relation.kind, []).append(at)
        return found

    def draw(
        self, near: Tensor, luck: torch.Generator, seeds: int, each: int, texts: int
    ) -> tuple[list[int], list[int]]:
        """Text numbers and relation numbers of a batch; -1 - relation for its look-alikes."""
        first = torch.randint(len(self.relations), (seeds,), generator=luck).tolist()
        chosen = dict.fromkeys(first)
        for relation in first:
            row = near[relation]
            picked = row[torch.randperm(len(row), generator=luck)[:each]].tolist()
            same = self.kinds[self.relations[relation].kind]
            picked += [same[int(i)] for i in torch.randint(len(same), (each // 2,), generator=luck)]
            chosen.update(dict.fromkeys(picked))
        numbers, labels = [], []
        for relation in chosen:
            mine = self.members[relation]
            picked = [mine[i] for i in torch.randperm(len(mine), generator=luck)[:texts].tolist()]
            numbers += picked
            labels += [relation] * len(picked)
            if made := self.others[relation]:
                numbers.append(made[int(torch.randint(len(made), (1,), generator=luck))])
                labels.append(-1 - relation)
        return numbers, labels

    def apart(self, labels: list[int]) -> tuple[Tensor, Tensor]:
        """Bool `[N, N]`: which texts ask the same, and which ask something else for sure."""
        relation = [label if label >= 0 else -1 - label for label in labels]
        label = torch.tensor(labels)
        same = (label[:, None] == label[None]) & (label >= 0)[:, None]
        unsure = torch.zeros_like(same)
        number = {self.relations[at].name: at for at in set(relation)}
        where = torch.tensor(relation)
        for at in set(relation):
            for other in self.relations[at].alike & number.keys():
                unsure |= (where == at)[:, None] & (label == number[other])
        different = ~same & ~unsure
        return same & ~torch.eye(len(labels), dtype=torch.bool), different


def contrast(
    vectors: Tensor, labels: list[int], same: Tensor, different: Tensor, scale: Tensor, bias: Tensor
) -> Tensor:
    """InfoNCE and a sigmoid loss on pairs; rows of look-alikes count as columns only."""
    rows = torch.tensor(labels) >= 0
    cosine = (vectors @ vectors.T)[rows]
    same, different = same[rows], different[rows]
    logits = cosine / TEMPERATURE
    others = logits.masked_fill(~different, -1e4).logsumexp(1, keepdim=True)
    nce = (torch.logaddexp(logits, others) - logits)[same].mean()
    sure = scale.exp() * cosine - bias
    pairs = -logsigmoid(sure)[same].mean() - 4 * logsigmoid(-sure)[different].sum() / different.sum().clamp(min=1) * 10
    return nce + pairs


def scale_and_bias() -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """The slope and the threshold of the sigmoid loss."""
    return torch.nn.Parameter(torch.tensor(2.7)), torch.nn.Parameter(torch.tensor(9.0))
